"""What is derived from ledgers: literal small cases, and what holds for any."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.derivation import DerivationRules, Taste, centred, centring, derive, reading_time
from sinks.ledgers import Ledger, ProfileState
from sinks.support import Support, landmarks_of
from streams.profiles import Contribution, FoldEvent, FoldRules, fold

DAY, HOUR = 86_400_000, 3_600_000
START = 1_700_000_000_000
FOLD = FoldRules(30.0 * DAY, float(HOUR), history=8, event_id_memory=0, pending=8)
RULES = DerivationRules(30.0 * DAY, float(HOUR), regularisation=1.0, interests=4, interest_similarity=0.4)
X, Y, Z = np.eye(3, dtype=np.float32)
NO_MEAN = np.zeros(3, np.float32)


def a_ledger(*events: tuple[str, float, int, np.ndarray | None]) -> Ledger:
    """Folded from (key, weight, ts, vector)."""
    ledger = Ledger()
    steps = [
        FoldEvent(offset, ts, offset + 1, 0, (Contribution(key, weight, vector),))
        for offset, (key, weight, ts, vector) in enumerate(events)
    ]
    fold(ledger, "topic", 0, steps, FOLD)
    return ledger


def bought(*events: tuple[str, float, int, np.ndarray | None]) -> ProfileState:
    return ProfileState(Ledger(), a_ledger(*events))


def taste_of(state: ProfileState, at: int, products: dict[str, np.ndarray], mean: np.ndarray = NO_MEAN) -> Taste:
    (taste,) = derive([state], products, mean, at, RULES)
    return taste


def test_the_taste_is_the_regularised_decayed_mean_of_both_ledgers():
    state = ProfileState(
        searches=a_ledger(("qtent", 1.0, START, Y)),
        purchases=a_ledger(("pA", 4.0, START, X)),
    )
    at = START + 30 * DAY  # every weight has halved: 2 X and 0.5 Y, of 2.5 and lambda 1
    taste = taste_of(state, at, {"A": X})
    np.testing.assert_allclose(taste.long, [2.0 / 3.5, 0.5 / 3.5, 0.0], rtol=1e-6)
    assert taste.at == at
    assert taste.known == pytest.approx(math.hypot(2.0, 0.5) / 3.5)
    assert taste.short is None  # 720 short half-lives later


def test_the_recent_taste_fades_by_the_short_half_life():
    taste = taste_of(bought(("pA", 4.0, START, X)), START + 2 * HOUR, {"A": X})
    np.testing.assert_allclose(taste.short, [1.0 / 2.0, 0.0, 0.0], rtol=1e-6)


def test_weight_that_waits_for_a_product_is_not_counted_yet():
    state = bought(("pA", 4.0, START, X), ("pB", 4.0, START, None))
    taste = taste_of(state, START, {"A": X})
    np.testing.assert_allclose(taste.long, [4.0 / 5.0, 0.0, 0.0], rtol=1e-6)
    assert [interest.share for interest in taste.interests] == [pytest.approx(0.5)], "of all weight, what waits too"


def test_a_user_of_whom_only_unknown_products_are_known_has_no_taste():
    taste = taste_of(bought(("pA", 4.0, START, None)), START, {})
    assert (taste.long, taste.short, taste.interests, taste.known) == (None, None, (), 0.0)


def test_two_groups_of_keys_are_two_interests_and_their_shares_add_up():
    near_x = np.array([0.8, 0.0, 0.6], np.float32)
    state = bought(("pA", 4.0, START, X), ("pB", 2.0, START, near_x), ("pC", 1.0, START, Y), ("pD", 1.0, START, Y))
    taste = taste_of(state, START, {"A": X, "B": near_x, "C": Y, "D": Y})
    assert [interest.keys for interest in taste.interests] == [("pA", "pB"), ("pC", "pD")]
    assert [interest.share for interest in taste.interests] == [pytest.approx(0.75), pytest.approx(0.25)]
    expected = np.array([5.6, 0.0, 1.2]) / math.hypot(5.6, 1.2)
    np.testing.assert_allclose(taste.interests[0].vector, expected, rtol=1e-6)
    np.testing.assert_allclose(taste.interests[1].vector, Y, rtol=1e-6)


def test_a_key_joins_its_nearest_leader_not_the_strongest():
    between = np.array([0.5, math.sqrt(0.75), 0.0], np.float32)  # 0.5 from X, 0.87 from Y
    beyond = np.array([0.5, -math.sqrt(0.75), 0.0], np.float32)  # 0.5 from X, on the other side
    state = bought(
        ("pA", 5.0, START, X), ("pB", 3.0, START, Y), ("pC", 1.0, START, between), ("pD", 4.0, START, beyond)
    )
    taste = taste_of(state, START, {"A": X, "B": Y, "C": between, "D": beyond})
    assert [interest.keys for interest in taste.interests] == [("pA", "pD"), ("pB", "pC")]


def test_the_key_whose_neighbourhood_weighs_most_leads_not_the_heaviest():
    around = [np.array([0.8, 0.6 * math.cos(angle), 0.6 * math.sin(angle)], np.float32) for angle in (0.5, 2.6, 4.7)]
    lone = np.array([-1.0, 0.0, 0.0], np.float32)
    state = bought(
        ("pA", 2.0, START, around[0]),
        ("pB", 2.0, START, around[1]),
        ("pC", 2.0, START, around[2]),
        ("pD", 4.0, START, lone),
    )
    vectors = {"A": around[0], "B": around[1], "C": around[2], "D": lone}
    (taste,) = derive([state], vectors, NO_MEAN, START, replace(RULES, interests=1))
    assert [sorted(interest.keys) for interest in taste.interests] == [["pA", "pB", "pC"]]


def test_no_more_interests_than_the_rules_allow():
    unit = np.eye(6, dtype=np.float32)
    state = bought(*((f"p{n}", 6.0 - n, START, unit[n]) for n in range(6)))
    (taste,) = derive([state], {str(n): unit[n] for n in range(6)}, np.zeros(6, np.float32), START, RULES)
    assert [interest.keys for interest in taste.interests] == [("p0",), ("p1",), ("p2",), ("p3",)]


def test_a_query_that_the_catalogue_does_not_support_counts_less_in_the_interests_and_only_there():
    products = np.zeros((64, 3), np.float32)
    products[:, :2] = [(math.cos(0.1 * n), math.sin(0.1 * n)) for n in range(64)]
    support = Support(landmarks_of(products, NO_MEAN), NO_MEAN)
    state = ProfileState(
        a_ledger(("qunheard", 1.0, START, Z), ("qknown", 1.0, START, X)), a_ledger(("pB", 2.0, START, Y))
    )
    (without,) = derive([state], {"B": Y}, NO_MEAN, START, RULES)
    (taste,) = derive([state], {"B": Y}, NO_MEAN, START, RULES, support)
    assert [(one.keys, round(one.share, 9)) for one in without.interests] == [
        (("pB",), 0.5),
        (("qknown",), 0.25),
        (("qunheard",), 0.25),
    ]
    assert [(one.keys, round(one.share, 9)) for one in taste.interests] == [
        (("pB",), 0.5),
        (("qknown",), 0.25),
        (("qunheard",), 0.0125),
    ]
    for vector, other in ((taste.long, without.long), (taste.short, without.short)):
        np.testing.assert_array_equal(vector, other)


def test_a_product_in_both_ledgers_is_one_key():
    state = ProfileState(a_ledger(("pA", 2.0, START, X)), a_ledger(("pA", 4.0, START, X), ("pB", 2.0, START, Y)))
    taste = taste_of(state, START, {"A": X, "B": Y})
    assert [(one.keys, round(one.share, 9)) for one in taste.interests] == [(("pA",), 0.75), (("pB",), 0.25)]


def test_a_faded_profile_is_read_as_of_its_newest_event():
    state = bought(("pA", 4.0, START - DAY, X), ("pB", 4.0, START, Y))
    years_later = START + 3650 * DAY
    taste = taste_of(state, years_later, {"A": X, "B": Y})
    assert taste.at == START
    assert taste.known > 0.5
    assert taste.short is not None


@pytest.mark.parametrize("days", [0, 300, 650, 690, 720, 1000, 30_000])
def test_a_profile_has_a_taste_at_any_age(days: int):
    taste = taste_of(bought(("pA", 4.0, START, X)), START + days * DAY, {"A": X})
    assert taste.long is not None
    np.testing.assert_allclose(taste.long / np.linalg.norm(taste.long), X, atol=1e-6)


def test_a_time_before_the_newest_event_is_that_of_the_event():
    state = bought(("pA", 4.0, START, X))
    hourly = DerivationRules(float(HOUR), 60_000.0, 1.0, 4, 0.4)
    assert reading_time(state, START - DAY, RULES) == START
    assert reading_time(state, 0, hourly) == START
    assert reading_time(ProfileState(Ledger(), Ledger()), START, RULES) == 0


def test_vectors_that_cancel_out_are_no_taste():
    assert taste_of(bought(("pA", 4.0, START, X), ("pB", 4.0, START, -X)), START, {"A": X, "B": -X}).long is None


def test_similarity_is_compared_without_what_all_products_share():
    mean = np.array([0.0, 0.0, 0.8], np.float32)
    vectors = {"A": np.array([0.6, 0.0, 0.8], np.float32), "B": np.array([0.0, 0.6, 0.8], np.float32)}
    state = bought(("pA", 4.0, START, vectors["A"]), ("pB", 2.0, START, vectors["B"]))
    assert len(taste_of(state, START, vectors).interests) == 1
    assert len(taste_of(state, START, vectors, mean).interests) == 2


def test_scores_of_centred_queries_become_centred_cosines():
    mean = np.array([0.0, 0.0, 0.8], np.float32)
    product = np.array([0.6, 0.0, 0.8], np.float32)
    query = centred(product[None], mean)
    np.testing.assert_allclose(query, [[1.0, 0.0, 0.0]], atol=1e-6)
    ((offset, scale),) = centring(query, mean)
    assert (float(query[0] @ product) - offset) * scale == pytest.approx(1.0)


keys = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from([1.0, 2.0, 4.0]), st.integers(-90 * DAY, 0)), min_size=1, max_size=20
)
CATALOGUE = {
    str(n): (vector / np.linalg.norm(vector)).astype(np.float32)
    for n, vector in enumerate(np.random.default_rng(3).normal(size=(12, 3)))
}


@given(st.lists(keys, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_shares_are_of_all_weight_and_users_do_not_depend_on_their_batch(users):
    states = [bought(*((f"p{n}", weight, START + age, CATALOGUE[str(n)]) for n, weight, age in one)) for one in users]
    tastes = derive(states, CATALOGUE, NO_MEAN, START, RULES)
    for state, taste in zip(states, tastes, strict=True):
        assert sum(interest.share for interest in taste.interests) <= 1.0 + 1e-9
        listed = [key for interest in taste.interests for key in interest.keys]
        assert len(listed) == len(set(listed)) <= len(state.purchases.keys)
        (alone,) = derive([state], CATALOGUE, NO_MEAN, START, RULES)
        assert [one.keys for one in alone.interests] == [one.keys for one in taste.interests]
        np.testing.assert_allclose(alone.long, taste.long, rtol=1e-6)


@given(keys, st.integers(0, 19))
@settings(max_examples=100, deadline=None)
def test_a_share_is_what_would_go_if_its_key_had_never_been(events, chosen):
    """The sum S without a key is S less its part: so a share is an exact counterfactual of the taste."""
    roomy = FoldRules(FOLD.half_life_long_ms, FOLD.half_life_short_ms, history=64, event_id_memory=0, pending=8)
    gone = events[chosen % len(events)][0]

    def weights(kept):
        ledger = Ledger()
        fold(
            ledger,
            "topic",
            0,
            [
                FoldEvent(n, START + age, n + 1, 0, (Contribution(f"p{key}", weight, CATALOGUE[str(key)]),))
                for n, (key, weight, age) in enumerate(kept)
            ],
            roomy,
        )
        at = START / roomy.half_life_long_ms
        return dict(zip(ledger.keys, np.exp2(ledger.history["weight"] - at), strict=True)), ledger

    whole, _ = weights(events)
    rest, without = weights([event for event in events if event[0] != gone])
    total = sum(whole.values())
    share = whole[f"p{gone}"] / total
    assert sum(rest.values()) / total == pytest.approx(1.0 - share, abs=1e-9)
    for key, weight in rest.items():
        assert weight == pytest.approx(whole[key], rel=1e-9)
    assert f"p{gone}" not in without.keys
