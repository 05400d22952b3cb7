"""What is bought together, against the formula written down in the plainest way."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.statistics import NEIGHBOURS, Neighbourhood
from streams.statistics import pairs as pairs_module
from streams.statistics.pairs import Pairs

DAY = 86_400_000
START = 1_700_000_000_000
QUARTER = 90 * DAY


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def near(found: Neighbourhood, row: int) -> dict[int, float]:
    """Those of one product, by similarity."""
    pairs = zip(found.rows[row].tolist(), found.similarity[row].tolist(), strict=True)
    return {other: similarity for other, similarity in pairs if similarity > 0.0}


def test_two_products_of_one_basket():
    pairs = Pairs(as_of=START)
    pairs.add(rows(0, 1), rows(), START)
    # G is 1/2 for each of the four pairs: 1/2 / (1/2 + .3)
    found = pairs.neighbours(3, START)
    assert near(found, 0) == {1: pytest.approx(0.625)}
    assert near(found, 1) == {0: pytest.approx(0.625)}
    assert near(found, 2) == {}


def test_a_later_purchase_is_paired_with_the_whole_history():
    pairs = Pairs(as_of=START)
    pairs.add(rows(0), rows(), START)
    pairs.add(rows(2), rows(0), START)
    found = pairs.neighbours(3, START)
    similarity = 0.5 / (math.sqrt(1.0 * 0.5) + 0.3)
    assert near(found, 0) == {2: pytest.approx(similarity)}
    assert near(found, 2) == {0: pytest.approx(similarity)}


def test_who_bought_much_says_little_of_each_pair():
    short, long = Pairs(as_of=START), Pairs(as_of=START)
    short.add(rows(1), rows(0), START)
    long.add(rows(1), rows(0, 2, 3, 4, 5, 6, 7, 8), START)
    assert short.state()[0][0, 1] == pytest.approx(1 / 2)
    assert long.state()[0][0, 1] == pytest.approx(1 / 9)


def test_after_90_days_a_pair_weighs_half():
    pairs = Pairs(as_of=START)
    pairs.add(rows(0, 1), rows(), START)
    assert near(pairs.neighbours(2, START + QUARTER), 0) == {1: pytest.approx(0.25 / 0.55)}
    assert near(pairs.neighbours(2, START + 2 * QUARTER), 0) == {1: pytest.approx(0.125 / 0.425)}


def test_what_comes_late_weighs_what_it_would_weigh_by_now():
    pairs = Pairs(as_of=START)
    pairs.neighbours(2, START + QUARTER)
    pairs.add(rows(0, 1), rows(), START)
    assert near(pairs.neighbours(2, START + QUARTER), 0) == {1: pytest.approx(0.25 / 0.55)}


def test_a_similarity_stays_below_1_when_what_was_bought_first_has_faded():
    pairs = Pairs(as_of=START)
    for _ in range(100):
        pairs.add(rows(2), rows(), START)
    pairs.neighbours(4, START + 40 * QUARTER)
    for _ in range(100):
        pairs.add(rows(3), rows(2), START + 40 * QUARTER)
    pairs.add(rows(1), rows(0), START + 40 * QUARTER)
    found = pairs.neighbours(4, START + 40 * QUARTER)
    # G_23 = 50, and √(G_22 G_33) less than a thousandth: by the formula, some fifty.
    assert near(found, 2) == {3: pytest.approx(0.999)}
    assert near(found, 3) == {2: pytest.approx(0.999)}
    assert near(found, 1) == {0: pytest.approx(0.999)}, "nobody bought product 0 for the first time"


def test_only_the_nearest_50_are_neighbours_and_four_times_as_many_pairs_are_remembered():
    pairs = Pairs(as_of=START)
    for _ in range(1500):
        pairs.add(rows(0), rows(), START)
    for other in range(1, 301):
        for _ in range(1 + other % 7):
            pairs.add(rows(other), rows(0), START)
    found = pairs.neighbours(301, START)
    assert len(near(found, 0)) == NEIGHBOURS == 50
    # G is ½ for each time, of both: most often 7 times, then 6
    assert {other % 7 for other in near(found, 0)} == {6, 5}
    weights, _ = pairs.state()
    assert np.diff(weights.indptr).max() <= 201


def test_what_a_product_is_to_itself_is_never_forgotten():
    pairs = Pairs(as_of=START)
    pairs.add(np.arange(400), rows(), START)
    for _ in range(3):
        pairs.neighbours(400, START + QUARTER)
    weights, _ = pairs.state()
    assert weights.diagonal().tolist() == pytest.approx([0.5 / 400] * 400)
    assert np.diff(weights.indptr).tolist() == [201] * 400


def test_products_that_are_forgotten_leave_the_others_as_they_were():
    pairs = Pairs(as_of=START)
    pairs.add(rows(0, 1, 2), rows(), START)
    pairs.add(rows(3), rows(2), START)
    pairs.reordered(rows(3, 2))
    assert pairs.state()[0].toarray() == pytest.approx(np.array([[0.5, 0.5], [0.5, 1 / 3]]))
    pairs.add(rows(2), rows(0, 1), START)
    assert len(pairs) == 3


def test_it_goes_on_from_its_state():
    one, other = Pairs(as_of=START), Pairs(as_of=START)
    for pairs in (one, other):
        pairs.add(rows(0, 1), rows(), START)
        pairs.neighbours(2, START + 7 * DAY)
    other = Pairs(*other.state())
    for pairs in (one, other):
        pairs.add(rows(2), rows(0, 1), START + 8 * DAY)
    ours, theirs = (pairs.neighbours(3, START + 9 * DAY) for pairs in (one, other))
    assert (ours.rows == theirs.rows).all()
    assert (ours.similarity == theirs.similarity).all()


def test_nothing_yet():
    pairs = Pairs(as_of=START)
    assert pairs.neighbours(0, START).rows.shape == (0, NEIGHBOURS)
    assert near(pairs.neighbours(1, START), 0) == {}
    assert len(pairs) == 1


baskets = st.sets(st.integers(0, 7), min_size=1, max_size=5)
orders = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60 * DAY), baskets), max_size=25)


@given(orders, st.sets(st.integers(0, 24)))
def test_it_is_the_formula_whenever_it_is_refreshed(orders, refreshed):
    pairs, now = Pairs(as_of=START), START
    histories: dict[int, list[int]] = defaultdict(list)
    logged: list[tuple[int, int, int, int]] = []  # (time, product, product, size of the history)
    for number, (user, later, basket) in enumerate(orders):
        now += later
        history = histories[user]
        new = sorted(basket - set(history))
        if new:
            pairs.add(rows(*new), rows(*history), now)
        history += new
        for i in new:
            for j in history:
                logged.append((now, i, j, len(history)))
                if j not in new:
                    logged.append((now, j, i, len(history)))
        if number in refreshed:
            pairs.neighbours(8, now)

    weights: dict[tuple[int, int], float] = defaultdict(float)
    for at, i, j, size in logged:
        weights[i, j] += 2.0 ** ((at - now) / QUARTER) / size
    found = pairs.neighbours(8, now)
    for i in range(8):
        expected = {
            j: pytest.approx(min(g / (math.sqrt(weights[i, i] * weights[j, j]) + 0.3), 0.999), rel=1e-5)
            for (one, j), g in list(weights.items())
            if one == i and j != i
        }
        assert near(found, i) == expected
    assert (found.similarity >= 0.0).all()
    assert (found.similarity < 1.0).all()


def test_however_many_rows_are_looked_at_at_once(monkeypatch):
    def found(at_once: int) -> tuple[Neighbourhood, np.ndarray]:
        monkeypatch.setattr(pairs_module, "_ROWS_AT_ONCE", at_once)
        pairs, chance = Pairs(as_of=START), np.random.default_rng(5)
        for _ in range(40):
            basket = chance.permutation(23)[:9]
            pairs.add(basket[:4], basket[4:], START)
        return pairs.neighbours(25, START), pairs.state()[0].toarray()

    (ours, weights), (theirs, other_weights) = found(512), found(4)
    assert (ours.rows == theirs.rows).all()
    assert (ours.similarity == theirs.similarity).all()
    assert (weights == other_weights).all()
    assert (ours.similarity > 0.0).sum() > 100
