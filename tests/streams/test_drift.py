"""Drift: what tells that a shop has moved away from what its model knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from encoders.testing import WordHashEncoder
from streams.evaluation.bootstrap import Interval
from streams.evaluation.files import Shop
from streams.evaluation.texts import EncodedShop, encode_shop
from streams.events import Product, Purchase, Search
from streams.rollout.drift import Drift, Recall, Windows, bad_matches, drift, in_words, reasons, unseen_words
from streams.rollout.judgement import cut_of, moments, tells_anything
from streams.settings import Retraining, load

SINCE = 1_600_000_000_000
HOUR_MS = 3_600_000
TITLES = {"tent": "two-person tent", "boots": "walking boots", "mug": "blue mug", "kite": "red kite"}
PRODUCTS = [Product(product_id=product_id, title=title) for product_id, title in TITLES.items()]


def searched(hours: int, query: str, clicked: str | None = None, user: str = "ada") -> Search:
    return Search(user_id=user, query=query, ts=SINCE + hours * HOUR_MS, clicked_product_id=clicked)


def bought(hours: int, product: str) -> Purchase:
    return Purchase(user_id="bob", product_id=product, quantity=1, ts=SINCE + hours * HOUR_MS)


def encoded(shop: Shop) -> EncodedShop:
    return asyncio.run(encode_shop(shop, WordHashEncoder()))


def test_words_count_that_nobody_had_said_or_bought_before() -> None:
    shop = Shop(PRODUCTS, [bought(-2, "mug"), bought(1, "mug"), bought(2, "kite")], [searched(-1, "tents")])
    # Since: blue, mug, red, kite; before: blue, mug, tent.
    assert unseen_words(shop, SINCE) == 2 / 4
    assert unseen_words(shop._replace(searches=[*shop.searches, searched(3, "a tent")]), SINCE) == 3 / 6
    assert unseen_words(shop, SINCE + 10 * HOUR_MS) is None, "nothing has been said since"


def test_queries_match_badly_that_are_farther_from_every_product_than_the_worst_tenth_were() -> None:
    known = [searched(-n - 1, "red kite") for n in range(45)] + [searched(-n - 1, "kite deluxe") for n in range(5)]
    as_before = [searched(n, "red kite") for n in range(60)]
    strange = [searched(n, "gift voucher online") for n in range(30)] + [searched(n, "red kite") for n in range(30)]
    for now, share in ((as_before, 0.0), (strange, 0.5)):
        shop = Shop(PRODUCTS, [], [*known, *now])
        assert bad_matches(shop, encoded(shop), SINCE) == share
    few = Shop(PRODUCTS, [], [*known, *strange[:10]])
    assert bad_matches(few, encoded(few), SINCE) is None


def test_what_goes_on_as_before_is_no_drift() -> None:
    ids = [*TITLES]
    searches = [searched(n, TITLES[ids[n % 4]], ids[n % 4], f"user-{n % 40}") for n in range(160)]
    shop = Shop(PRODUCTS, [], searches)
    windows = Windows(before=SINCE + 80 * HOUR_MS, now=SINCE + 120 * HOUR_MS)
    found = asyncio.run(drift(shop, encoded(shop), SINCE + 40 * HOUR_MS, windows, load(environment={})))
    assert (found.learned_until, found.events) == (SINCE + 40 * HOUR_MS, 120)
    assert (found.unseen_words, found.bad_matches) == (0.0, None)
    assert {one.kind: (one.before.mean, one.now.mean) for one in found.recall} == {
        "next_click": (1.0, 1.0),
        "query": (1.0, 1.0),
    }
    assert reasons(found, Retraining()) == []


def recall(before: float, now: float, high: float) -> Recall:
    return Recall("next_order", Interval(before, before - 0.02, before + 0.02), Interval(now, 2 * now - high, high))


def test_each_kind_of_drift_is_a_reason_beyond_its_limit() -> None:
    none = Drift(learned_until=SINCE, events=1000, unseen_words=0.04, bad_matches=0.1, recall=[recall(0.5, 0.47, 0.49)])
    assert reasons(none, Retraining()) == []
    much = Drift(learned_until=SINCE, events=1000, unseen_words=0.06, bad_matches=0.3, recall=[recall(0.5, 0.4, 0.45)])
    assert reasons(much, Retraining()) == [
        "6.0% of words are new to the model (from 5% on)",
        "30.0% of queries match badly (from 20% on)",
        "Next order: recall@20 fell from 0.500 to 0.400 (-20%; from 10% on)",
    ]
    assert reasons(much, Retraining(unseen_words=0.1, bad_matches=0.5, recall_loss=0.3)) == []
    by_chance = Drift(
        learned_until=SINCE, events=9, unseen_words=None, bad_matches=None, recall=[recall(0.5, 0.4, 0.6)]
    )
    assert reasons(by_chance, Retraining()) == []


def test_a_model_that_has_learned_nothing_of_the_shop_is_always_a_reason() -> None:
    found = Drift(learned_until=None, events=1000, unseen_words=None, bad_matches=None, recall=[])
    assert reasons(found, Retraining()) == ["the model in service has learned nothing of this shop yet"]


@pytest.mark.parametrize(
    ("shop", "told"),
    [
        (Shop(PRODUCTS, [], [searched(1, "tent")]), False),
        (Shop(PRODUCTS, [], [searched(1, "tent", "tent")]), True),
        (Shop(PRODUCTS, [bought(1, "tent")], []), True),
        (Shop([], [bought(1, "tent")], []), False),
    ],
)
def test_something_has_to_have_happened(shop: Shop, told: bool) -> None:
    assert tells_anything(shop) is told


def hours_of(times: Sequence[int]) -> list[int]:
    return [(ts - SINCE) // HOUR_MS for ts in times]


def test_the_newest_fifth_of_what_was_clicked_and_ordered_is_predicted() -> None:
    shop = Shop(PRODUCTS, [bought(5, "mug"), bought(1, "mug")], [searched(n, "tent", "tent") for n in (2, 3, 4)])
    assert hours_of(moments(shop)) == [1, 2, 3, 4, 5]
    assert hours_of([cut_of(shop)]) == [5]
    assert hours_of([cut_of(shop, share=0.6)]) == [3]
    assert hours_of([cut_of(shop, share=0.6, at_most=2)]) == [4]


def test_all_three_that_are_watched_are_told_as_far_as_they_are_known() -> None:
    all_three = Drift(
        learned_until=SINCE, events=1000, unseen_words=0.04, bad_matches=0.1, recall=[recall(0.5, 0.47, 0.49)]
    )
    assert (
        in_words(all_three)
        == "4.0% of words are new, 10.0% of queries match badly, Next order: recall@20 0.470 after 0.500"
    )
    unknown = Drift(learned_until=SINCE, events=3, unseen_words=None, bad_matches=None, recall=[])
    assert in_words(unknown) == "too little to say"
