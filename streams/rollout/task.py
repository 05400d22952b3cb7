"""What a retraining is to do, and what it came to: all that is recorded of one."""

from __future__ import annotations

import dataclasses
import time

import msgspec

from encoders.training.pairs import Examples
from streams.evaluation.files import Shop
from streams.rollout.drift import Drift
from streams.rollout.judgement import Judgement, moments
from streams.training.mining import Splits, mine
from streams.training.topics import Extent


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A retraining that was decided on. The same task does the same again: a killed one goes on by it."""

    name: str  # of the model's folder
    began_at: int  # ms
    generation: str  # that readers saw when it began
    parent: str  # identity of its model
    why: list[str]
    drift: Drift
    extent: Extent  # of the topics: what is learned from, and judged by
    events: int  # the setting: searches and purchases at most
    cut: int  # event time, ms: what happened from then on is not learned from, and judged by
    validation_from: int  # event time, ms: what happened from then until the cut tells when to stop
    half_life_ms: int  # by which what was bought weighs
    options: dict[str, str | int | float | bool]  # of the training

    def examples(self, shop: Shop) -> Examples:
        """What is learned and measured; `shop` is the history of the extent."""
        splits = Splits(self.validation_from, self.cut, moments(shop)[-1] + 1)
        seed = int(self.options["seed"])
        examples = mine(shop.products, shop.purchases, shop.searches, splits, half_life_ms=self.half_life_ms, seed=seed)
        return dataclasses.replace(examples, facts={**examples.facts, "topics": self.extent.topics})


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a retraining came to."""

    outcome: str  # "rolled out", "kept", "refused", "too little" or "failed"
    at: int  # ms
    why: str
    generation: str  # that readers see now
    model: str | None = None  # the folder of the new one
    drift: Drift | None = None
    judgement: Judgement | None = None
    dropped: list[str] = []  # generations
    seconds: float = 0.0


def outcome_of(
    outcome: str,
    why: str,
    generation: str,
    *,
    model: str | None = None,
    drift: Drift | None = None,
    judgement: Judgement | None = None,
) -> Outcome:
    """At this moment."""
    return Outcome(
        outcome=outcome,
        at=time.time_ns() // 1_000_000,
        why=why,
        generation=generation,
        model=model,
        drift=drift,
        judgement=judgement,
    )
