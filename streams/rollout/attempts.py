"""Trainings that were done: none is done again of much the same, whatever came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from streams.rollout.task import Outcome, Task
from streams.training.topics import Extent

MOST_REMEMBERED: Final = 10


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A training, and what it came to: it was refused, it failed, or readers were led to its model."""

    task: Task
    outcome: str  # as in Outcome
    at: int  # ms
    why: str


def with_attempt(attempts: Sequence[Attempt], task: Task, outcome: Outcome) -> list[Attempt]:
    """The newest ones, this one last; the same task counts once."""
    attempt = Attempt(task=task, outcome=outcome.outcome, at=outcome.at, why=outcome.why)
    return [*(one for one in attempts if one.task.name != task.name), attempt][-MOST_REMEMBERED:]


def repeated(attempts: Sequence[Attempt], task: Task, served: str, enough: float) -> Attempt | None:
    """The newest training that this one would only repeat; `served` is the source of the model in service.

    From the same model, or it made the one in service; by the same settings and options; and of what it read less than
    the share `enough` is new.
    """
    for attempt in reversed(attempts):
        before = attempt.task
        made_it = attempt.outcome == "rolled out" and before.name == Path(served).name
        same = (before.options, before.events, before.half_life_ms) == (task.options, task.events, task.half_life_ms)
        new = came_since(before.extent, task.extent)
        if not (same and (made_it or before.parent == task.parent)) or new is None:
            continue
        if new < enough * before.extent.events:
            return attempt
    return None


def came_since(before: Extent, now: Extent) -> int | None:
    """Searches and purchases that came after an extent ended; None where a topic is another one since."""
    new = 0
    for then, one in ((before.searches, now.searches), (before.purchases, now.purchases)):
        if (then.topic, then.id, len(then.end)) != (one.topic, one.id, len(one.end)):
            return None
        new += sum(end - ended for end, ended in zip(one.end, then.end, strict=True))
    return new
