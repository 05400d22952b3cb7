"""Which share of the catalogue people's lists show, as `status` says it and as `evaluate` counts it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from encoders.testing import WordHashEncoder
from sinks.clicks import query_hash
from streams.evaluation.evaluation import Options, evaluate
from streams.evaluation.files import Shop
from streams.evaluation.history import History
from streams.evaluation.results import results_of
from streams.evaluation.texts import encode_shop
from streams.evaluation.timeline import timeline
from streams.events import Product, Purchase
from streams.profiles import stable_hash
from streams.settings import load
from streams.statistics.coverage import coverage_of
from streams.statistics.fold import StatisticsFold

DAY = 86_400_000
CUT = 1_700_000_000_000
STYLES = ("red", "blue", "wooden", "small", "vintage", "folding", "ceramic", "striped", "woollen", "tall")
NOUNS = ("boots", "tent", "stove", "kettle", "lamp", "mug", "rug", "kite", "drum", "chair", "scarf", "clock")
SETTINGS = load(environment={})


def a_shop(seed: int) -> Shop:
    """Everybody has a few nouns that they buy of, and orders once more after the cut."""
    chance = np.random.default_rng(seed)
    products = [Product(f"{style} {noun}", f"{style} {noun}") for style in STYLES for noun in NOUNS]
    purchases = []
    for user in range(40):
        likes = [noun for noun in NOUNS if chance.random() < 0.3] or ["mug"]
        for order in range(1 + int(chance.integers(1, 8))):
            at = CUT + DAY if order == 0 else CUT - int(chance.integers(1, 90 * DAY))
            for _ in range(4):
                wanted = f"{chance.choice(STYLES)} {chance.choice(likes)}"
                purchases.append(Purchase(f"user-{user}", wanted, 1, at, order_id=f"{user}-{order}"))
    return Shop(products, purchases, [])


@pytest.mark.parametrize("limit", [3, 10])
def test_status_says_what_evaluate_counts(limit: int) -> None:
    shop = a_shop(limit)
    (round_,) = asyncio.run(evaluate(shop, WordHashEncoder(), SETTINGS, Options(CUT, limit, False, seed=1)))
    counted = results_of(round_, limit=limit, seed=1)[0].methods[0].coverage_mixed_list
    history = History(asyncio.run(encode_shop(shop, WordHashEncoder())), SETTINGS)
    for step in timeline(shop.purchases, []):
        if step.ts < CUT:
            history.learn(step)
    history.statistics()
    said = history.coverage(limit)
    assert said.lists == len(round_.tasks) == 40
    assert 0.2 < counted < 0.95, "else there is nothing to tell apart"
    assert len(said.rows) / len(shop.products) == pytest.approx(counted, abs=0.05)


def clicked(*clicks: tuple[str, str]) -> StatisticsFold:
    folding = StatisticsFold()
    for number, (user, product_id) in enumerate(clicks):
        folding.click(stable_hash(user), query_hash("a query"), product_id, CUT + number * DAY)
    folding.refresh()
    return folding


def test_where_people_only_search_their_lists_count() -> None:
    folding = clicked(("ann", "tent"), ("ben", "lamp"), ("cat", "lamp"), ("cat", "mug"))
    coverage = coverage_of(folding, 1, exposure=0.0, exclude_bought=False)
    assert coverage.lists == 3
    assert {folding.product_ids[row] for row in coverage.rows} <= {"tent", "lamp", "mug"}


def test_of_nobody_there_are_no_lists() -> None:
    coverage = coverage_of(StatisticsFold(), 20, exposure=0.13, exclude_bought=False)
    assert (coverage.rows.tolist(), coverage.lists) == ([], 0)


def test_looking_changes_nothing_of_what_is_learned() -> None:
    looked, not_looked = StatisticsFold(), StatisticsFold()
    for at, purchase in enumerate(sorted(a_shop(1).purchases, key=lambda one: one.ts)):
        for folding in (looked, not_looked):
            order = stable_hash(str(purchase.order_id))
            folding.purchase(stable_hash(purchase.user_id), purchase.product_id, order, purchase.ts)
        if at % 100 == 0:
            coverage_of(looked, 5, exposure=0.13, exclude_bought=True)
    assert looked.learner.weights.new.tolist() == pytest.approx(not_looked.learner.weights.new.tolist(), abs=1e-9)
    assert looked.statistics().shown.tolist() == pytest.approx(not_looked.statistics().shown.tolist())
