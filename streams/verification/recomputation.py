"""A ledger recomputed the obvious way, from the whole list of a user's events: the judge of `streams.profiles.fold`.

Shares no code with it. Weights and sums are plain sums in linear space over every event, relative to the newest time.
Only the question which key is the weakest is answered in log space, where nothing underflows: a history that reaches
back a thousand half-lives evicts in the same order. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

ORDER_DECAY: Final = 0.8
_NOTED: Final = 0.9  # of the weight left: less, and the damping is counted
_COUNTED: Final = 128  # of a query's orders: those before add less than 1e-12


class Rules(Protocol):
    """What shapes a ledger: `streams.profiles.FoldRules`, or anything that says the same."""

    @property
    def half_life_long_ms(self) -> float: ...
    @property
    def half_life_short_ms(self) -> float: ...
    @property
    def history(self) -> int: ...
    @property
    def event_id_memory(self) -> int: ...
    @property
    def allowance(self) -> float | None: ...


class Contribution(NamedTuple):
    """One key of one event; `vector` names what its vector is of (see `Recomputed.long`)."""

    key: str
    weight: float
    vector: str


class Event(NamedTuple):
    """`order` and `event_id` only have to be equal where they are the same; an `event_id` of 0 is none."""

    offset: int
    ts: int  # ms
    order: int
    event_id: int
    contributions: tuple[Contribution, ...]
    noise: str = ""


class Line(NamedTuple):
    """One contribution to a key of the history, in the user's order of index `order` (from 1)."""

    ts: int
    weight: float
    order: int


@dataclass
class Recomputed:
    """The ledger as it has to be. Weights are those at `newest_ts`, linear."""

    newest_ts: int = 0
    events: int = 0  # duplicates left out
    weight_long: float = 0.0
    weight_short: float = 0.0
    long: dict[str, float] = field(default_factory=dict)  # S = Σ coefficient · vector, by the vector's name
    short: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[Line]] = field(default_factory=dict)  # since the key last came in
    evicted: float = 0.0
    orders: int = 0
    repeats: int = 0
    later_lines: int = 0
    distinct: int = 0
    open_order: int = 0
    event_ids: list[int] = field(default_factory=list)
    noise: dict[str, int] = field(default_factory=dict)

    def weight_of(self, key: str, half_life_ms: float) -> float:
        return sum(decayed(line.weight, self.newest_ts - line.ts, half_life_ms) for line in self.history[key])


def recompute(events: Sequence[Event], rules: Rules) -> Recomputed:
    """`events` in offset order, each offset once."""
    result = Recomputed()
    counted = []
    for event in events:
        if event.event_id:
            if event.event_id in result.event_ids:
                continue
            result.event_ids = [*result.event_ids, event.event_id][-rules.event_id_memory :]
        counted.append(event)
    if not counted:
        return result
    result.events = len(counted)
    result.newest_ts = max(event.ts for event in counted)
    _add_up(result, _remember(result, counted, rules), rules)
    return result


def decayed(weight: float, age_ms: int, half_life_ms: float) -> float:
    return float(weight * 2.0 ** (-age_ms / half_life_ms))


def _add_up(result: Recomputed, events: Sequence[Event], rules: Rules) -> None:
    for event in events:
        age = result.newest_ts - event.ts
        for _, weight, vector in event.contributions:
            long = decayed(weight, age, rules.half_life_long_ms)
            short = decayed(weight, age, rules.half_life_short_ms)
            result.weight_long += long
            result.weight_short += short
            result.long[vector] = result.long.get(vector, 0.0) + long
            result.short[vector] = result.short.get(vector, 0.0) + short


def _remember(result: Recomputed, events: Sequence[Event], rules: Rules) -> list[Event]:
    """The history, and the events by what they weigh: with a machine's damped."""
    strength: dict[str, float] = {}  # log2 of each key's weight at time 0
    latest: dict[str, int] = {}  # of each key's times, ms
    left: list[Line] = []
    weighed: list[Event] = []
    pace = _Pace(rules)
    for event in events:
        halved = pace.halved(event.ts)
        damped: list[Contribution] = []
        again = False
        if event.order != result.open_order:
            result.open_order = event.order
            result.orders += 1
        for key, full, vector in event.contributions:
            lines = result.history.get(key)
            times = _times(lines, latest[key], event.ts, result.orders, rules) if lines and key[0] == "q" else 0.0
            again = again or 1.0 / (1.0 + times) < _NOTED
            weight = full * 2.0**-halved / (1.0 + times)
            damped.append(Contribution(key, weight, vector))
            pace.add(weight, event.ts)
            if lines is None:
                lines = result.history[key] = []
                result.distinct += 1
            if not lines or lines[-1].order != result.orders:
                result.repeats += bool(lines)
                result.later_lines += result.orders > 1
            latest[key] = max(latest.get(key, event.ts), event.ts)
            lines.append(Line(event.ts, weight, result.orders))
            gained = math.log2(weight) + event.ts / rules.half_life_long_ms
            strength[key] = _added(strength[key], gained) if key in strength else gained
        while len(strength) > rules.history:
            least = min(strength.values())
            weakest = min(key for key, value in strength.items() if value == least)
            left += result.history.pop(weakest)
            del strength[weakest], latest[weakest]
        pace.newest_ts = max(pace.newest_ts, event.ts)
        weighed.append(event._replace(contributions=tuple(damped)))
        reason = event.noise or (2.0**-halved < _NOTED and "rate") or (again and "repetition")
        if reason:
            result.noise[reason] = result.noise.get(reason, 0) + 1
    result.evicted = sum(decayed(line.weight, result.newest_ts - line.ts, rules.half_life_long_ms) for line in left)
    return weighed


class _Pace:
    """How much has come lately: beyond the allowance, what comes weighs by the square of what the excess leaves."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._held = -math.inf  # log2 of the short fold's weight at time 0
        self.newest_ts = -(2**62)

    def add(self, weight: float, ts: int) -> None:
        self._held = _added(self._held, math.log2(weight) + ts / self._rules.half_life_short_ms)

    def halved(self, ts: int) -> float:
        allowance = self._rules.allowance
        if allowance is None or self._held == -math.inf:
            return 0.0
        late = self.newest_ts - ts
        at = self.newest_ts + abs(late)
        return 2.0 * max(0.0, self._held - at / self._rules.half_life_short_ms - math.log2(allowance))


def _times(lines: Sequence[Line], latest: int, ts: int, order: int, rules: Rules) -> float:
    """How often a query has been made just now: once for each order, fading by the order and by the time since."""
    if rules.allowance is None:
        return 0.0
    orders = {line.order for line in lines[-_COUNTED:]}
    fading = decayed(1.0, 1000 * abs(ts // 1000 - latest // 1000), rules.half_life_short_ms)
    return fading * math.fsum(ORDER_DECAY ** (order - earlier) for earlier in orders)


def _added(a: float, b: float) -> float:
    """log2(2^a + 2^b), of which one may be of nothing."""
    if -math.inf in (a, b):
        return max(a, b)
    return max(a, b) + math.log1p(2.0 ** -abs(a - b)) / math.log(2.0)
