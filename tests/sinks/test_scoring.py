"""The log-odds of a product in somebody's next order: what its features are, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.scoring import (
    BOUGHT_BEFORE,
    DAY_MS,
    NEW_TO_THE_PERSON,
    PRIOR,
    Habit,
    Product,
    Searched,
    bought_features,
    likeness_of,
    new_features,
    together_of,
)


def products(**columns: list[float]) -> Product:
    """Of what isn't said: never clicked or sold, bought by nobody, of no age."""
    one = len(next(iter(columns.values())))
    absent = {name: [math.inf if name == "age_ms" else 0.0] * one for name in Product._fields}
    return Product(**{name: np.array(values) for name, values in (absent | columns).items()})


def habits(**columns: list[float] | int) -> Habit:
    absent: dict[str, list[float] | int] = {
        "times": [1.0],
        "recency": [1.0],
        "orders_since_first": [0.0],
        "since_ms": [0.0],
        "orders": 1,
        "repeats": 0,
        "later_lines": 0,
    }
    return Habit(
        **{name: value if isinstance(value, int) else np.array(value) for name, value in (absent | columns).items()}
    )


def test_there_is_a_weight_for_every_feature():
    assert (len(PRIOR.new), len(PRIOR.bought)) == (len(NEW_TO_THE_PERSON), len(BOUGHT_BEFORE)) == (15, 14)


def test_what_a_history_lends_is_worth_less_the_longer_the_history_is():
    assert together_of(np.array([0.0, 0.03, 0.3]), 1).tolist() == pytest.approx([0.0, math.log(2), math.log(11)])
    assert together_of(np.array([0.06]), 4).tolist() == pytest.approx([math.log(2)])
    assert likeness_of(np.array([0.01, 0.09]), 1).tolist() == pytest.approx([math.log(2), math.log(10)])
    assert likeness_of(np.array([0.03]), 9).tolist() == pytest.approx([math.log(2)])


def test_without_a_history_nothing_is_divided_by_nothing():
    assert together_of(np.array([0.0]), 0).tolist() == likeness_of(np.array([0.0]), 0).tolist() == [0.0]


def test_a_product_that_is_new_to_somebody():
    product = products(
        sold_20=[9.0],
        sold_5=[3.0],
        clicked=[1.0],
        age_ms=[30 * DAY_MS],
        never_sold=[0.0],
        buyers=[6.0],
        repeats=[3.0],
        surprise=[0.875],
    )
    searched = Searched(asked=np.array([0.75]), just_clicked=np.array([0.5]), viewed=np.array([0.375]))
    (row,) = new_features(
        np.array([0.5]), np.array([0.25]), np.array([0.125]), np.array([0.625]), product, searched
    ).tolist()
    assert dict(zip(NEW_TO_THE_PERSON, row, strict=True)) == pytest.approx(
        {
            "together": 0.5,
            "likeness": 0.25,
            "related": 0.125,
            "kin": 0.625,
            "viewed": 0.375,
            "sold_20": math.log(10),
            "sold_5": math.log(4),
            "clicked": math.log(2),
            "asked": 0.75,
            "just_clicked": 0.5,
            "fresh": math.exp(-1),
            "never_sold": 0.0,
            "repeatable": 4.5 / 19.0,  # (3 + 1.5) / (6 + 3 + 10)
            "surprise": 0.875,
            "bias": 1.0,
        }
    )


def test_a_product_of_which_nothing_is_known():
    (row,) = new_features(
        np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), products(never_sold=[1.0]), Searched.nothing(1)
    ).tolist()
    assert row == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.15, 0.0, 1.0])


def test_a_product_that_somebody_bought_before():
    product = products(
        sold_20=[9.0], sold_5=[3.0], clicked=[7.0], age_ms=[0.0], never_sold=[0.0], buyers=[6.0], repeats=[3.0]
    )
    habit = habits(
        times=[3.0],
        recency=[2.0],
        orders_since_first=[4.0],
        since_ms=[60 * DAY_MS],
        orders=7,
        repeats=2,
        later_lines=11,
    )
    (row,) = bought_features(np.array([0.5]), np.array([0.25]), product, habit).tolist()
    assert dict(zip(BOUGHT_BEFORE, row, strict=True)) == pytest.approx(
        {
            "together": 0.5,
            "likeness": 0.25,
            "sold_20": math.log(10),
            "sold_5": math.log(4),
            "fresh": 1.0,
            "repeatable": 4.5 / 19.0,
            "times": math.log(10),
            "recency": math.log(7),
            "share_of_orders": 0.75,
            "since": math.log(3),  # 1 + 60 / 30
            "person": math.log(3.5 / 21.0),
            "orders": math.log(8),
            "lately": math.log(2.5),  # 1 + 3 / 2
            "bias": 1.0,
        }
    )


def test_the_order_that_a_product_first_came_with_is_no_opportunity_to_buy_it_again():
    row = bought_features(np.zeros(1), np.zeros(1), products(never_sold=[0.0]), habits(times=[1.0]))[0]
    assert row[BOUGHT_BEFORE.index("share_of_orders")] == 1.0, "one of at least one"


def test_more_than_400_days_are_as_long_as_400():
    rows = [
        bought_features(np.zeros(1), np.zeros(1), products(never_sold=[0.0]), habits(since_ms=[days * DAY_MS]))[0]
        for days in (400.0, 4000.0)
    ]
    since = BOUGHT_BEFORE.index("since")
    assert rows[0][since] == rows[1][since] == pytest.approx(math.log(1 + 400 / 30))


counts = st.floats(0.0, 1e9)


@given(counts, counts, counts, st.floats(0.0, 1e15), counts, counts, st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_score_is_a_number(together, sold, buyers, since, times, recency, orders, lines):
    product = products(sold_20=[sold], sold_5=[sold], clicked=[sold], age_ms=[since], buyers=[buyers], repeats=[times])
    habit = habits(
        times=[times],
        recency=[recency],
        orders_since_first=[float(orders)],
        since_ms=[since],
        orders=orders,
        repeats=lines,
        later_lines=lines,
    )
    near = together_of(np.array([together]), orders)
    assert np.isfinite(new_features(near, near, near, near, product, Searched(near, near, near)) @ PRIOR.new).all()
    assert np.isfinite(bought_features(near, near, product, habit) @ PRIOR.bought).all()
