"""What readers know across users: near products, popular ones, exposure; as bytes and back."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from across_users import statistics_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sinks.scoring import PRIOR, Weights
from sinks.statistics import (
    NEIGHBOURS,
    NEVER,
    NO_STATISTICS,
    Neighbourhood,
    Statistics,
    decode_statistics,
    encode_statistics,
    shown_in_a_thousand,
    surprise_of,
)

NOW = 1_700_000_000_000
SHOP = statistics_of(
    ["tea", "cup", "pot", "toy"],
    NOW,
    together={("tea", "cup"): 0.5, ("tea", "pot"): 0.25, ("cup", "pot"): 0.125},
    alike={("cup", "pot"): 0.75},
    first_sold={"tea": NOW - 5, "cup": NOW - 3, "pot": NOW},
    buyers={"tea": 3, "cup": 2, "pot": 1},
    repeats={"tea": 4},
    sold_5={"tea": 6.5, "cup": 1.5, "pot": 1},
    sold_20={"tea": 7, "cup": 2, "pot": 1},
    clicked={"toy": 100},
    shown={"tea": 1000, "cup": 1},
)


def test_nearness_to_a_history_is_the_sum_of_what_each_of_its_products_is_near_to():
    assert SHOP.together.around(np.array([0])).tolist() == [0.0, 0.5, 0.25, 0.0]
    assert SHOP.together.around(np.array([0, 1])).tolist() == [0.5, 0.5, 0.375, 0.0]
    assert SHOP.alike.around(np.array([1])).tolist() == [0.0, 0.0, 0.75, 0.0]


def test_nothing_is_near_to_no_history():
    assert SHOP.together.around(np.zeros(0, np.int64)).tolist() == [0.0] * 4
    assert NO_STATISTICS.together.around(np.zeros(0, np.int64)).tolist() == []


def test_what_of_a_history_a_product_is_nearest_to():
    history = np.array([3, 1, 0])
    assert SHOP.together.strongest(history, np.array([2, 0]), 3) == [[2, 1], [1]]
    assert SHOP.together.strongest(history, np.array([2]), 1) == [[2]]
    assert SHOP.together.strongest(history[:1], np.array([0]), 3) == [[]], "the padding's row 0 is nobody's neighbour"


@given(
    arrays.arrays(np.float32, (6, NEIGHBOURS), elements=st.floats(0, 1, width=16)),
    st.lists(st.integers(0, 5), unique=True),
)
def test_what_is_nearest_adds_most_to_the_nearness(similarity, history):
    rows = np.stack([np.random.default_rng(row).permutation(50) for row in range(6)]).astype(np.int32)
    neighbourhood = Neighbourhood(
        np.concatenate([rows, np.zeros((44, NEIGHBOURS), np.int32)]), np.zeros((50, NEIGHBOURS), np.float32)
    )
    neighbourhood.similarity[:6] = similarity
    own = np.array(history, np.int64)
    adds = np.array([neighbourhood.around(own[at : at + 1]) for at in range(len(own))]).reshape(len(own), 50)
    nearest = neighbourhood.strongest(own, np.arange(50), 3)
    for product in range(50):
        expected = sorted((-adds[at, product], at) for at in range(len(own)) if adds[at, product] > 0.0)[:3]
        assert nearest[product] == [at for _, at in expected]


def test_rows_by_product_id():
    assert SHOP.rows_of(["pot", "unheard of", "tea"]).tolist() == [2, -1, 0]
    assert SHOP.rows_of([]).tolist() == []
    assert len(SHOP) == 4


def test_popular_is_what_sells_or_is_clicked_most_now():
    selling = statistics_of(["a", "b", "c", "d"], NOW, sold_5={"b": 1}, sold_20={"b": 1, "d": 3}, clicked={"c": 6})
    # b: ln 2 + ln 2, c: ln 7, d: ln 4: as much as b, and later
    assert selling.popular.tolist() == [2, 1, 3, 0]


def test_no_more_than_200_products_are_popular():
    ids = [f"p{n:03}" for n in range(300)]
    popular = statistics_of(ids, NOW, sold_5={one: float(n) for n, one in enumerate(ids)}).popular
    assert popular.tolist() == list(range(299, 99, -1))


def test_exposure_grows_with_the_logarithm_of_lists():
    assert SHOP.exposure(np.array([0, 1, 2])).tolist() == pytest.approx([6.90875477931522, 0.6931471805599453, 0.0])


def test_showings_are_counted_in_a_thousand_lists():
    assert shown_in_a_thousand(np.array([500.0, 50.0, 0.0]), 5000.0).tolist() == [100.0, 10.0, 0.0]
    assert shown_in_a_thousand(np.array([5.0]), 10.0).tolist() == [5.0], "ten lists say little of a thousand"
    assert shown_in_a_thousand(np.array([0.0]), 0.0).tolist() == [0.0]


def test_a_surprise_is_how_much_more_often_something_is_taken_than_was_foretold():
    taken, foretold = np.array([30.0, 0.0, 0.0, 1.0]), np.array([10.0, 10.0, 0.0, 0.0])
    expected = [math.log(2), -math.log(2), 0.0, math.log(1.1)]
    assert surprise_of(taken, foretold).tolist() == pytest.approx(expected), "one buyer says little"


def same(a: Statistics, b: Statistics) -> None:
    assert (a.as_of, list(a.product_ids)) == (b.as_of, list(b.product_ids))
    for name in (
        "first_sold",
        "announced",
        "buyers",
        "repeats",
        "sold_5",
        "sold_20",
        "clicked",
        "shown",
        "surprise",
        "popular",
    ):
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name
    parts = [(*one.together, *one.alike, *one.related, *one.viewed, *one.kin, *one.weights) for one in (a, b)]
    for ours, theirs in zip(*parts, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_bytes_and_back():
    learned = Weights(PRIOR.new + 0.125, PRIOR.bought * 3.0)
    shop = statistics_of(["tea", "cup"], NOW, together={("tea", "cup"): 0.5}, buyers={"cup": 2}, weights=learned)
    same(decode_statistics(encode_statistics(shop)), shop)
    same(decode_statistics(encode_statistics(SHOP)), SHOP)
    related = statistics_of(["tea", "cup"], NOW, related={("tea", "cup"): 0.5}, announced={"cup": 17})
    same(decode_statistics(encode_statistics(related)), related)
    viewed = statistics_of(
        ["tea", "cup"], NOW, viewed={("tea", "cup"): 0.25}, kin={("tea", "cup"): 0.75}, clicked={"cup": 1}
    )
    same(decode_statistics(encode_statistics(viewed)), viewed)
    assert decode_statistics(encode_statistics(SHOP)).first_sold.tolist()[3] == NEVER


def test_a_shop_of_which_nothing_is_known_survives_as_well():
    same(decode_statistics(encode_statistics(NO_STATISTICS)), NO_STATISTICS)


def test_similarities_are_kept_in_half_precision():
    shop = statistics_of(["a", "b"], NOW, together={("a", "b"): 1 / 3})
    kept = decode_statistics(encode_statistics(shop)).together
    assert kept.rows[:, 0].tolist() == [1, 0]
    assert kept.similarity[:, 0].tolist() == pytest.approx([1 / 3, 1 / 3], rel=5e-4)


def test_a_product_takes_two_thirds_of_a_kilobyte():
    ids = [f"product-{n:04}" for n in range(1000)]
    assert len(encode_statistics(statistics_of(ids, NOW))) / 1000 < 660


@pytest.mark.parametrize(
    "data", [b"", b"not statistics", encode_statistics(SHOP)[:-9], msgspec.msgpack.encode({"format": 1})]
)
def test_what_is_not_readable_is_refused_in_words(data):
    with pytest.raises(ValueError, match="can't be read by this version"):
        decode_statistics(data)


def test_another_format_is_refused_by_its_number():
    wire = msgspec.msgpack.decode(encode_statistics(SHOP))
    with pytest.raises(ValueError, match="are of format 7, and this version reads 6"):
        decode_statistics(msgspec.msgpack.encode([7, *wire[1:]]))


def test_weights_of_other_features_are_refused():
    wire = msgspec.msgpack.decode(encode_statistics(SHOP))
    with pytest.raises(ValueError, match="this version reads 6"):
        decode_statistics(msgspec.msgpack.encode([*wire[:-2], wire[-2][:-8], wire[-1]]))
