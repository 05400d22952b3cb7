"""Models compared on the same tasks: which is worse, by what, and of whom too little is known to say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.testing import WordHashEncoder
from streams.evaluation.bootstrap import Interval
from streams.evaluation.comparison import ENOUGH_USERS, Compared, Measure, compared, measures
from streams.evaluation.evaluation import Options, compare
from streams.evaluation.files import Shop
from streams.evaluation.plots import draw
from streams.evaluation.rounds import Round
from streams.evaluation.texts import encode_shop
from streams.events import Product, Search
from streams.settings import load

CUT = 1_600_000_000_000
DAY_MS = 86_400_000
NOUNS = ("tent", "boots", "mug", "kite", "lamp", "rug", "stove", "kettle")
STYLES = ("red", "blue", "small", "folding")
USERS = 2 * ENOUGH_USERS


class Forgetful:
    """An encoder that tells queries apart no more: what a training that went wrong leaves."""

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        if kind is TextKind.PRODUCT:
            return await WordHashEncoder().encode(texts, kind)
        return await WordHashEncoder().encode(["the same"] * len(texts), kind)


def shop(users: int) -> Shop:
    """Everybody clicks what they searched for, once before and once after the cut."""
    products = [Product(product_id=f"{style}-{noun}", title=f"{style} {noun}") for style in STYLES for noun in NOUNS]
    searches = []
    for number in range(users):
        for place, ts in ((number, CUT - DAY_MS), (number * 3 + 1, CUT + DAY_MS)):
            wanted = products[place % len(products)]
            query = f"{wanted.title} please" if number % 2 else wanted.title
            searches.append(Search(user_id=f"user-{number}", query=query, ts=ts, clicked_product_id=wanted.product_id))
    return Shop(products, [], searches)


@cache
def comparison(users: int, *, limit: int = 5) -> tuple[list[Compared], list[Round]]:
    sold = shop(users)
    encoded = {
        "words": asyncio.run(encode_shop(sold, WordHashEncoder())),
        "forgetful": asyncio.run(encode_shop(sold, Forgetful())),
    }
    options = Options(CUT, limit, prequential=False, seed=1)
    rounds = asyncio.run(compare(sold, encoded, load(environment={}), options))
    seen = {search.query for search in sold.searches if search.ts < CUT}
    return compared(rounds, [*encoded], seen, limit=limit, seed=1), rounds


def test_a_model_that_tells_queries_apart_no_more_is_found_worse() -> None:
    results, _ = comparison(USERS)
    (of_queries,) = [one for one in results if one.kind == "query"]
    assert [method.method for method in of_queries.methods] == [
        "words",
        "forgetful",
        "words, texts alone",
        "forgetful, texts alone",
    ]
    words, forgetful, words_alone, forgetful_alone = of_queries.methods
    assert words.metrics["mrr"].mean == words_alone.metrics["mrr"].mean == 1.0
    assert words.minus_first == words_alone.minus_first == {}
    assert forgetful_alone.metrics["mrr"].mean < 0.2
    assert forgetful_alone.minus_first["mrr"].high < 0.0
    assert forgetful.minus_first["mrr"].mean == pytest.approx(forgetful.metrics["mrr"].mean - 1.0)


def test_what_was_never_typed_before_the_cut_is_told_apart() -> None:
    results, _ = comparison(USERS)
    (of_queries,) = [one for one in results if one.kind == "query"]
    alone = {method.method: method for method in of_queries.methods}["forgetful, texts alone"]
    assert alone.metrics["mrr_unseen_queries"] is not None
    assert alone.metrics["recall_long_tail"].mean < 0.5


def test_of_too_few_users_nothing_is_concluded() -> None:
    results, _ = comparison(ENOUGH_USERS - 1)
    assert measures(results, "forgetful") == []
    found = measures(comparison(USERS)[0], "forgetful")
    assert {one.kind for one in found} == {"next_click", "query"}
    (alone,) = [one for one in found if (one.kind, one.metric, one.texts_alone) == ("query", "mrr", True)]
    assert (alone.before, alone.worse) == (1.0, True)


def test_worse_and_better_are_beyond_doubt_or_neither() -> None:
    def measure(low: float, high: float) -> Measure:
        return Measure("query", "mrr", False, 0.5, 0.5 + (low + high) / 2, Interval((low + high) / 2, low, high))

    assert (measure(-0.2, -0.1).worse, measure(-0.2, -0.1).better) == (True, False)
    assert (measure(-0.2, 0.1).worse, measure(-0.2, 0.1).better) == (False, False)
    assert (measure(0.1, 0.2).worse, measure(0.1, 0.2).better) == (False, True)


def test_plots_of_models_are_drawn(tmp_path: Path) -> None:
    results, rounds = comparison(USERS)
    drawn = [path.name for path in draw(results, rounds, tmp_path)]
    assert drawn[:3] == ["next-click-methods.png", "next-click-long-tail.png", "next-click-weeks.png"]
    assert {path.name for path in tmp_path.iterdir()} == {*drawn}
