"""Metrics of lists, by hand and within their bounds; means over tasks with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.evaluation.bootstrap import Bootstrap, Interval
from streams.evaluation.metrics import ndcg, precision, recall, reciprocal_rank

LIST = ["tent", "boots", "lamp", "mug"]


def test_recall_is_of_what_a_list_of_that_length_could_hold() -> None:
    assert recall(LIST, {"boots", "mug", "kite"}, 4) == 2 / 3
    assert recall(LIST, {"boots", "mug", "kite"}, 2) == 1 / 2
    assert recall(LIST, {"boots"}, 1) == 0.0


def test_precision_is_of_the_length_asked_for_however_short_the_list() -> None:
    assert precision(LIST, {"boots", "mug"}, 4) == 2 / 4
    assert precision(LIST, {"boots", "mug"}, 20) == 2 / 20


def test_the_reciprocal_rank_is_of_the_first_hit_alone() -> None:
    assert reciprocal_rank(LIST, {"lamp", "mug"}, 4) == 1 / 3
    assert reciprocal_rank(LIST, {"lamp", "mug"}, 2) == 0.0


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    assert ndcg(LIST, {"tent", "boots"}, 4) == 1.0
    assert ndcg(LIST, {"boots"}, 4) == 1 / math.log2(3)
    assert ndcg(LIST, {"boots", "lamp", "kite"}, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


products = st.sampled_from("abcdefgh")


@given(items=st.lists(products, unique=True), wanted=st.frozensets(products, min_size=1), k=st.integers(1, 10))
def test_every_metric_is_between_none_and_all_and_agrees_on_which_is_which(
    items: list[str], wanted: frozenset[str], k: int
) -> None:
    values = [metric(items, wanted, k) for metric in (recall, precision, reciprocal_rank, ndcg)]
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in values)
    hit = not wanted.isdisjoint(items[:k])
    assert all((value > 0.0) == hit for value in values)
    best = [*sorted(wanted), *(item for item in items if item not in wanted)]
    for metric, value in zip((recall, precision, reciprocal_rank, ndcg), values, strict=True):
        assert metric(best, wanted, k) >= value - 1e-12
    assert recall(best, wanted, k) == reciprocal_rank(best, wanted, k) == 1.0
    assert ndcg(best, wanted, k) == pytest.approx(1.0)


def test_where_everyone_is_alike_the_mean_is_certain() -> None:
    assert Bootstrap(["ada", "bob", "ada"], seed=1).mean(np.array([0.5, 0.5, 0.5])) == Interval(0.5, 0.5, 0.5)


def test_tasks_without_a_value_count_nowhere() -> None:
    nan = math.nan
    assert Bootstrap(["ada", "bob"], seed=1).mean(np.array([nan, 0.5])) == Interval(0.5, 0.5, 0.5)
    assert Bootstrap(["ada", "bob"], seed=1).mean(np.array([nan, nan])) is None


def test_the_interval_is_that_of_the_mean_and_the_same_for_the_same_seed() -> None:
    chance = np.random.default_rng(7)
    values = chance.normal(0.3, 0.2, 400)
    users = [f"u{n}" for n in range(400)]
    found = Bootstrap(users, seed=1).mean(values)
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    deviation = values.std() / math.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    assert Bootstrap(users, seed=1).mean(values) == found
    assert Bootstrap(users, seed=2).mean(values) != found


def test_many_tasks_of_one_user_are_no_surer_than_one() -> None:
    per_user = np.random.default_rng(7).normal(0.3, 0.2, 100)
    once = Bootstrap([f"u{n:03}" for n in range(100)], seed=1).mean(per_user)
    often = Bootstrap([f"u{n // 5:03}" for n in range(500)], seed=1).mean(np.repeat(per_user, 5))
    assert once is not None
    assert often is not None
    assert often.low == pytest.approx(once.low)
    assert often.high == pytest.approx(once.high)
