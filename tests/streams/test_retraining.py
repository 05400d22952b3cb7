"""A retraining that was killed between its steps: what the next run takes it for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import pytest

from encoders.protocol import TextKind
from encoders.training.pairs import Examples, NoMemory, OtherTraining, Pair, TrainingError, Unwritable
from sinks.collections import Generation, Model
from streams.commands import deciding, main, retraining
from streams.commands.deciding import Asked, Decided
from streams.commands.judging import InService
from streams.commands.retraining import retrain
from streams.evaluation.bootstrap import Interval
from streams.evaluation.comparison import Measure
from streams.evaluation.files import Shop
from streams.rollout.drift import Drift
from streams.rollout.judgement import nothing_concluded
from streams.rollout.models_folder import ModelsFolder
from streams.rollout.task import Outcome, Task
from streams.rules import recorded_fold
from streams.settings import Settings, load
from streams.training.topics import Extent, History, HistoryGone, Stretch

STRETCH = Stretch("searches", "s1", [0], [5])
TASK = Task(
    name="20260101-000000",
    began_at=1,
    generation="main",
    parent="parent",
    why=["5.5% of words are new to the model (from 5% on)"],
    drift=Drift(learned_until=None, events=12, unseen_words=None, bad_matches=None, recall=[]),
    extent=Extent(STRETCH, STRETCH, STRETCH),
    events=1000,
    cut=5,
    validation_from=4,
    half_life_ms=1000,
    options={"seed": 1, "batch": 128},
)
Afterglow = Callable[..., tuple[int, str, str]]
DECIDED = Outcome(outcome="kept", at=1, why="nothing has drifted", generation="main")


class Run:
    """One run, of which readers see a generation of a model, and Qdrant has one to drop."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models = ModelsFolder(folder)
        self.models.begin(TASK)
        self._monkeypatch = monkeypatch
        self.steps: list[str] = []
        self.options: dict[str, str | int | float | bool] = {}
        self.decided: Outcome | Decided = DECIDED

        async def prune(*_: object) -> tuple[list[str], list[str]]:
            return ["g2"], [str(self.models.path(TASK.name))]

        def decide(*_: object) -> Outcome | Decided:
            self.steps.append("looks anew")
            return self.decided

        @contextmanager
        def encoding_with(settings: Settings, model: str) -> Iterator[Settings]:
            self.steps.append(f"goes on with {Path(model).name}")
            yield settings

        self._stub("prune", prune)
        self._stub("decide", decide)
        self._stub("encoding_with", encoding_with)
        self._stub("described", lambda _: Model("model", "its-own", 3))
        self.reads(lambda *_: History(Shop([], [], []), 0))
        self.trains(lambda *_: self.models.path(TASK.name).mkdir())
        self.judges()

    def _stub(self, name: str, value: object) -> None:
        self._monkeypatch.setattr(retraining, name, value)

    def reads(self, read: Callable[..., History]) -> None:
        self._stub("read_history", read)

    def trains(self, train: Callable[..., object]) -> None:
        self._monkeypatch.setattr(retraining._Retraining, "_train", train)

    def judges(self, *measures: Measure) -> None:
        judged = nothing_concluded(Shop([], [], []), ("parent", "its-own"), {})
        judgement = msgspec.structs.replace(judged, measures=[*measures])
        self._monkeypatch.setattr(retraining._Retraining, "_judgement", lambda *_: judgement)

    def replays(self, replay: Callable[..., None]) -> None:
        async def replayed(*_: object, **given: object) -> None:
            self.steps.append(f"replays instead of {given['instead_of']}")
            replay()

        self._stub("replay", replayed)

    def serves(self, name: str, identity: str, source: str = "") -> None:
        fold = recorded_fold(load(environment={}).profiles)
        seen = Generation(name, Model("model", identity, 3, source), "secret", fold, 1, replayed=True)
        self._stub("in_service", lambda _: InService(seen, frozenset()))

    def __call__(self, identity: str, source: str = "") -> Outcome:
        settings = load(environment={})
        self.serves("g7", identity, source)
        return retrain(settings, self.models, Asked(force=False, threads=1, options=self.options), lambda *_: None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_while_readers_see_the_model_that_it_began_from_it_goes_on(run: Run) -> None:
    outcome = run("parent")
    assert run.steps == ["goes on with 20260101-000000"]
    assert (outcome.outcome, outcome.why) == (
        "refused", "too little happened in the newest window to judge the new model by",
    )  # fmt: skip
    assert run.models.task() is None
    assert run.models.last() == outcome
    (attempt,) = run.models.attempts()
    assert (attempt.task, attempt.outcome, attempt.why) == (TASK, "refused", outcome.why)


def test_when_readers_had_been_led_over_only_the_tidying_is_left(run: Run) -> None:
    folder = run.models.path(TASK.name)
    for name in ("20260101-000000", "20251201-000000"):
        run.models.path(name).mkdir()
    outcome = run("its-own", str(folder))
    assert run.steps == []
    assert (outcome.outcome, outcome.generation, outcome.dropped) == ("rolled out", "g7", ["g2"])
    assert outcome.why.startswith("5.5% of words are new to the model")
    assert run.models.task() is None
    assert run.models.last() == outcome
    assert folder.exists()
    assert not run.models.path("20251201-000000").exists()


def test_when_somebody_let_readers_see_another_model_it_is_given_up(run: Run) -> None:
    run.models.path(f"{TASK.name}.partial").mkdir()
    outcome = run("somebody-else-s")
    assert run.steps == ["looks anew"]
    assert outcome == run.models.last()
    assert (outcome.outcome, outcome.why) == (DECIDED.outcome, DECIDED.why)
    assert run.models.task() is None
    assert run.models.attempts() == []
    assert not run.models.path(f"{TASK.name}.partial").exists()


@pytest.mark.parametrize(
    "failure",
    [HistoryGone("records are gone (retention)"), OtherTraining(Path("20260101-000000.partial"))],
    ids=["the history is gone", "another version began it"],
)
def test_what_it_was_to_learn_from_cannot_be_had_again_so_it_looks_anew(failure: Exception, run: Run) -> None:
    def gone(*_: object) -> None:
        raise failure

    run.trains(gone)
    run.models.path(f"{TASK.name}.partial").mkdir()
    run("parent")
    assert run.steps == ["looks anew"]
    assert run.models.task() is None
    assert run.models.attempts() == []
    assert not run.models.path(f"{TASK.name}.partial").exists()


BETTER = Measure("query", "mrr", True, 0.5, 0.6, Interval(0.1, 0.05, 0.15))


def test_a_better_model_is_replayed_and_readers_are_led_over_from_what_it_was_judged_beside(run: Run) -> None:
    run.judges(BETTER)
    run.replays(lambda: run.serves("g8", "its-own"))
    outcome = run("parent")
    assert run.steps == ["goes on with 20260101-000000", "replays instead of g7"]
    assert (outcome.outcome, outcome.generation) == ("rolled out", "g8")
    assert [(attempt.task, attempt.outcome) for attempt in run.models.attempts()] == [(TASK, "rolled out")]


def test_where_somebody_led_readers_elsewhere_meanwhile_they_stay_there(run: Run) -> None:
    run.judges(BETTER)
    elsewhere = r"readers see generation g9 now, and saw g7 when the model was judged: they are not led to it"
    run.replays(lambda: run.serves("g9", "somebody-else-s"))
    with pytest.raises(click.ClickException, match=elsewhere):
        run("parent")
    assert run.steps == ["goes on with 20260101-000000", "replays instead of g7"]
    run.steps.clear()
    run.models.path(TASK.name).rmdir()
    run.trains(lambda *_: (run.models.path(TASK.name).mkdir(), run.serves("g9", "somebody-else-s")))
    with pytest.raises(click.ClickException, match=elsewhere):
        run("parent")
    assert run.steps == ["goes on with 20260101-000000"]
    assert run.models.task() == TASK, "the next run gives it up"


def test_a_model_that_is_made_and_judged_needs_no_history(run: Run) -> None:
    run.models.path(TASK.name).mkdir()
    run.reads(lambda *_: pytest.fail("the topics were read"))
    assert run("parent").outcome == "refused"


def test_other_options_begin_anew_until_the_model_is_made(run: Run) -> None:
    run.options = {"batch": 32}
    run("parent")
    assert run.steps == ["looks anew"]
    run.steps.clear()
    run.models.begin(TASK)
    run.models.path(TASK.name).mkdir()
    run("parent")
    assert run.steps == ["goes on with 20260101-000000"]


def test_a_training_that_would_fail_again_is_given_up_and_one_that_had_no_room_goes_on(run: Run) -> None:
    full = Unwritable(Path("checkpoint.pt"), OSError(28, "No space left on device"))
    for failure, left in ((full, TASK), (NoMemory("cuda"), TASK), (TrainingError("the loss is nan"), None)):

        def train(*_: object, failure: Exception = failure) -> None:
            raise failure

        run.trains(train)
        with pytest.raises(type(failure)):
            run("parent")
        assert run.models.task() == left
    (attempt,) = run.models.attempts()
    assert (attempt.outcome, attempt.why) == ("failed", "the loss is nan")


def test_what_is_too_little_to_learn_from_is_said_before_anything_is_trained() -> None:
    pair = Pair(TextKind.QUERY, ("tent",), "p1", "ada", 1)
    nothing = Examples({}, [pair] * 3, [], [], frozenset())
    assert deciding._too_little(nothing) == "3 pairs to learn from, and fewer than 200 teach nothing"
    one_class = Examples({}, [pair] * 200, [], [], frozenset())
    assert deciding._too_little(one_class) == "all pairs lead to one product, and there is nothing to tell it from"
    unmeasured = Examples({}, [pair, pair._replace(right="p2")] * 100, [], [], frozenset())
    assert deciding._too_little(unmeasured) == "0 searches or orders to measure it by, and fewer than 20 say nothing"


@pytest.fixture
def afterglow(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Afterglow:
    """Runs `retrain` with a data directory of its own: exit code, and what it printed."""
    for name in [name for name in os.environ if name.startswith("AFTERGLOW_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["retrain", "--data-dir", str(tmp_path), *arguments])
        out, err = capfd.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_what_it_came_to_is_one_line(afterglow: Afterglow, monkeypatch: pytest.MonkeyPatch) -> None:
    came_to = msgspec.structs.replace(DECIDED, outcome="rolled out", generation="g4", dropped=["g2"], seconds=61.3)
    monkeypatch.setattr(retraining, "retrain", lambda *_: came_to)
    assert afterglow() == (0, "rolled out g4: nothing has drifted; dropped g2 (61 s)\n", "")
    code, out, _ = afterglow("--json")
    assert (code, out.count("\n")) == (0, 1)
    assert json.loads(out)["generation"] == "g4"


def test_a_run_that_fails_says_why_and_another_waits_for_nobody(
    afterglow: Afterglow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> Outcome:
        raise HistoryGone("Kafka has no topic searches")

    monkeypatch.setattr(retraining, "retrain", fail)
    assert afterglow() == (1, "", "error: Kafka has no topic searches\n")
    with ModelsFolder(tmp_path / "models").held():
        code, _, err = afterglow()
    assert code == 1
    assert "another `afterglow retrain` is at work" in err
    for wrong in ("soon", "7", "30s"):
        assert afterglow("--every", wrong)[0] == 2


def test_again_and_again_it_says_what_failed_and_comes_back_within_the_hour(
    afterglow: Afterglow, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Outcome | Exception] = [HistoryGone("no topics yet"), DECIDED]
    waited: list[float] = []

    def next_one(*_: object) -> Outcome:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if not outcomes:
            raise KeyboardInterrupt

    monkeypatch.setattr(retraining, "retrain", next_one)
    monkeypatch.setattr("streams.commands.retrain.time.sleep", sleep)
    code, out, err = afterglow("--every", "7d")
    assert code == 130
    assert out == "failed: HistoryGone: no topics yet\nkept main: nothing has drifted\n"
    assert err.split("\n")[:2] == ["the next run is in 1h", "the next run is in 7d"]
    assert waited == [3600.0, 7 * 86_400.0]
