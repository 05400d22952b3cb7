"""Clicks after queries, across users."""

import numpy as np
import pytest

from sinks.clicks import CLICK_HALF_LIFE_MS, CLICKED_PRODUCTS, ClickTable
from streams.statistics.searching import Click, Clicks, Searchers

START = 1_700_000_000_000
HALF_LIFE = int(CLICK_HALF_LIFE_MS)


def clicked(*clicks: tuple[int, int, int], queries: int = 100) -> Clicks:
    """Of query, product, and time after the start."""
    made = Clicks(queries)
    for query, product, after in clicks:
        made.add(query, product, START + after)
    return made


def listed(table: ClickTable, query: int) -> dict[int, float]:
    products, counts = table.of(query)
    return dict(zip(products.tolist(), counts.tolist(), strict=True))


def test_a_click_counts_half_after_its_half_life() -> None:
    clicks = clicked((1, 5, 0), (1, 6, HALF_LIFE), (1, 6, HALF_LIFE))
    assert listed(clicks.table(START + HALF_LIFE), 1) == {6: 2.0, 5: 0.5}
    assert listed(clicks.table(START + 2 * HALF_LIFE), 1) == {6: 1.0, 5: 0.25}


def test_a_table_made_again_holds_what_has_come_since() -> None:
    clicks = clicked((9, 1, 0))
    assert listed(clicks.table(START), 9) == {1: 1.0}
    clicks.add(2, 4, START)
    clicks.add(9, 3, START)
    clicks.add(9, 3, START)
    again = clicks.table(START)
    assert again.queries.tolist() == [2, 9]
    assert (listed(again, 2), listed(again, 9)) == ({4: 1.0}, {3: 2.0, 1: 1.0})


def test_a_query_lists_the_ten_products_clicked_most_and_a_new_one_can_become_one_of_them() -> None:
    clicks = clicked(*((1, product, 0) for product in range(60) for _ in range(1 + product // 6)))
    clicks.table(START)
    for _ in range(11):
        clicks.add(1, 99, START)
    best = listed(clicks.table(START), 1)
    assert len(best) == CLICKED_PRODUCTS
    assert best[99] == 11.0


def test_beyond_the_bound_the_queries_clicked_after_least_are_forgotten() -> None:
    clicks = clicked(*((query, 0, 0) for query in (3, 2, 1, 0) for _ in range(1 + query)), queries=3)
    assert clicks.table(START).queries.tolist() == [1, 2, 3]
    for query in range(10, 1_000):
        clicks.add(query, 0, START)
    assert len(clicks.weights) == 3
    assert {2, 3} <= clicks.weights.keys()


def test_shares_are_of_all_clicks_and_of_some_that_nobody_made() -> None:
    clicks = clicked((1, 5, 0), (1, 6, 0))
    assert clicks.shares(1, START, sure=2.0) == {5: 0.25, 6: 0.25}
    assert clicks.shares(1, START + HALF_LIFE, sure=3.0) == {5: pytest.approx(0.125), 6: pytest.approx(0.125)}
    assert clicks.shares(2, START, sure=2.0) == {}


def test_products_that_are_forgotten_leave_the_table() -> None:
    clicks = clicked((1, 0, 0), (1, 2, 0), (3, 1, 0))
    clicks.table(START)
    clicks.reordered(np.array([-1, -1, 0]))
    table = clicks.table(START)
    assert (table.queries.tolist(), listed(table, 1)) == ([1], {0: 1.0})


def test_a_searcher_is_remembered_by_the_latest_clicks_and_forgotten_after_those_who_click() -> None:
    searchers = Searchers(2)
    for number in range(10):
        searchers.add(1, Click(START + number, number, number))
    assert [click.query for click in searchers.clicks(1)] == [2, 3, 4, 5, 6, 7, 8, 9]
    searchers.add(2, Click(START, 0, 0))
    searchers.add(1, Click(START, 0, 0))
    searchers.add(3, Click(START, 0, 0))
    assert [*searchers.all()] == [1, 3]
    searchers.reordered(np.array([-1, *range(9)]))
    assert [*searchers.all()] == [1]
