"""A ledger recomputed the obvious way, from the whole list of events: the judge of `streams.profiles.fold`.

Shares no code with it: plain sums in linear space over every event, relative to the newest time, and a dictionary
for the history.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.profiles import FoldEvent, FoldRules


@dataclass
class Recomputed:
    newest_ts: int = 0
    events: int = 0
    long: NDArray[np.float64] | None = None
    short: NDArray[np.float64] | None = None
    weight_long: float = 0.0  # at newest_ts
    weight_short: float = 0.0
    history: dict[str, float] = field(default_factory=dict)  # weight at newest_ts
    evicted: float = 0.0
    orders: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    later_lines: int = 0


def recompute(
    events: list[FoldEvent], rules: FoldRules, vectors: dict[str, NDArray[np.float32]], dimension: int
) -> Recomputed:
    """`vectors` are those of the keys, all known. `events` in offset order, each offset once."""
    result = Recomputed()
    counted, recent = [], []
    for event in events:
        if event.event_id and event.event_id in recent:
            continue
        if event.event_id:
            recent = [*recent, event.event_id][-rules.event_id_memory :]
        counted.append(event)
    if not counted:
        return result
    result.events = len(counted)
    now = result.newest_ts = max(event.ts for event in counted)
    result.long, result.short = np.zeros(dimension), np.zeros(dimension)
    order_now, lines = None, {}
    for event in counted:
        if event.order != order_now:
            order_now = event.order
            result.orders += 1
        for key, weight, _ in event.contributions:
            long = weight * 2.0 ** (-(now - event.ts) / rules.half_life_long_ms)
            short = weight * 2.0 ** (-(now - event.ts) / rules.half_life_short_ms)
            result.long += long * vectors[key].astype(np.float64)
            result.short += short * vectors[key].astype(np.float64)
            result.weight_long += long
            result.weight_short += short
            seen_in = lines.setdefault(key, set())
            if result.orders not in seen_in:
                result.repeats += bool(seen_in)
                result.later_lines += result.orders > 1
                result.counts[key] = result.counts.get(key, 0) + 1
                seen_in.add(result.orders)
            result.history[key] = result.history.get(key, 0.0) + long
        while len(result.history) > rules.history:
            weakest = min(result.history, key=lambda key: (result.history[key], key))
            result.evicted += result.history.pop(weakest)
            del lines[weakest], result.counts[weakest]
    return result
