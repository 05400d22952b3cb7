"""What a query is taken to ask for: misspelt words are read as the catalogue's, unless somebody knows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinks.clicks import CLICKED_PRODUCTS, NO_CLICKS, ClickTable, query_hash
from sinks.queries import Query, understood
from sinks.spelling import Vocabulary
from sinks.words import query_words

VECTOR = np.array([1.0, 0.0], np.float32)
VOCABULARY = Vocabulary.of(["Walking boots", "Leather boots"])


class Catalogue:
    """In which only these words are in a product."""

    def __init__(self, *words: str) -> None:
        self._words = set(words)

    async def known_of(self, words: Sequence[str]) -> set[str]:
        return self._words & set(words)


def clicked(*queries: str) -> ClickTable:
    hashes = np.array(sorted(map(query_hash, queries)), np.uint64)
    shape = (len(hashes), CLICKED_PRODUCTS)
    return ClickTable(hashes, np.zeros(shape, np.int32), np.ones(shape, np.float32))


async def ask(text: str, catalogue: Catalogue | None = None, clicks: ClickTable = NO_CLICKS) -> Query:
    return await understood(
        text,
        VECTOR,
        key=str.casefold,
        catalogue=catalogue or Catalogue("walking", "boots", "leather"),
        vocabulary=VOCABULARY,
        clicks=clicks,
    )


async def test_a_misspelt_query_has_the_words_and_the_clicks_of_what_is_meant_and_its_own_vector() -> None:
    query = await ask("Walkng boots")
    assert query.read_as == "walking boots"
    assert query.words.ids.tolist() == query_words("walking boots").ids.tolist()
    assert query.hash == query_hash("walking boots")
    assert query.vector is VECTOR


async def test_what_is_spelt_as_in_the_catalogue_is_as_it_was_typed() -> None:
    query = await ask("Leather Boots")
    assert (query.read_as, query.hash) == (None, query_hash("leather boots"))


async def test_a_query_that_others_clicked_something_after_is_known() -> None:
    assert (await ask("walkng boots", clicks=clicked("walkng boots"))).read_as is None
    assert (await ask("walkng boots", clicks=clicked("walkng"))).read_as is None
    assert (await ask("walkng boots", clicks=clicked("boots"))).read_as == "walking boots"


async def test_a_word_that_a_product_has_is_known_though_it_is_newer_than_the_vocabulary() -> None:
    assert (await ask("lether boots", Catalogue("lether"))).read_as is None
    assert (await ask("lether walkng boots", Catalogue("lether"))).read_as == "lether walking boots"
