"""The fold: a user's events become that user's ledger. Pure: numpy in, numpy out, no I/O, no clock, no Faust.

The two folds of a ledger are exponentially forgetting sums over its events i, each with a unit vector v_i, a weight
a_i by kind, and an event time t_i:

    S(t) = Σ a_i · 2^(-(t - t_i)/h) · v_i        W(t) = Σ a_i · 2^(-(t - t_i)/h)

Guarantee: `fold` is a function of the ledger's earlier state and the events alone, and folding a list of events gives
the same ledger as folding any split of it in order: keys, counts and `applied` exactly, sums within 1e-5 of their
norm (added up in float64, stored in float32). Events at or below `applied` change nothing, so redelivery is harmless.
Late events are exact: their weight has decayed by the time they arrive, and the newest time never moves back.

Not guaranteed: that two events of one topic may be swapped (their order decides evictions and order counts), nor
anything across the two ledgers of a user, which never meet here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.ledgers import (
    NO_DEBT,
    NOTHING,
    ORDER_DECAY,
    Applied,
    Debt,
    Ledger,
    ProfileState,
    QueryVector,
    add_log_weights,
    is_query,
)


@dataclass(frozen=True, slots=True)
class FoldRules:
    """What shapes a ledger. Belongs to a generation and never changes within it."""

    half_life_long_ms: float
    half_life_short_ms: float
    history: int  # M: keys kept in the history
    event_id_memory: int  # newest event ids remembered
    pending: int  # products waited for, at most
    allowance: float | None = None  # weight that `short` takes in full (see `_hurried`); None: nothing is damped


RATE: Final = "rate"
REPETITION: Final = "repetition"
"""Why the fold damps events, beside the reasons that lie in their texts."""

_NOTED: Final = -math.log2(0.9)
"""Damped by less than a tenth, an event isn't counted: where W just reaches the allowance, float noise would decide."""


class Rules(NamedTuple):
    """The fold rules of the two topics."""

    searches: FoldRules
    purchases: FoldRules


class Contribution(NamedTuple):
    """One key of one event. `vector` is a unit vector, float32 [d]; None where the product isn't known yet."""

    key: str
    weight: float
    vector: NDArray[np.float32] | None


class FoldEvent(NamedTuple):
    """An event as the fold sees it: where it stood in its partition, when it happened, and what it contributes.

    `order` and `event_id` are 64-bit hashes (`stable_hash`); an `event_id` of 0 is none, and such an event is never
    taken for a duplicate. `noise` is why a contribution weighs less, or is left out; empty where none does.
    """

    offset: int
    ts: int
    order: int
    event_id: int
    contributions: tuple[Contribution, ...]
    noise: str = ""


@lru_cache(maxsize=16_384)  # an order's lines come one after the other
def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same in every process and never 0."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def fold(ledger: Ledger, topic_id: str, partition: int, events: Sequence[FoldEvent], rules: FoldRules) -> int:
    """Folds `events` (in offset order, of one partition) into `ledger`, in place. Returns how many were new.

    An event at or below the ledger's `applied` offset of the same topic is passed over, and so is a second copy of
    one. A topic of another id is a topic made anew: the ledger goes on with its offsets. An event whose id is among
    the newest remembered counts as applied and changes nothing else.
    """
    reached = ledger.applied.offset if ledger.applied.topic_id == topic_id else -1
    fresh = []
    for event in events:
        if event.offset > reached:
            reached = event.offset
            fresh.append(event)
    if not fresh:
        return 0
    ledger.applied = Applied(topic_id, partition, reached)
    counted = _without_duplicates(ledger, fresh, rules.event_id_memory)
    if counted:
        newest = ledger.newest_ts if ledger.events else counted[0].ts
        gains = _add_to_weights(ledger, counted, rules)
        _add_to_sums(ledger, gains, ledger.newest_ts - newest, rules)
        ledger.events += len(counted)
    return len(fresh)


def settle(ledger: Ledger, vectors: Mapping[str, NDArray[np.float32]], rules: FoldRules) -> bool:
    """Pays the debts of products that are known now: S gains 2^(L - t/h) · v. Returns whether there were any.

    The sums are then what they would be had the products been known from the start.
    """
    known = [product_id for product_id in ledger.pending if product_id in vectors]
    for product_id in known:
        debt = ledger.pending.pop(product_id)
        vector = vectors[product_id].astype(np.float64)
        long = _weight_at(debt.long, ledger.newest_ts, rules.half_life_long_ms)
        short = _weight_at(debt.short, ledger.newest_ts, rules.half_life_short_ms)
        ledger.long = long * vector if ledger.long is None else ledger.long + long * vector
        ledger.short = short * vector if ledger.short is None else ledger.short + short * vector
    return bool(known)


def settle_state(state: ProfileState, vectors: Mapping[str, NDArray[np.float32]], rules: Rules) -> bool:
    """`settle` for both ledgers of a user."""
    searches = settle(state.searches, vectors, rules.searches)
    return settle(state.purchases, vectors, rules.purchases) or searches


def _without_duplicates(ledger: Ledger, events: Sequence[FoldEvent], memory: int) -> list[FoldEvent]:
    counted = []
    recent = ledger.event_ids
    for event in events:
        if event.event_id:
            if event.event_id in recent:
                continue
            recent.append(event.event_id)
            if len(recent) > memory:
                del recent[0]
        counted.append(event)
    return counted


class _Gain(NamedTuple):
    """What a contribution adds: its log-weights, damped, and its vector."""

    long: float
    short: float
    vector: NDArray[np.float32]


def _add_to_weights(ledger: Ledger, events: Sequence[FoldEvent], rules: FoldRules) -> list[_Gain]:
    """Event by event: W gains every weight, known product or not, and the history's keys theirs; after each event the
    weakest beyond M leave, and `evicted` gains theirs. Returns what S has yet to gain.
    """
    ledger.reserve(sum(len(event.contributions) for event in events))
    keys, rows = ledger.keys, ledger.rows
    row_of = {key: row for row, key in enumerate(keys)}
    weights = rows["weight"]
    gains: list[_Gain] = []
    for n, event in enumerate(events):
        if event.order != ledger.open_order:
            ledger.open_order = event.order
            ledger.orders += 1
        order, seconds = ledger.orders, event.ts // 1000
        hurried = _hurried(ledger, event.ts, rules)
        repeated = 0.0
        for key, weight, vector in event.contributions:
            row = row_of.get(key)
            magnitude = math.log2(weight) - hurried
            if row is not None and rules.allowance is not None and is_query(key):
                again = _repeated(rows[row], order, seconds, rules)
                magnitude -= again
                repeated = max(repeated, again)
            long = magnitude + event.ts / rules.half_life_long_ms
            short = magnitude + event.ts / rules.half_life_short_ms
            ledger.weight_long = add_log_weights(ledger.weight_long, long)
            ledger.weight_short = add_log_weights(ledger.weight_short, short)
            if vector is None:
                _owe(ledger, key[1:], Debt(long, short), rules.pending)
            else:
                gains.append(_Gain(long, short, vector))
            if row is None:
                row_of[key] = len(keys)
                rows[len(keys)] = (long, seconds, seconds, 1, 1.0, order, order)
                keys.append(key)
                ledger.distinct += 1
                ledger.later_lines += order > 1
                if is_query(key) and vector is not None:
                    ledger.query_vectors[key] = QueryVector.of(vector)
                continue
            weights[row] = add_log_weights(float(weights[row]), long)
            _, first, last, count, recency, first_order, last_order = rows[row].item()
            if last_order != order:
                ledger.repeats += 1
                ledger.later_lines += 1
                count += 1
                recency = recency * ORDER_DECAY ** (order - last_order) + 1.0
            rows[row] = (
                weights[row],
                min(first, seconds),
                max(last, seconds),
                count,
                recency,
                first_order,
                order,
            )
        while len(keys) > rules.history:
            _evict_weakest(ledger, row_of)
        ledger.newest_ts = max(ledger.newest_ts, event.ts) if n or ledger.events else event.ts
        if reason := event.noise or (hurried > _NOTED and RATE) or (repeated > _NOTED and REPETITION):
            ledger.noise[reason] = ledger.noise.get(reason, 0) + 1
    return gains


def _hurried(ledger: Ledger, ts: int, rules: FoldRules) -> float:
    """How many times the weight of an event is halved since its user is faster than people are.

    What the short fold holds at `newest_ts`, decayed to the event's time on either side, is how much came within about
    a half-life. Beyond the allowance a, an event weighs (a / W)² of its weight, so that W grows with the third root of
    the rate; up to it, all of it.
    """
    if rules.allowance is None or ledger.weight_short == NOTHING:
        return 0.0
    around = ledger.newest_ts + abs(ts - ledger.newest_ts)
    return max(0.0, 2.0 * (ledger.weight_short - around / rules.half_life_short_ms - math.log2(rules.allowance)))


def _repeated(row: np.void, order: int, seconds: int, rules: FoldRules) -> float:
    """How many times the weight of a query is halved since its user has just made it.

    It weighs 1 / (1 + r), where r counts its earlier times, each worth less by `ORDER_DECAY` at every search since, and
    less by the short half-life: 5/9 the second time in a row, and never below 1/5.
    """
    since = 2.0 ** (-abs(seconds - int(row["last"])) * 1000.0 / rules.half_life_short_ms)
    return math.log2(1.0 + float(row["recency"]) * ORDER_DECAY ** (order - int(row["last_order"])) * since)


def _add_to_sums(ledger: Ledger, gains: Sequence[_Gain], age: int, rules: FoldRules) -> None:
    """S moves on by `age` (ms), to the newest time, and gains every known vector."""
    if ledger.long is not None:
        ledger.long *= 2.0 ** (-age / rules.half_life_long_ms)
    if ledger.short is not None:
        ledger.short *= 2.0 ** (-age / rules.half_life_short_ms)
    if len(gains) == 1:
        ((long_weight, short_weight, vector),) = gains
        wide = vector.astype(np.float64)
        long = wide * _weight_at(long_weight, ledger.newest_ts, rules.half_life_long_ms)
        short = wide * _weight_at(short_weight, ledger.newest_ts, rules.half_life_short_ms)
    elif gains:
        factors = [
            (
                _weight_at(gain.long, ledger.newest_ts, rules.half_life_long_ms),
                _weight_at(gain.short, ledger.newest_ts, rules.half_life_short_ms),
            )
            for gain in gains
        ]
        long, short = np.array(factors).T @ np.array([gain.vector for gain in gains], np.float64)
    if gains:
        ledger.long = long if ledger.long is None else ledger.long + long
        ledger.short = short if ledger.short is None else ledger.short + short


def _owe(ledger: Ledger, product_id: str, debt: Debt, at_most: int) -> None:
    owed = ledger.pending.get(product_id, NO_DEBT)
    ledger.pending[product_id] = Debt(add_log_weights(owed.long, debt.long), add_log_weights(owed.short, debt.short))
    if len(ledger.pending) > at_most:
        weakest = min(ledger.pending, key=lambda waiting: (ledger.pending[waiting].long, waiting))
        gone = ledger.pending.pop(weakest)
        ledger.lost = Debt(add_log_weights(ledger.lost.long, gone.long), add_log_weights(ledger.lost.short, gone.short))
        ledger.n_lost += 1


def _evict_weakest(ledger: Ledger, row_of: dict[str, int]) -> None:
    keys, rows = ledger.keys, ledger.rows
    weights = rows["weight"][: len(keys)]
    row = int(weights.argmin())
    ties = np.flatnonzero(weights == weights[row])
    if len(ties) > 1:
        row = min(ties.tolist(), key=keys.__getitem__)
    ledger.evicted = add_log_weights(ledger.evicted, float(weights[row]))
    ledger.query_vectors.pop(keys[row], None)
    del row_of[keys[row]]
    moved = keys.pop()
    if row < len(keys):
        keys[row] = moved
        rows[row] = rows[len(keys)]
        row_of[moved] = row


def _weight_at(log_weight: float, ts: float, half_life_ms: float) -> float:
    """2^(L - t/h): the decayed weight at `ts`; 0.0 where it is too small for a float."""
    return 0.0 if log_weight == NOTHING else float(2.0 ** max(log_weight - ts / half_life_ms, -1100.0))
