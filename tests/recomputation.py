"""What `streams.verification` recomputes of a list of events, in the terms of tests of the fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.profiles import FoldEvent, FoldRules
from streams.verification import recomputation
from streams.verification.recomputation import Contribution, Event


@dataclass
class Recomputed:
    newest_ts: int
    events: int
    long: NDArray[np.float64] | None
    short: NDArray[np.float64] | None
    weight_long: float  # at newest_ts
    weight_short: float
    history: dict[str, float]  # weight at newest_ts
    counts: dict[str, int]
    evicted: float
    orders: int
    repeats: int
    later_lines: int
    noise: dict[str, int]


def recompute(
    events: list[FoldEvent], rules: FoldRules, vectors: dict[str, NDArray[np.float32]], dimension: int
) -> Recomputed:
    """`vectors` are those of the keys, all known. `events` in offset order, each offset once."""
    found = recomputation.recompute([judged(event) for event in events], rules)

    def added_up(coefficients: dict[str, float]) -> NDArray[np.float64] | None:
        if not found.events:
            return None
        total = np.zeros(dimension)
        for key, coefficient in coefficients.items():
            total += coefficient * vectors[key].astype(np.float64)
        return total

    return Recomputed(
        newest_ts=found.newest_ts,
        events=found.events,
        long=added_up(found.long),
        short=added_up(found.short),
        weight_long=found.weight_long,
        weight_short=found.weight_short,
        history={key: found.weight_of(key, rules.half_life_long_ms) for key in found.history},
        counts={key: len({line.order for line in lines}) for key, lines in found.history.items()},
        evicted=found.evicted,
        orders=found.orders,
        repeats=found.repeats,
        later_lines=found.later_lines,
        noise=found.noise,
    )


def judged(event: FoldEvent) -> Event:
    """The event as the judge has it; each key's vector is its own."""
    contributions = tuple(Contribution(key, weight, key) for key, weight, _ in event.contributions)
    return Event(event.offset, event.ts, event.order, event.event_id, contributions, event.noise)
