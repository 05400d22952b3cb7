"""Which products are shown, in which order, and why."""

from __future__ import annotations

import numpy as np
import pytest

from sinks.derivation import Interest, Taste
from sinks.ledgers import Ledger, ProfileState
from sinks.ranking import Found, RankingRules, Reason, rank
from streams.profiles import Contribution, FoldEvent, FoldRules, fold

DAY = 86_400_000
START = 1_700_000_000_000
FOLD = FoldRules(30.0 * DAY, 3_600_000.0, history=8, event_id_memory=0, pending=8)
X, Y = np.eye(2, dtype=np.float32)
TITLES = {"A": "Red shoes", "B": "Blue shoes", "C": "Tent", "D": "Lamp", "E": "Boots"}
NOBODY = ProfileState(Ledger(), Ledger())


def a_buyer(*orders: tuple[str, ...]) -> ProfileState:
    """One order a day, of these products."""
    ledger = Ledger()
    events = [
        FoldEvent(n, START + n * DAY, n + 1, 0, tuple(Contribution(f"p{one}", 4.0, X) for one in order))
        for n, order in enumerate(orders)
    ]
    fold(ledger, "purchases", 0, events, FOLD)
    return ProfileState(Ledger(), ledger)


def a_taste(*interests: Interest, short: np.ndarray | None = None, at: int = START + 10 * DAY) -> Taste:
    return Taste(at, X if interests else None, short, interests)


SHOES = Interest(0.75, X, ("pA",))
TENTS = Interest(0.25, Y, ("qfamily tent", "pC"))


def test_a_new_product_scores_by_its_likeness_and_says_why():
    found = Found([[("B", 1.0)]])
    (only,) = rank(a_buyer(("A",)), a_taste(SHOES._replace(share=1.0)), found, TITLES, {"B"}, RankingRules(5))
    assert only.product_id == "B"
    assert only.score == pytest.approx(-6.0 + 0.4 * 4.61512051684126 - 1.14 * 0.15)  # log1p(100)
    assert only.because == (Reason("interest", 1.0, ("Red shoes",)),)


def test_the_shares_of_the_reasons_are_the_parts_of_the_score_and_add_up_to_1():
    taste = a_taste(SHOES, TENTS, short=np.array([0.5, 0.0], np.float32))
    found = Found([[("B", 0.5)], [("B", 0.5)]], recent=[("B", 0.5)])
    (only,) = rank(a_buyer(("A",)), taste, found, TITLES, {"B"}, RankingRules(5))
    assert [(reason.kind, round(reason.share, 9)) for reason in only.because] == [
        ("interest", 0.5),  # 0.75 of 0.75 + 0.25 + 0.5
        ("recent", pytest.approx(1 / 3)),
        ("interest", pytest.approx(1 / 6)),
    ]
    assert only.because[2].texts == ("family tent", "Tent")
    assert only.because[1].texts == ("Red shoes",)


def test_every_product_shown_has_reasons_that_add_up_to_1():
    state, taste = a_buyer(("A", "C"), ("A",)), a_taste(SHOES, TENTS, short=X)
    found = Found([[("A", 0.9), ("B", 0.4), ("D", -0.2)], [("C", 0.8), ("B", 0.3)]], [("E", 0.0)])
    shown = rank(state, taste, found, TITLES, set(TITLES), RankingRules(9))
    assert {one.product_id for one in shown} == {"A", "B", "C", "D", "E"}
    for one in shown:
        assert sum(reason.share for reason in one.because) == pytest.approx(1.0)
        assert [reason.share for reason in one.because] == sorted((r.share for r in one.because), reverse=True)


def test_what_was_bought_before_ranks_by_habit():
    state = a_buyer(("A", "B"), ("A",), ("A", "C"))
    shown = rank(state, a_taste(at=START + 3 * DAY), Found([]), TITLES, set(TITLES), RankingRules(5))
    assert [(one.product_id, one.because[0].texts) for one in shown] == [("A", ("3×",)), ("C", ("1×",)), ("B", ("1×",))]
    assert all(one.because[0].kind == "bought" for one in shown)


def test_the_order_is_the_same_whatever_order_things_were_found_in():
    hits = [("D", 0.5), ("B", 0.5), ("E", 0.7)]
    for found in (hits, hits[::-1]):
        shown = rank(NOBODY, a_taste(SHOES), Found([found]), TITLES, set(TITLES), RankingRules(5))
        assert [one.product_id for one in shown] == ["E", "B", "D"], "ties by product id"


def test_only_the_best_are_kept():
    found = Found([[("D", 0.5), ("B", 0.6), ("E", 0.7)]])
    shown = rank(NOBODY, a_taste(SHOES), found, TITLES, set(TITLES), RankingRules(2))
    assert [one.product_id for one in shown] == ["E", "B"]


def test_what_is_not_available_is_left_out_but_named_as_a_reason():
    state = a_buyer(("A",))
    found = Found([[("A", 1.0), ("B", 0.9)]])
    (only,) = rank(state, a_taste(SHOES), found, TITLES, {"B"}, RankingRules(5))
    assert (only.product_id, only.because[0].texts) == ("B", ("Red shoes",))


def test_what_was_bought_can_be_excluded():
    state = a_buyer(("A",))
    found = Found([[("A", 1.0), ("B", 0.9)]])
    shown = rank(state, a_taste(SHOES), found, TITLES, set(TITLES), RankingRules(5, exclude_bought=True))
    assert [one.product_id for one in shown] == ["B"]


def test_a_query_restricts_to_what_is_near_it():
    state, taste = a_buyer(("A",)), a_taste(SHOES)
    found = Found([[("A", 1.0), ("B", 0.9)]], query=[("C", 0.8), ("D", 0.1)])
    shown = rank(state, taste, found, TITLES, set(TITLES), RankingRules(5))
    assert [one.product_id for one in shown] == ["C", "D"]
    assert [one.because for one in shown] == [(Reason("query", 1.0, ()),), (Reason("query", 1.0, ()),)]


def test_of_two_products_near_a_query_the_person_decides():
    found = Found([[("D", 0.9)]], query=[("C", 0.5), ("D", 0.5)])
    shown = rank(a_buyer(("A",)), a_taste(SHOES), found, TITLES, set(TITLES), RankingRules(5))
    assert [one.product_id for one in shown] == ["D", "C"]
    assert [reason.kind for reason in shown[0].because] == ["query", "interest"]


def test_nothing_is_recommended_to_somebody_unknown_unless_they_ask():
    assert rank(NOBODY, a_taste(), Found([]), TITLES, set(TITLES), RankingRules(5)) == []
    (only,) = rank(NOBODY, a_taste(), Found([], query=[("C", 0.8)]), TITLES, set(TITLES), RankingRules(5))
    assert only.product_id == "C"
