"""Which products are shown, in which order, and why."""

from __future__ import annotations

import math

import numpy as np
import pytest
from across_users import statistics_of
from hypothesis import given
from hypothesis import strategies as st

from sinks.derivation import Interest, Taste
from sinks.ledgers import Ledger, ProfileState
from sinks.prospects import Found
from sinks.ranking import RankingRules, rank
from sinks.reasons import Reason
from sinks.scoring import NEW_TO_THE_PERSON, PRIOR, Weights
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


NOW = START + 10 * DAY
SHOP = statistics_of(
    ["A", "B", "C", "D"],
    NOW,
    together={("A", "B"): 0.5, ("A", "C"): 0.1, ("C", "B"): 0.2},
    first_sold={"A": 0, "B": 0, "C": 0, "D": 0},
    buyers={"A": 9, "B": 9, "C": 9, "D": 9},
    sold_5={"D": 1},
    sold_20={"D": 2},
)
"""D sells; the others have been bought with each other."""
NEWS = Found([], announced={"E": NOW - DAY})


def ids(shown: list) -> list[str]:
    return [one.product_id for one in shown]


def reasons(shown: list) -> dict[str, list[str]]:
    return {one.product_id: [reason.kind for reason in one.because] for one in shown}


def test_what_others_bought_with_it_is_recommended_and_says_with_what():
    state = a_buyer(("A", "C"))
    rules = RankingRules(5, exclude_bought=True)
    best, second = rank(state, a_taste(), Found([]), TITLES, set(TITLES), rules, SHOP)
    assert (best.product_id, second.product_id) == ("B", "D")
    assert best.because == (Reason("together", 1.0, ("Red shoes", "Tent")),), "A adds .5 to it, C .2"
    # ln(1 + .7 / (√2 · .03)); nobody bought it twice: (0 + 1.5) / (9 + 10)
    assert best.score == pytest.approx(-6.0 + 0.65 * math.log1p(0.7 / (math.sqrt(2) * 0.03)) - 1.14 * 1.5 / 19)


def test_somebody_unknown_is_shown_what_is_popular():
    shown = rank(NOBODY, a_taste(at=NOW), Found([]), TITLES, set(TITLES), RankingRules(2), SHOP)
    assert ids(shown) == ["D", "A"], "of what doesn't sell, ties by id"
    assert shown[0].because == (Reason("popular", 1.0, ()),)
    assert shown[0].score == pytest.approx(-6.0 + 0.46 * math.log(2) + 0.09 * math.log(3) - 1.14 * 1.5 / 19)


def test_what_sold_when_the_statistics_were_made_has_faded_since():
    scores = [
        rank(NOBODY, a_taste(at=at), Found([]), TITLES, {"D"}, RankingRules(1), SHOP)[0].score
        for at in (NOW, NOW + 5 * DAY)
    ]
    assert scores[0] - scores[1] == pytest.approx(
        0.46 * (math.log1p(1) - math.log1p(0.5)) + 0.09 * (math.log1p(2) - math.log1p(2 * 2**-0.25))
    )


def test_a_product_announced_today_is_shown_before_anybody_bought_it_and_says_that_it_is_new():
    found = Found([[("E", 0.5), ("C", 0.1)]], announced={"E": NOW - DAY, "C": NOW - DAY})
    shown = rank(a_buyer(("A",)), a_taste(SHOES, at=NOW), found, TITLES, {"E", "D"}, RankingRules(3), SHOP)
    assert ids(shown) == ["E", "D"]
    assert reasons(shown)["E"] == ["new", "interest"]


def test_what_was_announced_long_ago_and_never_sold_is_no_news():
    old = Found([[("E", 0.5)]], announced={"E": NOW - 31 * DAY})
    unknown = Found([[("E", 0.5)]])
    later = Found([[("E", 0.5)]], announced={"E": NOW + DAY})
    scores = []
    for found in (old, unknown, later):
        (only,) = rank(a_buyer(("A",)), a_taste(SHOES, at=NOW), found, TITLES, {"E"}, RankingRules(1), SHOP)
        assert [reason.kind for reason in only.because] == ["interest"]
        scores.append(only.score)
    assert scores[0] == scores[1] == scores[2], "it isn't known before it is announced"


def test_what_was_clicked_and_never_sold_is_popular_and_not_new():
    clicked = statistics_of(["A", "B"], NOW, clicked={"A": 3, "B": 1})
    shown = rank(NOBODY, a_taste(at=NOW), Found([]), TITLES, set(TITLES), RankingRules(2), clicked)
    assert reasons(shown) == {"A": ["popular"], "B": ["popular"]}
    assert shown[0].score == pytest.approx(-6.0 + 0.5 * math.log(4) - 0.32 - 1.14 * 0.15)


def test_what_was_clicked_and_announced_lately_is_new():
    clicked = statistics_of(["A", "E"], NOW, clicked={"A": 1, "E": 1})
    shown = rank(NOBODY, a_taste(at=NOW), NEWS, TITLES, set(TITLES), RankingRules(2), clicked)
    assert reasons(shown) == {"E": ["new", "popular"], "A": ["popular"]}


def test_a_product_first_sold_lately_is_new():
    lately = statistics_of(["A", "B"], NOW, first_sold={"A": NOW - 300 * DAY, "B": NOW - DAY}, sold_20={"A": 9, "B": 1})
    shown = rank(NOBODY, a_taste(at=NOW), Found([]), TITLES, set(TITLES), RankingRules(2), lately)
    assert ids(shown) == ["B", "A"]
    assert reasons(shown)["B"] == ["new", "popular"]


def test_being_shown_to_many_costs_places_and_nothing_without_the_rule():
    shop = statistics_of(
        ["A", "B"], NOW, first_sold={"A": 0, "B": 0}, sold_5={"A": 5, "B": 4}, shown={"A": 900, "B": 10}
    )
    for exposure, order in ((0.0, ["A", "B"]), (0.1, ["B", "A"])):
        rules = RankingRules(2, exposure=exposure)
        shown = rank(NOBODY, a_taste(at=NOW), Found([]), TITLES, set(TITLES), rules, shop)
        assert ids(shown) == order
        assert [one.score for one in shown] == sorted((one.score for one in shown), reverse=True)


def test_the_last_places_explore_what_is_shown_least_of_what_is_new_to_the_person():
    shop = statistics_of(
        ["A", "B", "C", "D", "E"],
        NOW,
        first_sold=dict.fromkeys("ABCDE", 0),
        sold_5={"A": 50, "B": 40, "C": 3, "D": 2, "E": 1},
        shown={"A": 900, "B": 900, "C": 700, "D": 5, "E": 5},
    )
    state = a_buyer(("C",))
    without = RankingRules(3, exploration=0, exposure=0.0)
    assert ids(rank(state, a_taste(at=NOW), Found([]), TITLES, set(TITLES), without, shop)) == ["C", "A", "B"]
    one = rank(state, a_taste(at=NOW), Found([]), TITLES, set(TITLES), RankingRules(3, exploration=1), shop)
    assert ids(one) == ["C", "A", "D"], "D and E were shown as seldom, and D scores better"
    every = rank(state, a_taste(at=NOW), Found([]), TITLES, set(TITLES), RankingRules(2, exploration=9), shop)
    assert ids(every) == ["D", "E"]


def test_an_explored_place_is_not_left_empty_when_nothing_is_new():
    state = a_buyer(("A", "B", "C"))
    shown = rank(state, a_taste(), Found([]), TITLES, {"A", "B", "C"}, RankingRules(3, exploration=2), SHOP)
    assert set(ids(shown)) == {"A", "B", "C"}


def test_what_is_not_available_is_skipped_however_good_it_is():
    many = [f"p{n:03}" for n in range(150)]
    shop = statistics_of(many, NOW, first_sold=dict.fromkeys(many, 0), sold_5={one: n for n, one in enumerate(many)})
    shown = rank(NOBODY, a_taste(at=NOW), Found([]), {}, {"p007", "p003", "p005"}, RankingRules(2), shop)
    assert ids(shown) == ["p007", "p005"], "far behind what can't be shown"


def test_of_equally_good_products_those_with_the_first_ids_are_shown():
    many = [f"p{n:03}" for n in range(150)][::-1]
    shop = statistics_of(many, NOW, first_sold=dict.fromkeys(many, 0))
    shown = rank(NOBODY, a_taste(at=NOW), Found([]), {}, set(many), RankingRules(3), shop)
    assert ids(shown) == ["p000", "p001", "p002"]


def test_a_query_asks_for_what_is_near_it_and_statistics_decide_between_equals():
    found = Found([], query=[("B", 0.5), ("D", 0.5)])
    shown = rank(a_buyer(("A",)), a_taste(), found, TITLES, set(TITLES), RankingRules(5), SHOP)
    assert ids(shown) == ["B", "D"]
    assert reasons(shown) == {"B": ["query", "together"], "D": ["query", "popular"]}


def a_searcher(*searches: tuple[str, str], at: int = START + 10 * DAY) -> ProfileState:
    """Queries, and what was clicked after each."""
    ledger = Ledger()
    events = [
        FoldEvent(n, at, n + 1, 0, (Contribution(f"q{query}", 1.0, X), Contribution(f"p{clicked}", 2.0, X)))
        for n, (query, clicked) in enumerate(searches)
    ]
    fold(ledger, "searches", 0, events, FOLD)
    return ProfileState(ledger, Ledger())


def test_what_others_clicked_after_a_query_comes_first_the_more_it_was_clicked():
    found = Found([], query=[("B", 0.9), ("D", 0.7), ("E", 0.5)], clicked={"E": 30.0, "D": 10.0})
    shown = rank(NOBODY, a_taste(), found, TITLES, set(TITLES), RankingRules(5), statistics_of("ABDE", NOW))
    assert ids(shown) == ["E", "D", "B"]
    assert reasons(shown) == {"E": ["query", "clicked"], "D": ["query", "clicked"], "B": ["query"]}


def test_of_a_query_without_clicks_the_text_decides():
    found = Found([], query=[("B", 0.9), ("D", 0.7), ("E", 0.5)])
    shown = rank(NOBODY, a_taste(), found, TITLES, set(TITLES), RankingRules(5), statistics_of("ABDE", NOW))
    assert ids(shown) == ["B", "D", "E"]


def test_the_words_of_a_query_count_beside_its_meaning():
    found = Found([], query=[("B", 0.5), ("D", 0.5)], words={"D": 3.0})
    assert ids(rank(NOBODY, a_taste(), found, TITLES, set(TITLES), RankingRules(5))) == ["D", "B"]


@pytest.mark.parametrize(("clicks", "first"), [({}, "D"), ({"C": 100.0}, "C")])
def test_a_query_whose_answer_is_known_leaves_little_to_the_person(clicks, first):
    found = Found([[("D", 0.9)]], query=[("C", 0.5), ("D", 0.5)], clicked=clicks)
    shop = statistics_of("ABCD", NOW, alike={("A", "D"): 0.5})
    shown = rank(a_buyer(("A",)), a_taste(SHOES), found, TITLES, set(TITLES), RankingRules(5), shop)
    assert ids(shown)[0] == first


def test_somebody_who_searched_is_shown_what_others_clicked_after_the_same_query():
    shop = statistics_of("ABCDE", NOW, clicks={"lamp": {"D": 5.0, "E": 1.0}, "tent": {"C": 50.0}})
    shown = rank(a_searcher(("lamp", "A")), a_taste(at=NOW), Found([]), TITLES, set("CDE"), RankingRules(5), shop)
    assert ids(shown) == ["D", "E", "C"]
    assert shown[0].because == (Reason("clicked", 1.0, ("lamp",)),)


def test_somebody_who_clicked_is_shown_what_others_clicked_in_one_visit_with_that():
    shop = statistics_of("ABCDE", NOW, viewed={("A", "C"): 0.3, ("A", "D"): 0.1, ("B", "E"): 0.9})
    shown = rank(a_searcher(("lamp", "A")), a_taste(at=NOW), Found([]), TITLES, set("CDE"), RankingRules(5), shop)
    assert ids(shown) == ["C", "D", "E"]
    assert shown[0].because == (Reason("viewed", 1.0, ("Red shoes",)),)


def test_what_somebody_clicked_just_now_goes_down_where_the_shop_has_shown_that_nobody_clicks_it_again():
    weights = Weights(PRIOR.new.copy(), PRIOR.bought)
    weights.new[NEW_TO_THE_PERSON.index("just_clicked")] = -4.0
    shop = statistics_of("ABCDE", NOW, clicks={"lamp": {"D": 5.0, "E": 1.0}}, weights=weights)
    searcher = a_searcher(("lamp", "D"))
    assert ids(rank(searcher, a_taste(at=NOW), Found([]), TITLES, set("DE"), RankingRules(5), shop)) == ["E", "D"]
    later = a_taste(at=NOW + 30 * DAY)
    assert ids(rank(searcher, later, Found([]), TITLES, set("DE"), RankingRules(5), shop)) == ["D", "E"]


def test_a_persons_own_rate_of_repeats_decides_whether_what_they_bought_comes_first():
    bought = [f"h{n}" for n in range(8)]
    shop = statistics_of(["A", *bought], NOW, together={("A", "h0"): 0.5}, first_sold=dict.fromkeys(["A", *bought], 0))
    for orders, order in (
        ([(one,) for one in bought], ["A", "h7"]),
        ([("h0", "h7")] * 8, ["h7", "A"]),
    ):
        state = a_buyer(*orders)
        shown = rank(state, a_taste(at=START + 8 * DAY), Found([]), {}, {"A", "h7"}, RankingRules(2), shop)
        assert ids(shown) == order


def test_what_was_found_near_an_interest_says_so_even_if_it_is_worth_nothing():
    state, found = a_buyer(("A",)), Found([[("C", 0.01), ("B", 0.01)]])
    quiet = statistics_of(["A", "B", "C"], NOW, first_sold={"A": 0, "B": 0, "C": 0})
    shown = rank(state, a_taste(SHOES), found, TITLES, {"B", "C"}, RankingRules(3), quiet)
    assert [one.because for one in shown] == [(Reason("interest", 1.0, ("Red shoes",)),)] * 2


shares = st.floats(0.0, 1.0, width=16)


@st.composite
def shops(draw: st.DrawFn):
    sold = draw(st.sets(st.sampled_from("ABCD")))
    pairs = st.dictionaries(st.tuples(st.sampled_from("ABC"), st.just("D")), shares, max_size=3)
    counts = st.dictionaries(st.sampled_from("ABCD"), st.floats(0.0, 1e6, width=32))
    return statistics_of(
        ["A", "B", "C", "D"],
        draw(st.integers(START, NOW + 400 * DAY)),
        together=draw(pairs),
        alike=draw(pairs),
        first_sold={one: draw(st.integers(0, NOW + DAY)) for one in sorted(sold)},
        **{name: draw(counts) for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown")},
    )


@given(
    shops(),
    st.lists(st.sets(st.sampled_from("ABCDE"), min_size=1).map(lambda one: tuple(sorted(one))), max_size=4),
    st.lists(st.tuples(st.sampled_from("ABCDE"), st.floats(-1.0, 1.0)), max_size=4, unique_by=lambda hit: hit[0]),
    st.integers(1, 6),
    st.integers(0, 6),
    st.sets(st.sampled_from("ABCDE")),
    st.booleans(),
)
def test_whatever_is_known_every_place_is_filled_and_has_reasons_that_add_up_to_1(
    shop, orders, hits, limit, exploration, available, asks
):
    state = a_buyer(*orders)
    found = Found([hits], recent=hits[:2], query=hits if asks else None, announced={"E": NOW - DAY})
    taste = a_taste(SHOES, short=X)
    rules = RankingRules(limit, exploration=exploration)
    shown = rank(state, taste, found, TITLES, available, rules, shop)
    if asks:
        assert set(ids(shown)) <= {product_id for product_id, _ in hits} & available
    else:
        known = {one for order in orders for one in order} | {one for one, _ in hits} | set("ABCD")
        assert len(shown) == min(limit, len(known & available))
    assert len(set(ids(shown))) == len(shown)
    for one in shown:
        assert math.isfinite(one.score)
        assert all(reason.share > 0.0 for reason in one.because)
        assert sum(reason.share for reason in one.because) == pytest.approx(1.0)
    assert shown == rank(state, taste, found, TITLES, available, rules, shop)


def test_what_is_like_something_bought_names_that_and_not_the_strongest_interest():
    shop = statistics_of("ABCD", NOW, alike={("C", "D"): 0.5})
    state, taste = a_buyer(("A", "C")), a_taste(SHOES, TENTS, at=NOW)
    (shown,) = rank(state, taste, Found([[], []]), TITLES, {"D"}, RankingRules(5), shop)
    assert [reason.texts for reason in shown.because if reason.kind == "interest"] == [("Tent",)]
