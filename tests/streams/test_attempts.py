"""What was trained already and came to nothing: until when it is left alone."""

from __future__ import annotations

import msgspec
import pytest

from streams.rollout.attempts import MOST_REMEMBERED, repeated, with_attempt
from streams.rollout.drift import Drift
from streams.rollout.task import Outcome, Task
from streams.training.topics import Extent, Stretch


def extent(searches: int, purchases: int = 0, searches_id: str = "s1") -> Extent:
    return Extent(
        Stretch("searches", searches_id, [0, 0], [searches, 0]),
        Stretch("purchases", "p1", [0, 0], [0, purchases]),
        Stretch("products", "c1", [0], [4]),
    )


TASK = Task(
    name="20260101-000000",
    began_at=1,
    generation="main",
    parent="parent",
    why=["asked for"],
    drift=Drift(learned_until=None, events=12, unseen_words=None, bad_matches=None, recall=[]),
    extent=extent(600, 400),
    events=200_000,
    cut=5,
    validation_from=4,
    half_life_ms=1000,
    options={"seed": 1, "learning_rate": 1e-3},
)
REFUSED = Outcome(outcome="refused", at=9, why="the new model is worse", generation="main")
TRIED = with_attempt([], TASK, REFUSED)


def test_the_same_is_not_trained_again_until_enough_is_new() -> None:
    for searches, purchases, again in ((600, 400, True), (699, 400, True), (650, 449, True), (700, 400, False)):
        task = msgspec.structs.replace(TASK, name="20260102-000000", extent=extent(searches, purchases))
        assert (repeated(TRIED, task, "", 0.1) is not None) is again, (searches, purchases)
    assert repeated([], TASK, "", 0.1) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"parent": "another"},
        {"options": {"seed": 2, "learning_rate": 1e-3}},
        {"events": 100_000},
        {"half_life_ms": 2000},
        {"extent": extent(600, 400, searches_id="made anew")},
    ],
)
def test_another_parent_setting_or_topic_is_worth_another_training(changes: dict[str, object]) -> None:
    assert repeated(TRIED, TASK, "", 0.1) is not None
    assert repeated(TRIED, msgspec.structs.replace(TASK, **changes), "", 0.1) is None


def test_from_the_model_that_it_made_it_is_the_same_again_while_readers_see_that() -> None:
    child = msgspec.structs.replace(TASK, name="20260102-000000", parent="child")
    made = with_attempt([], TASK, msgspec.structs.replace(REFUSED, outcome="rolled out"))
    assert repeated(made, child, "/models/20260101-000000", 0.1) == made[0]
    assert repeated(made, child, "/models/ours", 0.1) is None
    assert repeated(TRIED, child, "/models/20260101-000000", 0.1) is None, "somebody insisted on what was refused"
    grown = msgspec.structs.replace(child, extent=extent(700, 400))
    assert repeated(made, grown, "/models/20260101-000000", 0.1) is None


def test_few_are_remembered_and_each_once() -> None:
    attempts = TRIED
    for _ in range(2):
        attempts = with_attempt(attempts, TASK, REFUSED)
    assert attempts == TRIED
    for n in range(20):
        attempts = with_attempt(attempts, msgspec.structs.replace(TASK, name=f"202601{n:02d}-000000"), REFUSED)
    assert len(attempts) == MOST_REMEMBERED
    assert attempts[-1].task.name == "20260119-000000"
    assert (attempts[-1].outcome, attempts[-1].at, attempts[-1].why) == ("refused", 9, "the new model is worse")
