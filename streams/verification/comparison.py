"""Where a stored profile differs from what it has to be, in words. Pure.

A ledger is compared with its recomputation, and what readers see with what the stored ledgers say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import numpy as np

from sinks.derivation import DerivationRules, Taste, Vector
from sinks.ledgers import FAINTEST, NOTHING, Ledger, ProfileState
from sinks.stored import StoredProfile
from streams.profile_writes import UNDERIVED
from streams.verification.recomputation import ORDER_DECAY, Recomputed, Rules

SUM_TOLERANCE: Final = 1e-5
"""Of a sum's norm and of its cosine: sums are stored in float32, and vectors are equal up to float noise."""

WEIGHT_TOLERANCE: Final = 1e-6
"""Of a weight: a short fold's log-weight is about 5e5, where float64 has steps of 6e-11, at every addition."""

DERIVED_COSINE: Final = 0.999
"""Of what readers see, which is stored in float16."""

_FADED: Final = 1e-30  # what float32 can't hold is absent


class Unexplained(NamedTuple):
    """A sum that differs, although its weights don't: by `residual`, where each product's part has a coefficient.

    A unit vector that was replaced by another moves the sum by at most twice its coefficient.
    """

    text: str
    residual: float
    coefficients: Mapping[str, float]  # by product id, of contributions with the catalogue's vector


@dataclass
class Comparison:
    """`events` is by how many events the ledger is off."""

    differences: list[str] = field(default_factory=list)
    unexplained: list[Unexplained] = field(default_factory=list)
    events: int = 0

    def expect(self, name: str, found: object, expected: object) -> None:
        if found != expected:
            self.differences.append(f"{name} is {found}, not {expected}")

    def expect_near(self, name: str, found: float, expected: float) -> None:
        if not abs(found - expected) <= WEIGHT_TOLERANCE * max(abs(found), abs(expected), _FADED):
            self.differences.append(f"{name} is {found:.9g}, not {expected:.9g}")


class RefreshRule(Protocol):
    @property
    def move(self) -> float: ...


def compare_ledger(
    stored: Ledger, expected: Recomputed, vectors: Mapping[str, Vector], rules: Rules, name: str
) -> Comparison:
    """`vectors` by name: those of `expected.long` that are known ("q" + query, "t" + title, "p" + product id)."""
    told = Comparison(events=abs(stored.events - expected.events))
    told.expect(f"{name}: events", stored.events, expected.events)
    told.expect(f"{name}: newest_ts", stored.newest_ts, expected.newest_ts)
    for field_ in ("orders", "repeats", "later_lines", "distinct", "open_order", "event_ids", "noise"):
        told.expect(f"{name}: {field_}", getattr(stored, field_), getattr(expected, field_))
    at_long = expected.newest_ts / rules.half_life_long_ms
    at_short = expected.newest_ts / rules.half_life_short_ms
    told.differences += compare_with_itself(stored, rules, name)
    told.expect_near(f"{name}: W long", _power(stored.weight_long, at_long), expected.weight_long)
    told.expect_near(f"{name}: W short", _power(stored.weight_short, at_short), expected.weight_short)
    _compare_history(told, stored, expected, rules, name)
    _compare_pending(told, stored, expected, rules, name)
    for fold, half_life in (("long", at_long), ("short", at_short)):
        lost = _power(stored.lost.long if fold == "long" else stored.lost.short, half_life)
        _compare_sum(told, stored, expected, vectors, name, fold, lost)
    return told


def compare_continued(stored: Ledger, expected: Recomputed, rules: Rules, name: str) -> Comparison:
    """A ledger that went on with a topic made anew: it holds no less than that topic's events."""
    told = Comparison(events=max(expected.events - stored.events, 0))
    told.differences += compare_with_itself(stored, rules, name)
    for what, found, least in (
        ("events", stored.events, expected.events),
        ("newest_ts", stored.newest_ts, expected.newest_ts),
    ):
        if found < least:
            told.differences.append(f"{name}: {what} is {found}, less than {least} by the topic as it is now")
    for what, log_weight, weight, half_life in (
        ("W long", stored.weight_long, expected.weight_long, rules.half_life_long_ms),
        ("W short", stored.weight_short, expected.weight_short, rules.half_life_short_ms),
    ):
        kept = _power(log_weight, expected.newest_ts / half_life)
        if kept < weight * (1.0 - WEIGHT_TOLERANCE):
            told.differences.append(f"{name}: {what} is {kept:.9g}, less than {weight:.9g} by the topic as it is now")
    return told


def compare_with_itself(stored: Ledger, rules: Rules, name: str) -> list[str]:
    """The conservation law of a history, Σ w + evicted = W, whatever the events were."""
    told = Comparison()
    at = stored.newest_ts / rules.half_life_long_ms
    kept = sum(_power(weight, at) for weight in stored.history["weight"].tolist())
    told.expect_near(f"{name}: Σ w + evicted", kept + _power(stored.evicted, at), _power(stored.weight_long, at))
    return told.differences


def _compare_history(told: Comparison, stored: Ledger, expected: Recomputed, rules: Rules, name: str) -> None:
    missing, strange = expected.history.keys() - set(stored.keys), set(stored.keys) - expected.history.keys()
    for word, keys in (("misses", missing), ("has the strange", strange)):
        if keys:
            told.differences.append(f"{name}: history {word} {len(keys)} keys, as {min(keys)!r}")
    at = expected.newest_ts / rules.half_life_long_ms
    for key, row in zip(stored.keys, stored.history.tolist(), strict=True):
        if key not in expected.history:
            continue
        weight, first, last, count, recency, first_order, last_order = row
        lines = expected.history[key]
        orders = {line.order for line in lines}
        told.expect_near(
            f"{name}: weight of {key!r}", _power(weight, at), expected.weight_of(key, rules.half_life_long_ms)
        )
        told.expect(
            f"{name}: (first, last, count, first order, last order) of {key!r}",
            (first, last, count, first_order, last_order),
            (
                min(line.ts for line in lines) // 1000,
                max(line.ts for line in lines) // 1000,
                len(orders),
                min(orders),
                max(orders),
            ),
        )
        wanted = sum(ORDER_DECAY ** (max(orders) - order) for order in orders)
        if abs(recency - wanted) > 1e-4 * wanted:  # float32, rounded at every order
            told.differences.append(f"{name}: recency of {key!r} is {recency:.6g}, not {wanted:.6g}")
    told.expect_near(f"{name}: evicted", _power(stored.evicted, at), expected.evicted)


def _compare_pending(told: Comparison, stored: Ledger, expected: Recomputed, rules: Rules, name: str) -> None:
    for product_id, debt in stored.pending.items():
        for fold, log_weight, half_life in (
            ("long", debt.long, rules.half_life_long_ms),
            ("short", debt.short, rules.half_life_short_ms),
        ):
            owed = (expected.long if fold == "long" else expected.short).get("p" + product_id, 0.0)
            found = _power(log_weight, expected.newest_ts / half_life)
            if stored.n_lost == 0 or found > owed:  # of a product whose debts overflowed, less may be left
                told.expect_near(f"{name}: {fold} debt of pending {product_id!r}", found, owed)


def _compare_sum(
    told: Comparison,
    stored: Ledger,
    expected: Recomputed,
    vectors: Mapping[str, Vector],
    name: str,
    fold: str,
    lost: float,
) -> None:
    coefficients: dict[str, float] = expected.long if fold == "long" else expected.short
    counted = {at: weight for at, weight in coefficients.items() if at[0] != "p" or at[1:] not in stored.pending}
    unknown = [at for at in counted if at not in vectors]
    if unknown and not stored.n_lost:
        told.differences.append(f"{name}: {unknown[0][1:]!r} is unknown, and not pending")
        return
    found = stored.long if fold == "long" else stored.short
    known = [at for at in counted if at in vectors]
    wanted = (
        np.array([counted[at] for at in known]) @ np.array([vectors[at] for at in known], np.float64)
        if known
        else np.zeros(0 if found is None else len(found))
    )
    found = np.zeros(len(wanted)) if found is None else found
    norm, wanted_norm = float(np.linalg.norm(found)), float(np.linalg.norm(wanted))
    if max(norm, wanted_norm) < _FADED:
        return
    cosine = float(found @ wanted) / max(norm * wanted_norm, 1e-300)
    if cosine >= 1.0 - SUM_TOLERANCE and abs(norm - wanted_norm) <= SUM_TOLERANCE * wanted_norm:
        return
    told.unexplained.append(
        Unexplained(
            f"{name}: S {fold} has norm {norm:.7g}, not {wanted_norm:.7g}; cosine {cosine:.7f}",
            float(np.linalg.norm(found - wanted)) - lost,
            {at[1:]: weight for at, weight in counted.items() if at[0] == "p"},
        )
    )


def compare_readers_view(
    profile: StoredProfile, state: ProfileState, now: Taste, newest: Taste, refresh: RefreshRule, rules: DerivationRules
) -> list[str]:
    """What readers see against what the stored ledgers say; derived as of `now`, and as of the `newest` event."""
    told = Comparison()
    searches, purchases = state
    told.expect("n_searches", profile.n_searches, searches.events)
    told.expect("n_purchases", profile.n_purchases, purchases.events)
    told.expect("last_search_ts", profile.last_search_ts, searches.newest_ts if searches.events else None)
    told.expect("last_purchase_ts", profile.last_purchase_ts, purchases.newest_ts if purchases.events else None)
    told.expect("partition", profile.partition, max(searches.applied.partition, purchases.applied.partition))
    told.expect("pending", set(profile.pending), state.pending)
    if not is_derived(profile):
        return told.differences
    _compare_derived(told, "long", profile.vectors.get("long"), newest.long, may_be_absent=False)
    # What glows by the short half-life was there when the events came, and may have faded when it was written.
    faded = now.short is None or now.at == newest.at
    _compare_derived(told, "short", profile.vectors.get("short"), newest.short, may_be_absent=faded)
    stored = profile.vectors.get("interests")
    shares = [float(str(interest["share"])) for interest in profile.interests]
    told.expect("interests: vectors", 0 if stored is None else len(stored), len(shares))
    if len(shares) > rules.interests or sum(shares) > 1.0 + 1e-6 or min(shares, default=1.0) < 0.0:
        told.differences.append(f"interests have the shares {shares}")
    moved = _moved(profile, state)
    if profile.due is None and moved > refresh.move + 1e-9:
        told.differences.append(f"candidates: {moved:.1%} of the weight is newer than they are, and nothing is due")
    elif moved < -WEIGHT_TOLERANCE:
        told.differences.append("candidates: they are of more weight than the ledgers have, which never lose any")
    return told.differences


def is_derived(profile: StoredProfile) -> bool:
    """Whether there is anything for readers yet: a replay puts it off, and says so."""
    return profile.due != UNDERIVED


def has_these_interests(profile: StoredProfile, taste: Taste) -> bool:
    """Whether the stored interests are those that today's catalogue gives."""
    stored = profile.vectors.get("interests")
    wanted = [interest.vector for interest in taste.interests]
    if stored is None or not wanted:
        return stored is None and not wanted
    alike = np.array(wanted) @ stored.T
    return len(wanted) == len(stored) and bool((alike.max(axis=1) >= DERIVED_COSINE).all())


def _compare_derived(
    told: Comparison, name: str, found: Vector | None, wanted: Vector | None, *, may_be_absent: bool
) -> None:
    if found is None or wanted is None:
        if not (found is None and (wanted is None or may_be_absent)):
            told.differences.append(f"{name} is {'absent' if found is None else 'there'}, and should not be")
        return
    cosine = float(found @ wanted) / float(np.linalg.norm(found) * np.linalg.norm(wanted))
    if cosine < DERIVED_COSINE:
        told.differences.append(f"{name} is not what the ledgers give: cosine {cosine:.4f}")


def _moved(profile: StoredProfile, state: ProfileState) -> float:
    """The part of the weight that is newer than the candidates, of the fold where it is larger.

    Negative where a fold has less weight than they were derived from, however little newer the other is.
    """
    if profile.made_from is None:
        return 1.0
    then_long, then_short = profile.made_from
    newer = (
        _newer(then_long, [ledger.weight_long for ledger in state]),
        _newer(then_short, [ledger.weight_short for ledger in state]),
    )
    return min(newer) if min(newer) < -WEIGHT_TOLERANCE else max(newer)


def _newer(then: float, now: Sequence[float]) -> float:
    top = max(now)
    if top == NOTHING:
        return 0.0 if then <= FAINTEST else -1.0
    return 1.0 - _power(then, top) / sum(_power(weight, top) for weight in now)


def _power(log_weight: float, at: float) -> float:
    return 0.0 if log_weight == NOTHING else float(2.0 ** min(max(log_weight - at, -1100.0), 1000.0))
