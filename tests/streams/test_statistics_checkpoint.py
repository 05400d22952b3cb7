"""A fold goes on from its bytes as if it had never stopped."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from sinks.statistics import Neighbourhood, Statistics, no_neighbours
from streams.statistics.checkpoint import decode_fold, encode_fold
from streams.statistics.fold import Bounds, StatisticsFold

DAY = 86_400_000
BOUNDS = Bounds()


def alike(product_ids: Sequence[str]) -> Neighbourhood:
    """Each product is like the one before it."""
    found = no_neighbours(len(product_ids))
    found.rows[1:, 0] = np.arange(len(product_ids) - 1)
    found.similarity[1:, 0] = 0.5
    return found


def shop(fold: StatisticsFold, days: range) -> StatisticsFold:
    """Forty people come every few days for two or three of thirty products; now and then one is clicked."""
    for day in days:
        for user in range(day % 4, 40, 4):
            for line in range(2 + user % 2):
                product = (user * 7 + day * line * 3) % 30
                fold.purchase(user << 32, f"p{product}", day, day * DAY + user * 60_000)
        fold.click(1 + day % 7, 100 + day % 5, f"p{day % 30}", day * DAY + 3_000_000)
    return fold


def restored(fold: StatisticsFold) -> StatisticsFold:
    decoded = decode_fold(encode_fold(fold), BOUNDS)
    assert decoded is not None
    decoded.likeness = fold.likeness
    decoded.refresh()
    return decoded


def assert_same(one: Statistics, other: Statistics) -> None:
    assert (one.as_of, list(one.product_ids)) == (other.as_of, list(other.product_ids))
    assert one.first_sold.tolist() == other.first_sold.tolist()
    for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, err_msg=name)
    for name in ("together", "alike"):
        nearest = [getattr(each, name).around(np.arange(len(each))) for each in (one, other)]
        np.testing.assert_allclose(*nearest, rtol=1e-5, err_msg=name)
    for learned in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(*learned)


def test_what_is_known_is_the_same() -> None:
    fold = shop(StatisticsFold(alike), range(1, 60))
    fold.refresh()
    again = restored(fold)
    assert_same(again.statistics(), fold.statistics())
    assert again.statistics().together.similarity.any()
    assert again.statistics().alike.similarity.any()


def test_orders_that_are_not_complete_yet_are_kept() -> None:
    fold = shop(StatisticsFold(), range(1, 10))
    fold.purchase(1 << 32, "tent", 99, 10 * DAY)
    again = restored(fold)
    assert again.open == fold.open
    for one in (fold, again):
        one.purchase(1 << 32, "mug", 99, 10 * DAY + 5)
        one.close_orders()
        assert one.users[1 << 32].orders == 4  # of days 1, 5 and 9, and the one that was open
    assert again.users[1 << 32].bought.tolist() == fold.users[1 << 32].bought.tolist()


def test_it_counts_on_as_if_it_had_not_stopped() -> None:
    calm = shop(StatisticsFold(alike), range(1, 60))
    stopped = shop(restored(shop(StatisticsFold(alike), range(1, 30))), range(30, 60))
    for fold in (calm, stopped):
        fold.close_orders()
        fold.refresh()
    one, other = calm.statistics(), stopped.statistics()
    assert list(one.product_ids) == list(other.product_ids)
    for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(one.together.similarity, other.together.similarity, rtol=1e-4, atol=1e-6)
    assert calm.users.keys() == stopped.users.keys()


def test_a_sample_that_was_halved_stays_halved() -> None:
    fold = StatisticsFold(bounds=Bounds(users=10))
    for user in range(64):
        fold.purchase(user << 58, "tent", 1, DAY)
        fold.purchase(0, "tent", user, DAY * (2 + user))
    fold.close_orders()
    again = restored(fold)
    assert again.halvings == fold.halvings > 0
    assert again.users.keys() == fold.users.keys()


def test_a_fold_of_nothing_can_be_kept() -> None:
    again = restored(StatisticsFold())
    assert len(again.statistics()) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not msgpack",
        msgspec.msgpack.encode([99]),
        msgspec.msgpack.encode([1, *msgspec.msgpack.decode(encode_fold(shop(StatisticsFold(), range(1, 5))))[1:]]),
    ],
    ids=["nothing", "noise", "another shape", "an earlier format"],
)
def test_what_another_version_wrote_is_not_understood(data: bytes) -> None:
    assert decode_fold(data, BOUNDS) is None
