"""Events of a sample of users become statistics: counts, similarities, learned weights, and bounds on all of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.derivation import Taste
from sinks.ledgers import Ledger, ProfileState
from sinks.prospects import Found
from sinks.ranking import RankingRules, rank
from sinks.scoring import NEW_TO_THE_PERSON, PRIOR
from sinks.statistics import NEVER, Statistics, decode_statistics, encode_statistics, no_neighbours
from streams.profiles import Contribution, FoldEvent, FoldRules, fold, stable_hash
from streams.statistics.checkpoint import decode_fold, encode_fold
from streams.statistics.fold import Bounds, StatisticsFold

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 86_400_000
START = 1_700_000_000_000
ANN, BEN, CAT = stable_hash("ann"), stable_hash("ben"), stable_hash("cat")
Line = tuple[int, str, int, int]  # user, product, order, time


def folded(lines: Iterable[Line], bounds: Bounds | None = None) -> StatisticsFold:
    folding = StatisticsFold(bounds=bounds)
    for line in lines:
        folding.purchase(*line)
    folding.close_orders()
    return folding


def orders(user: int, *baskets: str, start: int = START, apart: int = DAY) -> list[Line]:
    """A letter a product; an order each `apart`."""
    return [
        (user, product, user % 1000 + number, start + number * apart)
        for number, basket in enumerate(baskets)
        for product in basket
    ]


def in_time(*of_users: list[Line]) -> list[Line]:
    return sorted((line for lines in of_users for line in lines), key=lambda line: line[3])


def column(statistics: Statistics, name: str) -> dict[str, float]:
    return dict(zip(statistics.product_ids, getattr(statistics, name).tolist(), strict=True))


def together(statistics: Statistics) -> dict[tuple[str, str], float]:
    ids, (rows, similarity) = statistics.product_ids, statistics.together
    return {
        (ids[row], ids[other]): worth
        for row in range(len(ids))
        for other, worth in zip(rows[row].tolist(), similarity[row].tolist(), strict=True)
        if worth
    }


def everything(statistics: Statistics) -> list[np.ndarray]:
    return [
        *(getattr(statistics, name) for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown")),
        statistics.together.similarity,
        statistics.alike.similarity,
        statistics.surprise,
        *statistics.weights,
    ]


def test_nothing_yet():
    statistics = StatisticsFold().statistics()
    assert (len(statistics), statistics.as_of) == (0, 0)
    assert statistics.weights.new.tolist() == PRIOR.new.tolist()


def test_one_line_of_one_user():
    folding = folded([(ANN, "A", 1, START)])
    folding.refresh()
    statistics = folding.statistics()
    assert statistics.as_of == START
    assert statistics.product_ids == ("A",)
    assert statistics.first_sold.tolist() == [START]
    assert [column(statistics, name)["A"] for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked")] == [
        1.0,
        0.0,
        1.0,
        1.0,
        0.0,
    ]
    assert together(statistics) == {}


def test_buyers_are_counted_once_and_every_time_after_the_first_is_a_repeat():
    statistics = folded(in_time(orders(ANN, "AB", "AC", "A"), orders(BEN, "B", "BA"))).statistics()
    assert column(statistics, "buyers") == {"A": 2.0, "B": 2.0, "C": 1.0}
    assert column(statistics, "repeats") == {"A": 2.0, "B": 1.0, "C": 0.0}


def test_two_lines_of_one_product_in_one_order_are_one():
    statistics = folded([(ANN, "A", 1, START), (ANN, "A", 1, START), (ANN, "A", 1, START + MINUTE)]).statistics()
    assert (column(statistics, "buyers"), column(statistics, "repeats")) == ({"A": 1.0}, {"A": 0.0})


def test_sales_fade_by_half_lives_of_5_and_20_days():
    folding = folded(orders(ANN, "A"))
    folding.click(7, 1, "A", START)
    folding.click(7, 1, "B", START + 10 * DAY)
    statistics = folding.statistics()
    assert column(statistics, "sold_5")["A"] == pytest.approx(0.25)
    assert column(statistics, "sold_20")["A"] == pytest.approx(2**-0.5)
    assert column(statistics, "clicked") == pytest.approx({"A": 2 ** (-10 / 14), "B": 1.0})
    assert statistics.first_sold.tolist() == [START, NEVER]


def test_an_order_is_complete_half_an_hour_after_it_began_and_not_before():
    folding = StatisticsFold()
    folding.purchase(ANN, "A", 1, START)
    folding.purchase(ANN, "B", 1, START + 29 * MINUTE)
    assert folding.lines == 0
    folding.purchase(BEN, "A", 1, START + 31 * MINUTE)
    assert folding.lines == 2
    assert folding.users[ANN].orders == 1


def test_another_order_of_the_same_user_completes_the_one_before():
    folding = StatisticsFold()
    folding.purchase(ANN, "A", 1, START)
    folding.purchase(ANN, "A", 2, START)
    assert (folding.lines, len(folding.open)) == (1, 1)


def test_an_order_is_kept_together_though_somebodys_clock_is_a_day_ahead():
    folding = StatisticsFold()
    folding.click(7, 1, "A", START + DAY)
    for line in orders(ANN, "ABC"):
        folding.purchase(*line)
    folding.close_orders()
    assert folding.users[ANN].orders == 1
    assert folding.users[ANN].later_lines == 0


def test_what_is_bought_together_is_near():
    folding = folded(in_time(orders(ANN, "AB"), orders(BEN, "A", "B"), orders(CAT, "C")))
    folding.refresh()
    pairs = together(folding.statistics())
    assert set(pairs) == {("A", "B"), ("B", "A")}
    assert pairs["A", "B"] == pairs["B", "A"] > 0.3


def test_statistics_are_refreshed_when_a_tenth_more_has_come_and_at_least_16_lines():
    folding = StatisticsFold()
    for number in range(15):
        folding.purchase(ANN, f"p{number}", 1, START)
    folding.close_orders()
    assert together(folding.statistics()) == {}
    folding.purchase(ANN, "p15", 2, START)
    folding.close_orders()
    assert len(together(folding.statistics())) == 16 * 15


def test_likeness_is_asked_for_what_is_known_and_widened_for_what_came_since():
    asked = []

    def alike(product_ids):
        asked.append(tuple(product_ids))
        found = no_neighbours(len(product_ids))
        found.similarity[:, 0] = 0.5
        return found

    folding = StatisticsFold(alike)
    folding.purchase(ANN, "A", 1, START)
    folding.refresh()
    folding.purchase(ANN, "B", 1, START)
    statistics = folding.statistics()
    assert asked == [("A",)]
    assert statistics.alike.similarity[:, 0].tolist() == [0.5, 0.0]
    assert len(statistics.together.rows) == 2


def test_what_would_be_shown_is_counted():
    folding = folded(in_time(*(orders(n, "AB", "A", apart=4 * DAY) for n in range(1, 6))))
    folding.refresh()
    shown = folding.columns.shown[: len(folding.product_ids)] / folding.columns.lists
    assert folding.columns.lists == pytest.approx(5.0)
    assert shown.tolist() == pytest.approx([1.0, 1.0])


# Bounds


def test_what_people_take_though_little_speaks_for_it_is_a_surprise_and_what_they_leave_the_other_way_round():
    before = [orders(user, "ab") for user in range(20)]  # everything speaks for b, and nothing for c
    after = [orders(1000 + user, "a", "c", start=START + (2 + user) * DAY) for user in range(40)]
    surprise = column(folded(in_time(*before, *after)).statistics(), "surprise")
    assert surprise["c"] > 0.1
    assert surprise["b"] < -0.2
    assert surprise["a"] == pytest.approx(0.0, abs=0.1), "it was new to nobody who came back"


def test_surprises_fade_by_a_half_life_of_30_days():
    folding = folded([])
    folding.know(["a"])
    folding.columns.add("taken", 0, 0, times=30.0)
    assert folding.columns.surprise(slice(1), 0).tolist() == pytest.approx([np.log(4.0)])
    assert folding.columns.surprise(slice(1), 30 * DAY).tolist() == pytest.approx([np.log(2.5)])


def test_beyond_the_bound_of_users_half_of_them_are_the_sample():
    users = [stable_hash(f"user {number}") for number in range(100)]
    folding = folded(((user, "A", 1, START + number) for number, user in enumerate(users)), Bounds(users=30))
    assert folding.halvings == 2
    assert set(folding.users) == {user for user in users if user >> 62 == 0}
    # Nobody who is out comes back, and what the sample buys stands for everybody.
    before = folding.statistics()
    out = next(user for user in users if user >> 62)
    folding.purchase(out, "B", 1, START + 1000)
    assert "B" not in folding.product_ids
    in_ = next(iter(folding.users))
    folding.purchase(in_, "C", 2, START + 1000)
    folding.close_orders()
    statistics = folding.statistics()
    assert column(statistics, "sold_5")["C"] == pytest.approx(4.0, rel=1e-3)
    assert column(statistics, "sold_5")["A"] == pytest.approx(column(before, "sold_5")["A"], rel=1e-3)


def test_orders_in_progress_of_those_who_leave_the_sample_leave_as_well():
    folding = StatisticsFold(bounds=Bounds(users=30))
    users = [stable_hash(f"user {number}") for number in range(31)]
    for user in users:
        folding.purchase(user, "A", 1, START)
    for user in users:
        folding.purchase(user, "A", 2, START + 1)
    folding.close_orders()
    assert folding.halvings == 1
    assert set(folding.users) == {user for user in users if user >> 63 == 0}


def test_orders_in_progress_are_no_more_than_users_are_remembered():
    folding = StatisticsFold(bounds=Bounds(users=50))
    for number in range(1000):
        folding.purchase(stable_hash(f"user {number}"), "A", 1, START)
        assert len(folding.open) <= 51
        assert len(folding.users) <= 50


def test_of_a_user_512_products_are_remembered_and_of_an_order_of_thousands_its_last():
    folding = folded((ANN, f"p{number:04}", 1, START) for number in range(2000))
    assert len(folding.users[ANN].bought) == 512
    assert folding.users[ANN].bought["row"].tolist() == list(range(1488, 2000))
    assert folding.columns.buyers[:2000].tolist() == [1.0] * 2000
    weights, _ = folding.pairs.state()
    assert weights.nnz == 512 * 512


def test_what_was_bought_last_is_remembered():
    lines = [(ANN, f"p{number:04}", number, START + number) for number in range(600)] + [(ANN, "p0000", 600, START)]
    folding = folded(lines)
    # p0000 was forgotten, and is new again.
    assert sorted(folding.users[ANN].bought["row"].tolist()) == [0, *range(89, 600)]
    assert folding.columns.buyers[0] == 2.0


def test_an_order_of_300_products_pairs_them_all():
    folding = folded((ANN, f"p{number:04}", 1, START) for number in range(300))
    folding.refresh()
    found = folding.statistics().together
    assert (found.similarity > 0.0).all()
    assert np.diff(folding.pairs.state()[0].indptr).max() <= 201


def consistent(folding: StatisticsFold) -> None:
    """Rows lead where they should, whoever holds them."""
    products = len(folding.product_ids)
    assert len(set(folding.product_ids)) == products
    assert folding._row_of == {product_id: row for row, product_id in enumerate(folding.product_ids)}
    assert len(folding.columns.buyers) >= products
    assert len(folding.columns.first_sold) == len(folding.columns.buyers)
    for shopper in folding.users.values():
        rows = shopper.bought["row"]
        assert len(np.unique(rows)) == len(rows)
        assert ((rows >= 0) & (rows < products)).all()
    for order in folding.open.values():
        assert all(0 <= row < products for row in order.rows)
    assert len(folding.pairs) <= products
    assert all(len(near.rows) <= products for near in folding._near)


def test_beyond_the_bound_of_products_those_that_sell_are_kept():
    folding = StatisticsFold(bounds=Bounds(products=10))
    for number in range(12):  # p00 once, p01 twice, ...
        for buyer in range(number + 1):
            folding.purchase(buyer, f"p{number:02}", number, START)
    folding.close_orders()
    folding.purchase(99, "in progress", 1, START)
    folding.click(7, 1, "clicked", START)
    folding.refresh()
    assert folding.product_ids == [*(f"p{number:02}" for number in range(4, 12)), "in progress"]
    consistent(folding)
    statistics = folding.statistics()
    assert column(statistics, "buyers") == {
        **{f"p{number:02}": number + 1.0 for number in range(4, 12)},
        "in progress": 0.0,
    }
    bought = {one: folding.users[one].bought["row"].tolist() for one in (0, 11)}
    assert bought == {0: [0, 1, 2, 3, 4, 5, 6, 7], 11: [7]}
    assert together(statistics)["p11", "p10"] == pytest.approx(together(statistics)["p10", "p11"])
    folding.close_orders()
    assert column(folding.statistics(), "buyers")["in progress"] == 1.0


def test_products_are_never_more_than_twice_the_bound_even_if_time_stands_still():
    folding = StatisticsFold(bounds=Bounds(products=10))
    for number in range(100):
        folding.click(7, 1, f"c{number}", START)
        assert len(folding.product_ids) <= 21
        consistent(folding)


def test_an_order_in_progress_of_more_products_than_the_bound_keeps_those_that_are_kept():
    folding = StatisticsFold(bounds=Bounds(products=10))
    for number in range(300):
        folding.purchase(ANN, f"p{number:03}", 1, START)
        consistent(folding)
    folding.close_orders()
    consistent(folding)
    assert folding.columns.buyers.sum() <= 21


# Whatever comes

HASHES = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, *(stable_hash(str(n)) for n in range(6))]
steps = st.sampled_from([0, 0, 1, MINUTE, 31 * MINUTE, DAY, 4 * DAY]) | st.integers(-30 * DAY, 30 * DAY)
years = st.sampled_from([-50, -10, 10, 30]).map(lambda n: n * 365 * DAY)
events = st.lists(
    st.tuples(
        st.sampled_from(HASHES),
        st.sets(st.integers(0, 11), min_size=1, max_size=6),
        st.integers(0, 3),
        steps | steps | steps | years,
        st.booleans(),
    ),
    max_size=40,
)


@given(events, st.sampled_from([Bounds(), Bounds(2, 1000), Bounds(4, 6), Bounds(1, 1)]), st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=150)
def test_whatever_comes_statistics_are_numbers_within_bounds(events, bounds, looks):
    folding, ts = StatisticsFold(bounds=bounds), START
    for number, (user, basket, order, later, clicks) in enumerate(events):
        ts = max(ts + later, 10**11)
        for product in sorted(basket):
            if clicks:
                folding.click(7, 1, f"p{product}", ts)
            else:
                folding.purchase(user, f"p{product}", order, ts)
            assert len(folding.users) <= bounds.users
            assert len(folding.open) <= bounds.users + 1
            assert len(folding.product_ids) <= 2 * bounds.products + 1
            assert all(user >> (64 - folding.halvings) == 0 for user in (*folding.users, *folding.open))
        if number in looks:
            folding.statistics()
            folding = decode_fold(encode_fold(folding), bounds)
            folding.refresh()
        consistent(folding)
    folding.close_orders()
    folding.refresh()
    statistics = folding.statistics()
    consistent(folding)
    assert all(np.isfinite(values).all() for values in everything(statistics))
    assert all((values >= 0.0).all() for values in everything(statistics)[:8])
    assert (statistics.together.similarity < 1.0).all()
    assert np.isfinite(folding.columns.lists)
    decoded = decode_statistics(encode_statistics(statistics))
    assert decoded.product_ids == list(statistics.product_ids)


@given(
    st.permutations(range(8)),
    st.lists(st.sets(st.sampled_from("ABCDEF"), min_size=1), min_size=8, max_size=8),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_the_order_of_different_users_at_one_time_does_not_matter(arrangement, baskets, rounds):
    def statistics(users: Iterable[int]) -> Statistics:
        folding = StatisticsFold()
        for number in range(rounds):
            for user in users:
                for product in sorted(baskets[(user + number) % 8]):
                    folding.purchase(user, product, number, START + number * MINUTE)
        folding.close_orders()
        folding.refresh()
        return folding.statistics()

    ours, theirs = statistics(range(8)), statistics(arrangement)
    for name in ("buyers", "repeats", "first_sold"):
        assert column(ours, name) == column(theirs, name)
    for name in ("sold_5", "sold_20"):
        assert column(ours, name) == pytest.approx(column(theirs, name))
    assert together(ours) == pytest.approx(together(theirs))


@given(st.permutations("ABCDEF"))
@settings(deadline=None, max_examples=30)
def test_the_order_of_an_orders_lines_does_not_matter(lines):
    statistics = [
        folded([*((ANN, product, 1, START) for product in each), (BEN, "A", 1, START)]).statistics()
        for each in ("ABCDEF", lines)
    ]
    assert column(statistics[0], "buyers") == column(statistics[1], "buyers")
    assert together(statistics[0]) == pytest.approx(together(statistics[1]))


def test_an_order_of_long_ago_that_comes_late_teaches_nothing_absurd():
    lines = in_time(*(orders(n, *"ABCAB", apart=4 * DAY) for n in range(1, 6)))
    late = orders(99, *"ABC", start=START - 50 * 365 * DAY)
    folding = folded(lines)
    before = folding.learner.weights.new.copy()
    for line in late:
        folding.purchase(*line)
    folding.close_orders()
    statistics = folding.statistics()
    assert all(np.isfinite(values).all() for values in everything(statistics))
    assert np.abs(statistics.weights.new - before).max() <= 2 * 0.15
    assert column(statistics, "sold_20")["A"] == pytest.approx(column(folded(lines).statistics(), "sold_20")["A"])


@given(st.integers(0, 30))
@settings(deadline=None, max_examples=15)
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been(cut):
    lines = in_time(*(orders(stable_hash(str(n)), "AB", "AC", "BD", "ACE", apart=9 * DAY) for n in range(4)))
    unbroken, begun = StatisticsFold(), StatisticsFold()
    for line in lines:
        unbroken.purchase(*line)
    for line in lines[:cut]:
        begun.purchase(*line)
    going_on = decode_fold(encode_fold(begun), Bounds())
    assert going_on is not None
    assert going_on.open == begun.open
    going_on.refresh()
    for line in lines[cut:]:
        going_on.purchase(*line)
    for folding in (unbroken, going_on):
        folding.close_orders()
        folding.refresh()
        consistent(folding)
    ours, theirs = going_on.statistics(), unbroken.statistics()
    assert (ours.product_ids, ours.as_of) == (theirs.product_ids, theirs.as_of)
    for name in ("buyers", "repeats", "first_sold", "sold_5", "sold_20"):
        assert column(ours, name) == pytest.approx(column(theirs, name), rel=1e-5), name
    assert together(ours) == pytest.approx(together(theirs), rel=1e-5)


# Weights follow the shop

SHOP = [f"p{number:02}" for number in range(60)]


def learned(baskets: dict[int, list[list[str]]]) -> StatisticsFold:
    """Everybody orders each 5 days, not all on the same day."""
    lines = [
        (user, product, number, START + number * 5 * DAY + user * 60 * MINUTE)
        for user, orders in baskets.items()
        for number, basket in enumerate(orders)
        for product in basket
    ]
    return folded(sorted(lines, key=lambda line: line[3]))


def list_of(folding: StatisticsFold, baskets: list[list[str]], at: int, limit: int) -> list[str]:
    ledger = Ledger()
    rules = FoldRules(30.0 * DAY, 3_600_000.0, history=256, event_id_memory=0, pending=8)
    for number, basket in enumerate(baskets):
        contributions = tuple(Contribution(f"p{product}", 4.0, np.eye(2, dtype=np.float32)[0]) for product in basket)
        fold(ledger, "purchases", 0, [FoldEvent(number, START + number * 5 * DAY, number, 0, contributions)], rules)
    state, taste = ProfileState(Ledger(), ledger), Taste(at, None, None, ())
    shown = rank(state, taste, Found([]), {}, set(SHOP), RankingRules(limit), folding.statistics())
    return [one.product_id for one in shown]


def test_a_shop_where_nobody_buys_a_thing_twice_recommends_nothing_that_was_bought():
    chance = np.random.default_rng(3)
    baskets = {}
    for user in range(1, 61):
        bought = chance.permutation(SHOP)[:24].tolist()
        baskets[user] = [bought[start : start + 3] for start in range(0, 24, 3)]
    folding = learned(baskets)
    baskets[61] = [SHOP[:3]]  # whose own habits nobody can know yet
    for user in (1, 30, 60, 61):
        bought = {product for basket in baskets[user] for product in basket}
        shown = list_of(folding, baskets[user], START + 45 * DAY, 20)
        assert len(shown) == 20
        assert not bought & set(shown)


def test_a_shop_where_everybody_buys_the_same_again_recommends_that_first():
    chance = np.random.default_rng(3)
    baskets = {user: [chance.choice(SHOP, 3, replace=False).tolist()] * 8 for user in range(1, 61)}
    folding = learned(baskets)
    baskets[61] = [SHOP[:3]]
    for user in (1, 30, 60, 61):
        assert set(list_of(folding, baskets[user], START + 45 * DAY, 3)) == set(baskets[user][0])


def test_a_shop_whose_customers_change_their_ways_is_followed():
    chance = np.random.default_rng(3)
    baskets = {user: [chance.choice(SHOP, 3, replace=False).tolist()] * 6 for user in range(1, 61)}
    for user in baskets:
        later = [one for one in chance.permutation(SHOP).tolist() if one not in baskets[user][0]]
        baskets[user] += [later[start : start + 3] for start in range(0, 45, 3)]
    folding = learned(baskets)
    bought = {product for basket in baskets[1] for product in basket}
    shown = list_of(folding, baskets[1], START + 110 * DAY, 12)
    assert not bought & set(shown)


def test_weights_need_somebody_who_comes_back_another_day():
    at_once = folded(in_time(*(orders(n, "AB", "CD", "EF", apart=60 * MINUTE) for n in range(1, 30))))
    assert at_once.statistics().weights.bought.tolist() == PRIOR.bought.tolist()
    another_day = folded(in_time(*(orders(n, "AB", "CD", "EF", apart=4 * DAY) for n in range(1, 30))))
    assert another_day.statistics().weights.bought.tolist() != PRIOR.bought.tolist()


def test_the_same_events_make_the_same_statistics():
    lines = in_time(*(orders(n, "AB", "AC", "AD", "BC", apart=2 * DAY) for n in range(1, 20)))
    assert encode_statistics(folded(lines).statistics()) == encode_statistics(folded(lines).statistics())


JUST_CLICKED = NEW_TO_THE_PERSON.index("just_clicked")


def a_shop_of_searchers(again: bool) -> StatisticsFold:
    """People who search twice; `again`: who click what they clicked before."""
    folding = StatisticsFold(lambda product_ids: no_neighbours(len(product_ids)))
    for user in range(1, 200):
        first, second = (f"p{user % 5}", f"p{(user + 1) % 5}")
        folding.click(user, 77, first, START + user * HOUR)
        folding.click(user, 77, first if again else second, START + user * HOUR + MINUTE)
    return folding


def test_where_nobody_buys_clicks_teach_what_is_clicked_next():
    never, always = a_shop_of_searchers(again=False).learner, a_shop_of_searchers(again=True).learner
    assert never.weights.new[JUST_CLICKED] < -1.0
    assert always.weights.new[JUST_CLICKED] > 1.0


def test_where_people_buy_only_orders_teach():
    folding = folded(orders(ANN, "A", "B"))
    before = folding.learner.weights.new.copy()
    for n in range(20):
        folding.click(BEN, 5, "AB"[n % 2], START + 30 * DAY + n * HOUR)
    assert folding.learner.weights.new.tolist() == before.tolist()


def test_clicks_by_query_are_among_the_statistics():
    folding = StatisticsFold()
    for product_id in ("A", "B", "B"):
        folding.click(ANN, 5, product_id, START)
    products, clicks = folding.statistics().clicks.of(5)
    assert (products.tolist(), clicks.tolist()) == ([1, 0], [2.0, 1.0])


def viewed(folding: StatisticsFold) -> set[tuple[str, str]]:
    folding.refresh()
    statistics = folding.statistics()
    ids, (rows, similarity) = statistics.product_ids, statistics.viewed
    return {(ids[row], ids[rows[row, place]]) for row, place in zip(*np.nonzero(similarity), strict=True)}


def test_what_somebody_clicks_within_an_hour_is_of_one_visit():
    folding = StatisticsFold()
    for minute, product_id in ((0, "A"), (59, "B"), (90, "C"), (90, "C"), (300, "D")):
        folding.click(ANN, 5, product_id, START + minute * MINUTE)
    folding.click(BEN, 5, "E", START + 300 * MINUTE)
    assert viewed(folding) == {("A", "B"), ("B", "A"), ("B", "C"), ("C", "B")}


def test_where_one_click_tells_the_next_that_is_learned():
    folding = StatisticsFold(lambda product_ids: no_neighbours(len(product_ids)))
    chance = np.random.default_rng(1)
    for user in range(300):
        pair = int(chance.integers(0, 20))
        for side in "ab":
            folding.click(user, 77, f"{pair}{side}", START + user * HOUR + (side == "b") * MINUTE)
        if user % 50 == 0:
            folding.statistics()
    weights = dict(zip(NEW_TO_THE_PERSON, folding.learner.weights.new, strict=True))
    assert weights["viewed"] > 1.0
    assert ("7a", "7b") in viewed(folding)
