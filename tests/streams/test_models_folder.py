"""What a retraining leaves behind, and what is kept of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from encoders.training.pairs import Unwritable
from encoders.training.whole_files import replace_whole
from sinks.collections import Built, Generation, Model
from streams.evaluation.bootstrap import Interval
from streams.evaluation.comparison import Measure
from streams.rollout import models_folder
from streams.rollout.drift import Drift
from streams.rollout.judgement import GOOD_FOR_MS, Judgement, in_words, keep, kept
from streams.rollout.models_folder import AtWork, ModelsFolder
from streams.rollout.pruning import superfluous
from streams.rollout.task import Outcome, Task
from streams.training.topics import Extent, Stretch

TOPICS = {"searches": "s1", "purchases": "p1", "products": "c1"}


def task(name: str = "20260101-000000") -> Task:
    stretch = Stretch("searches", "s1", [0, 0], [5, 7])
    return Task(
        name=name,
        began_at=1,
        generation="main",
        parent="0123456789abcdef",
        why=["asked for"],
        drift=Drift(learned_until=None, events=12, unseen_words=None, bad_matches=None, recall=[]),
        extent=Extent(stretch, stretch, stretch),
        events=1000,
        cut=5,
        validation_from=4,
        half_life_ms=1000,
        options={"steps": 10, "half": False},
    )


def outcome(model: str | None = None) -> Outcome:
    return Outcome(outcome="refused", at=1, why="worse", generation="main", model=model)


def test_a_task_is_there_until_its_outcome_is(tmp_path: Path) -> None:
    models = ModelsFolder(tmp_path / "models")
    with models.held():
        assert (models.task(), models.last()) == (None, None)
        models.begin(task())
        assert ModelsFolder(tmp_path / "models").task() == task(), "another process finds it"
        models.finish(outcome())
        assert (models.task(), models.last()) == (None, outcome())
        assert {path.name for path in models.folder.iterdir()} == {"lock", "last.json"}
        assert models.attempts() == []


@pytest.mark.parametrize("written", [0, 1, 2])
def test_killed_while_the_outcome_is_recorded_it_is_recorded_by_the_next_run(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many files; at the last the task is still there, whose end is told twice and counts once."""
    models = ModelsFolder(tmp_path)
    models.begin(task())
    left = [*range(written)]

    def replace(path: Path, write: Callable[[Path], object]) -> None:
        left.pop()
        replace_whole(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(models_folder, "replace_whole", replace)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        try:
            models.finish(outcome(), task())
        except IndexError:
            assert written < 2
    assert models.task() == task()
    models.finish(outcome(), task())
    assert (models.task(), models.last()) == (None, outcome())
    assert [attempt.task for attempt in models.attempts()] == [task()]
    assert {path.name for path in tmp_path.iterdir()} == {"attempts.json", "last.json"}


def test_a_disk_that_is_full_leaves_a_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModelsFolder(tmp_path)
    models.begin(task())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(Unwritable, match=r"last\.json can't be written .*No space left on device.*make room"):
            models.finish(outcome())
        with pytest.raises(Unwritable, match=r"judgement\.json can't be written"):
            keep(tmp_path, judgement())
    assert models.task() == task()
    assert [path.name for path in tmp_path.iterdir()] == ["task.json"]


def test_what_another_version_wrote_is_no_task(tmp_path: Path) -> None:
    models = ModelsFolder(tmp_path)
    (tmp_path / "task.json").write_text('{"name": "cut o')
    assert models.task() is None


def test_only_one_holds_the_folder(tmp_path: Path) -> None:
    with ModelsFolder(tmp_path).held():
        at_work = ModelsFolder(tmp_path).held()
        with pytest.raises(AtWork, match="another `afterglow retrain` is at work"):
            at_work.__enter__()
    with ModelsFolder(tmp_path).held():
        pass


def test_models_that_no_generation_and_no_task_needs_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    models = ModelsFolder(tmp_path)
    served, old, refused, under_way = (f"2026010{n}-000000" for n in range(1, 5))
    for name in (served, old, refused, f"{under_way}.partial", f"{old}.partial", "somebody-s-own"):
        (tmp_path / name).mkdir()
    models.finish(outcome(str(models.path(refused))), task(refused))
    models.begin(task(under_way))
    models.tidy(["", f"/elsewhere/{old}", str(models.path(served))])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        served, refused, f"{under_way}.partial", "somebody-s-own",
    }  # fmt: skip


def test_what_is_given_up_leaves_no_training_but_its_model_until_it_is_known_that_nobody_needs_it(
    tmp_path: Path,
) -> None:
    models = ModelsFolder(tmp_path)
    made = task().name
    for name in (made, f"{made}.partial"):
        (tmp_path / name).mkdir()
    models.begin(task())
    models.abandon(task())
    assert models.task() is None
    assert [path.name for path in tmp_path.iterdir()] == [made]
    models.tidy([])
    assert [*tmp_path.iterdir()] == []


def test_what_somebody_put_there_is_not_ours(tmp_path: Path) -> None:
    models = ModelsFolder(tmp_path)
    assert models.holds(str(tmp_path / "20260101-000000"))
    for elsewhere in ("", str(tmp_path / "ours"), "/elsewhere/20260101-000000"):
        assert not models.holds(elsewhere)


def generation(name: str, source: str, *, replayed: bool = True, complete: bool = True) -> Generation:
    built = Built(1, {}) if complete and replayed else None
    made = int(name.removeprefix("g")) if name != "main" else 0
    return Generation(name, Model("model", name, 3, source), "secret", {}, made, replayed=replayed, built=built)


GENERATIONS = [
    generation("main", "", replayed=False),
    generation("g2", "/models/a"),
    generation("g3", "/models/b"),
    generation("g4", "/elsewhere/c"),
    generation("g5", "/models/d", complete=False),
    generation("g6", "/models/e"),
    generation("g7", "/models/f"),
]


@pytest.mark.parametrize(
    ("served", "keep_", "dropped"),
    [
        ("g7", 3, ["g2", "g5"]),
        ("g7", 1, ["g2", "g3", "g5", "g6"]),
        ("g7", 9, ["g5"]),
        ("g2", 2, ["g3", "g5", "g6"]),
        ("main", 2, ["g2", "g3", "g5"]),
        (None, 1, ["g2", "g3", "g5", "g6"]),
    ],
)
def test_the_newest_generations_of_trained_models_stay_and_nobody_else_s_is_touched(
    served: str | None, keep_: int, dropped: list[str]
) -> None:
    assert superfluous(GENERATIONS, served, lambda source: source.startswith("/models/"), keep_) == dropped


def judgement(*measures: Measure) -> Judgement:
    return Judgement(
        identity="new",
        against="old",
        topics=TOPICS,
        made_at=time.time_ns() // 1_000_000,
        events=100,
        cut=5,
        tasks=40,
        measures=[*measures],
    )


def measure(before: float, difference: float, spread: float) -> Measure:
    interval = Interval(difference, difference - spread, difference + spread)
    return Measure("query", "mrr", True, before, before + difference, interval)


def test_a_judgement_counts_for_these_two_models_and_these_topics_and_for_a_day(tmp_path: Path) -> None:
    assert kept(tmp_path, ("old", "new"), TOPICS) is None
    found = judgement(measure(0.5, 0.1, 0.05))
    keep(tmp_path, found)
    assert kept(tmp_path, ("old", "new"), TOPICS) == found
    assert kept(tmp_path, ("older", "new"), TOPICS) is None
    assert kept(tmp_path, ("old", "newer"), TOPICS) is None
    assert kept(tmp_path, ("old", "new"), {**TOPICS, "searches": "made anew"}) is None
    keep(tmp_path, msgspec.structs.replace(found, made_at=found.made_at - GOOD_FOR_MS - 1))
    assert kept(tmp_path, ("old", "new"), TOPICS) is None
    assert kept(tmp_path, ("old", "new"), TOPICS, within_ms=float("inf")) is not None
    assert json.loads((tmp_path / "judgement.json").read_text())["measures"][0]["metric"] == "mrr"


def test_what_is_worse_is_so_beyond_doubt_and_gains_are_relative() -> None:
    found = judgement(measure(0.5, -0.1, 0.05), measure(0.5, -0.1, 0.2), measure(0.25, 0.1, 0.05))
    assert found.worse == [found.measures[0]]
    assert found.gain == pytest.approx((-0.2 - 0.2 + 0.4) / 3)
    assert judgement().gain == 0.0
    assert in_words(found.measures[0]) == (
        "Query → clicked product, by texts alone, MRR@20: 0.400 instead of 0.500 (-0.100, 95% -0.150 to -0.050)"
    )
