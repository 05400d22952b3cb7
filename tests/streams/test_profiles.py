"""The fold: any batch boundaries and redeliveries give what a plain recomputation gives."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recomputation import recompute

from sinks.ledgers import Ledger, ProfileState, encode_state
from sinks.profiles import Held
from streams.profiles import (
    Contribution,
    FoldEvent,
    FoldRules,
    Rules,
    fold,
    settle,
    settle_state,
    stable_hash,
)

DAY, HOUR = 86_400_000.0, 3_600_000.0
RULES = FoldRules(30 * DAY, HOUR, history=4, event_id_memory=3, pending=8)
DAMPING = replace(RULES, allowance=6.0)
START = 1_700_000_000_000
KEYS = ["pA", "pB", "pC", "pD", "pE", "pF", "qred shoes", "qtent"]
DIMENSION = 8
VECTORS = {
    key: (vector / np.linalg.norm(vector)).astype(np.float32)
    for key, vector in zip(KEYS, np.random.default_rng(7).normal(size=(len(KEYS), DIMENSION)), strict=True)
}


def purchase(offset: int, key: str, ts: int, order: int = 0, event_id: int = 0, weight: float = 4.0) -> FoldEvent:
    return FoldEvent(offset, ts, order or offset + 1, event_id, (Contribution(key, weight, VECTORS[key]),))


@st.composite
def histories(draw: st.DrawFn) -> list[FoldEvent]:
    """Events of one user in offset order: gaps between offsets, late and repeated times, several keys an event."""
    events = []
    offset, ts = draw(st.integers(0, 5)), START
    for _ in range(draw(st.integers(1, 24))):
        offset += draw(st.integers(1, 3))
        ts += draw(st.integers(-20 * int(DAY), 40 * int(DAY)) | st.integers(-int(HOUR), int(HOUR)) | st.just(0))
        keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
        contributions = tuple(
            Contribution(key, draw(st.sampled_from([1.0, 2.0, 4.0, 3.7])), VECTORS[key]) for key in keys
        )
        noise = draw(st.sampled_from(["", "", "campaign"]))
        events.append(FoldEvent(offset, ts, draw(st.integers(1, 3)), draw(st.integers(0, 5)), contributions, noise))
    return events


def fold_in_batches(events: list[FoldEvent], cuts: list[int], redelivered: int, rules: FoldRules = RULES) -> Ledger:
    """Folds the events batch by batch through stored bytes, each batch starting `redelivered` events early."""
    ledger = Ledger()
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in pairwise(bounds):
        fold(ledger, "topic", 0, events[max(start - redelivered, 0) : end], rules)
        stored = Held(state=encode_state(ProfileState(ledger, Ledger())), noise=ledger.noise)
        ledger = stored.decoded().searches
    return ledger


def close(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    a = np.zeros(DIMENSION) if a is None else a
    b = np.zeros(DIMENSION) if b is None else b
    return bool(np.linalg.norm(a - b) <= 1e-5 * max(np.linalg.norm(a), np.linalg.norm(b), 1e-30))


@given(histories(), st.lists(st.integers(1, 23), max_size=6), st.integers(0, 4), st.sampled_from([RULES, DAMPING]))
@settings(max_examples=400, deadline=None)
def test_any_batches_and_redeliveries_give_what_a_plain_recomputation_gives(events, cuts, redelivered, rules):
    ledger = fold_in_batches(events, cuts, redelivered, rules)
    expected = recompute(events, rules, VECTORS, DIMENSION)
    assert ledger.applied == ("topic", 0, events[-1].offset)
    assert ledger.events == expected.events
    assert ledger.newest_ts == expected.newest_ts
    assert close(ledger.long, expected.long)
    assert close(ledger.short, expected.short)
    at = ledger.newest_ts / RULES.half_life_long_ms
    close_to = 1e-9 if rules is RULES else 1e-6  # a row's recency has 24 bits
    assert 2.0 ** (ledger.weight_long - at) == pytest.approx(expected.weight_long, rel=close_to)
    assert 2.0 ** (ledger.weight_short - ledger.newest_ts / HOUR) == pytest.approx(expected.weight_short, rel=1e-6)
    assert {
        key: pytest.approx(2.0 ** (weight - at), rel=close_to)
        for key, weight in zip(ledger.keys, ledger.history["weight"].tolist(), strict=True)
    } == expected.history
    assert dict(zip(ledger.keys, ledger.history["count"].tolist(), strict=True)) == expected.counts
    assert 2.0 ** (ledger.evicted - at) == pytest.approx(expected.evicted, rel=close_to)
    assert ledger.noise == expected.noise
    assert (ledger.orders, ledger.repeats, ledger.later_lines) == (
        expected.orders,
        expected.repeats,
        expected.later_lines,
    )


@given(histories(), st.lists(st.integers(1, 23), max_size=6), st.sampled_from([RULES, DAMPING]))
@settings(max_examples=200, deadline=None)
def test_keys_and_weights_are_the_same_to_the_bit_whatever_the_batches(events, cuts, rules):
    whole, parts = fold_in_batches(events, [], 0, rules), fold_in_batches(events, cuts, 2, rules)
    assert parts.keys == whole.keys
    assert parts.history.tobytes() == whole.history.tobytes()
    assert (parts.weight_long, parts.evicted, parts.event_ids, parts.noise) == (
        whole.weight_long,
        whole.evicted,
        whole.event_ids,
        whole.noise,
    )


@given(histories(), st.sampled_from([RULES, DAMPING]))
@settings(max_examples=200, deadline=None)
def test_weights_are_conserved(events, rules):
    """Σ w_k + evicted = W: what leaves the history is accounted for."""
    ledger = fold_in_batches(events, [5, 11], 1, rules)
    newest = ledger.newest_ts / RULES.half_life_long_ms
    kept = np.exp2(ledger.history["weight"] - newest).sum()
    assert kept + 2.0 ** (ledger.evicted - newest) == pytest.approx(2.0 ** (ledger.weight_long - newest), rel=1e-9)


@given(histories(), st.sets(st.sampled_from(KEYS)), st.integers(0, 23))
@settings(max_examples=150, deadline=None)
def test_products_that_become_known_later_leave_the_profile_as_if_known_from_the_start(events, unknown, known_at):
    expected = fold_in_batches(events, [], 0)
    ledger = Ledger()
    for index, event in enumerate(events):
        late = index < known_at
        contributions = tuple(
            contribution._replace(vector=None)
            if late and contribution.key in unknown and contribution.key.startswith("p")
            else contribution
            for contribution in event.contributions
        )
        fold(ledger, "topic", 0, [event._replace(contributions=contributions)], RULES)
        if index + 1 >= known_at:
            settle(ledger, {key[1:]: VECTORS[key] for key in unknown}, RULES)
    settle(ledger, {key[1:]: VECTORS[key] for key in unknown}, RULES)
    assert not ledger.pending
    assert ledger.keys == expected.keys
    assert ledger.weight_long == expected.weight_long
    assert close(ledger.long, expected.long)


def test_a_purchase_fades_by_half_in_a_half_life():
    ledger = Ledger()
    fold(ledger, "topic", 0, [purchase(0, "pA", START), purchase(1, "pB", START + int(30 * DAY))], RULES)
    np.testing.assert_allclose(ledger.long, 2.0 * VECTORS["pA"] + 4.0 * VECTORS["pB"], rtol=1e-6)
    assert 2.0 ** (ledger.weight_long - ledger.newest_ts / RULES.half_life_long_ms) == pytest.approx(6.0)


def test_a_late_event_weighs_what_it_would_have_by_now():
    ledger = Ledger()
    fold(ledger, "topic", 0, [purchase(0, "pB", START + int(30 * DAY)), purchase(1, "pA", START)], RULES)
    np.testing.assert_allclose(ledger.long, 2.0 * VECTORS["pA"] + 4.0 * VECTORS["pB"], rtol=1e-6)
    assert ledger.newest_ts == START + int(30 * DAY)


def test_a_record_delivered_twice_in_one_batch_counts_once():
    ledger = Ledger()
    assert fold(ledger, "topic", 0, [purchase(3, "pA", START), purchase(3, "pA", START)], RULES) == 1
    assert ledger.events == 1


def test_an_event_id_seen_lately_counts_once_and_still_counts_as_applied():
    ledger = Ledger()
    twice = [purchase(3, "pA", START, event_id=9), purchase(4, "pA", START, event_id=9)]
    assert fold(ledger, "topic", 0, twice, RULES) == 2
    assert (ledger.events, ledger.applied.offset) == (1, 4)


def test_events_without_an_id_are_never_duplicates():
    ledger = Ledger()
    fold(ledger, "topic", 0, [purchase(3, "pA", START), purchase(4, "pA", START)], RULES)
    assert ledger.events == 2


def test_an_event_id_is_forgotten_beyond_the_memory():
    ledger = Ledger()
    ids = [1, 2, 3, 4, 1]
    fold(ledger, "topic", 0, [purchase(n, "pA", START, event_id=id_) for n, id_ in enumerate(ids)], RULES)
    assert ledger.events == 5
    assert ledger.event_ids == [3, 4, 1]


def test_a_topic_made_anew_goes_on_from_its_own_offsets():
    ledger = Ledger()
    fold(ledger, "old", 2, [purchase(100, "pA", START)], RULES)
    assert fold(ledger, "old", 2, [purchase(0, "pA", START)], RULES) == 0
    assert fold(ledger, "new", 2, [purchase(0, "pA", START)], RULES) == 1
    assert (ledger.events, ledger.applied) == (2, ("new", 2, 0))


def test_the_weakest_key_leaves_a_full_history_ties_by_key():
    ledger = Ledger()
    fold(
        ledger,
        "topic",
        0,
        [purchase(n, key, START) for n, key in enumerate(["pC", "pA", "pB", "pD", "pE"])],
        RULES,
    )
    assert sorted(ledger.keys) == ["pB", "pC", "pD", "pE"]


def test_an_order_counts_a_product_once_and_its_return_as_a_repeat():
    ledger = Ledger()
    lines = [
        purchase(0, "pA", START, order=11),
        purchase(1, "pA", START, order=11),
        purchase(2, "pB", START, order=11),
        purchase(3, "pA", START + 1, order=12),
    ]
    fold(ledger, "topic", 0, lines, RULES)
    rows = dict(zip(ledger.keys, ledger.history, strict=True))
    assert (ledger.orders, ledger.repeats, ledger.later_lines, ledger.distinct) == (2, 1, 1, 2)
    assert (rows["pA"]["count"], rows["pA"]["first_order"], rows["pA"]["last_order"]) == (2, 1, 2)
    assert rows["pA"]["recency"] == pytest.approx(1.8)
    assert rows["pB"]["count"] == 1


def test_pending_is_bounded_and_says_what_it_lost():
    rules = FoldRules(30 * DAY, HOUR, history=4, event_id_memory=3, pending=2)
    events = [
        FoldEvent(n, START + n * 1000, n + 1, 0, (Contribution(key, 4.0, None),))
        for n, key in enumerate(["pA", "pB", "pC"])
    ]
    ledger = Ledger()
    fold(ledger, "topic", 0, events, rules)
    assert set(ledger.pending) == {"B", "C"}
    assert ledger.n_lost == 1
    assert ledger.lost.long == 2.0 + START / (30 * DAY)


def search(offset: int, query: str, ts: int = START, click: str = "", noise: str = "") -> FoldEvent:
    contributions = (Contribution(f"q{query}", 1.0, VECTORS["qtent"]),) if query else ()
    if click:
        contributions += (Contribution(f"p{click}", 2.0, VECTORS[f"p{click}"]),)
    return FoldEvent(offset, ts, offset + 1, 0, contributions, noise)


def weights_of(ledger: Ledger) -> dict[str, float]:
    weights = 2.0 ** (ledger.history["weight"] - ledger.newest_ts / RULES.half_life_long_ms)
    return dict(zip(ledger.keys, weights.tolist(), strict=True))


def test_a_query_made_again_at_once_weighs_less_and_less_and_never_below_a_fifth():
    ledger, patient = Ledger(), replace(RULES, allowance=100.0)
    gained, total = [], 0.0
    for n in range(40):
        fold(ledger, "topic", 0, [search(n, "tent")], patient)
        weight = weights_of(ledger)["qtent"]
        gained.append(weight - total)
        total = weight
    assert gained[:3] == pytest.approx([1.0, 1 / 1.8, 1 / 2.44])
    assert gained[-1] == pytest.approx(1 / 5, rel=1e-3)
    assert ledger.noise == {"repetition": 39}


def test_an_event_of_two_queries_is_counted_if_either_was_just_made():
    ledger = Ledger()
    both = tuple(Contribution(key, 1.0, VECTORS[key]) for key in ("qred shoes", "qtent"))
    yesterday = search(0, "tent", START - int(DAY))
    fold(ledger, "topic", 0, [yesterday, search(1, "red shoes"), FoldEvent(2, START, 3, 0, both)], DAMPING)
    assert ledger.noise == {"repetition": 1}, "whichever of them comes last"


def test_a_query_made_again_another_day_or_after_others_weighs_nearly_all_again():
    ledger = Ledger()
    fold(ledger, "topic", 0, [search(0, "tent"), search(1, "tent", START + int(DAY))], DAMPING)
    assert 2.0 ** (ledger.weight_short - ledger.newest_ts / HOUR) == pytest.approx(1.0, rel=1e-6)


def test_a_machines_searches_weigh_ever_less_and_an_hour_later_all_again():
    ledger = Ledger()
    hasty = [search(n, f"word {n}", START + n, click="A") for n in range(1000)]
    fold(ledger, "topic", 0, hasty, DAMPING)
    assert ledger.events == 1000
    assert ledger.noise == {"rate": 997}, "three come within the allowance of 6"
    held = 2.0 ** (ledger.weight_short - ledger.newest_ts / HOUR)
    assert held == pytest.approx((3 * 3 * 6**2 * 1000) ** (1 / 3), rel=0.02), "and not 3000"
    fold(ledger, "topic", 0, [search(1000, "tent", START + 6 * int(HOUR))], DAMPING)
    assert ledger.noise == {"rate": 997}


def test_an_event_of_which_nothing_is_worth_a_key_counts_as_applied_and_under_its_reason():
    ledger = Ledger()
    events = [search(0, "", click="A", noise="campaign"), search(1, "", noise="gibberish")]
    fold(ledger, "topic", 0, events, DAMPING)
    assert (ledger.events, ledger.applied.offset) == (2, 1)
    assert weights_of(ledger) == {"pA": pytest.approx(2.0)}
    assert ledger.noise == {"campaign": 1, "gibberish": 1}


def test_settling_pays_each_ledger_of_a_user_once():
    state = ProfileState(Ledger(), Ledger())
    event = FoldEvent(0, START, 1, 0, (Contribution("pA", 2.0, None),))
    fold(state.searches, "s", 0, [event], RULES)
    fold(state.purchases, "p", 0, [event], RULES)
    known = {"A": VECTORS["pA"]}
    assert settle_state(state, known, Rules(RULES, RULES)) is True
    assert settle_state(state, known, Rules(RULES, RULES)) is False
    np.testing.assert_allclose(state.purchases.long, 2.0 * VECTORS["pA"], rtol=1e-6)
    assert state.pending == set()


def test_hashes_are_the_same_in_every_process():
    assert stable_hash("536365") == 3151544803699941299
    assert math.log2(stable_hash("a")) < 64
