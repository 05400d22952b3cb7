"""A retraining that was killed between its steps: what the next run takes it for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from encoders.protocol import TextKind
from encoders.training.pairs import Examples, Pair, TrainingError, Unwritable
from sinks.collections import Generation, Model
from streams.commands import main, retraining
from streams.commands.judging import InService
from streams.commands.retraining import Asked, _too_little, retrain
from streams.evaluation.files import Shop
from streams.rollout.drift import Drift
from streams.rollout.models_folder import ModelsFolder, Outcome, Task
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
    cut=5,
    validation_from=4,
    options={"seed": 1},
)
Afterglow = Callable[..., tuple[int, str, str]]
DECIDED = Outcome(outcome="kept", at=1, why="nothing has drifted", generation="main")


class Run:
    """One run, of which readers see a generation of a model, and Qdrant has nothing to prune."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models = ModelsFolder(folder)
        self.models.begin(TASK)
        self._monkeypatch = monkeypatch
        self.steps: list[str] = []
        self.original = retraining._carried_out

        async def prune(*_: object) -> tuple[list[str], list[str]]:
            return ["g2"], [str(self.models.path(TASK.name))]

        def decided(*_: object) -> Outcome:
            self.steps.append("looks anew")
            return DECIDED

        def carried_out(_: Settings, __: ModelsFolder, task: Task, *___: object) -> Outcome:
            self.steps.append(f"goes on with {task.name}")
            return DECIDED

        monkeypatch.setattr(retraining, "prune", prune)
        monkeypatch.setattr(retraining, "_decided", decided)
        monkeypatch.setattr(retraining, "_carried_out", carried_out)
        self.reads(lambda *_: History(Shop([], [], []), 0))

    def reads(self, read: Callable[..., History]) -> None:
        self._monkeypatch.setattr(retraining, "read_history", read)

    def __call__(self, identity: str, source: str = "") -> Outcome:
        settings = load(environment={})
        model = Model("model", identity, 3, source)
        seen = Generation("g7", model, "secret", recorded_fold(settings.profiles), 1, replayed=True)
        self._monkeypatch.setattr(retraining, "in_service", lambda _: InService(seen, frozenset()))
        return retrain(settings, self.models, Asked(force=False, threads=1, options={}), lambda *_: None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_while_readers_see_the_model_that_it_began_from_it_goes_on(run: Run) -> None:
    run("parent")
    assert run.steps == ["goes on with 20260101-000000"]
    assert run.models.task() == TASK


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
    assert outcome == run.models.last() == DECIDED
    assert run.models.task() is None
    assert not run.models.path(f"{TASK.name}.partial").exists()


def test_what_it_learned_from_is_gone_so_it_looks_anew(run: Run) -> None:
    def gone(*_: object) -> History:
        raise HistoryGone("records are gone (retention)")

    run.reads(gone)
    run("parent")
    assert run.steps == ["looks anew"]
    assert run.models.task() is None


def test_a_training_that_would_fail_again_is_given_up_and_one_that_had_no_room_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out = run.original
    monkeypatch.setattr(retraining, "_carried_out", carried_out)
    full = Unwritable(Path("checkpoint.pt"), OSError(28, "No space left on device"))
    for failure, left in ((full, TASK), (TrainingError("the loss is nan"), None)):

        def train(*_: object, failure: Exception = failure) -> None:
            raise failure

        monkeypatch.setattr(retraining, "_train", train)
        with pytest.raises(type(failure)):
            run("parent")
        assert run.models.task() == left


def test_what_is_too_little_to_learn_from_is_said_before_anything_is_trained() -> None:
    pair = Pair(TextKind.QUERY, ("tent",), "p1", "ada", 1)
    nothing = Examples({}, [pair] * 3, [], [], frozenset())
    assert _too_little(nothing) == "3 pairs to learn from, and fewer than 200 teach nothing"
    unmeasured = Examples({}, [pair] * 200, [], [], frozenset())
    assert _too_little(unmeasured) == "0 searches or orders to measure it by, and fewer than 20 say nothing"


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
