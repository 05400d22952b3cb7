"""`Recommender` beside Qdrant's own client asked for the same: a profile by its id, products near a vector.

While nothing has changed since it was made, a list by id is the stored one: one look-up. Else it is derived anew from
the stored state, which takes searches that a look-up does not; what those take by Qdrant's client is told as well, the
rest is ours. Calls block, one after the other.
Vectors of queries are known beforehand: whoever searches has to encode, with Afterglow or without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from benchmarks import shoppers
from benchmarks.generation import SECRET, KeptGeneration, OwnQdrant, now_ms, own_qdrant
from benchmarks.real_data import products, text_of, unique_texts
from benchmarks.rows import Bound, Options, Row, side_by_side
from benchmarks.vectors import KnownTexts, Vectors, real
from qdrant_client import QdrantClient, models

from encoders.client import TextKind
from sinks.collections import Model, products_collection
from sinks.retrieval import Recommender
from sinks.retrieval.recommender import UNNOTICED_MS

SHOP: Final = "electronics-catalogue"
QUERIES: Final = "shop-searches/searches"
SHOPPERS: Final = 2000
CALLS: Final = 200  # a round, of each side
LIMIT: Final = 20
DEPTH: Final = 3 * LIMIT  # how far `sinks.recommendation` looks near each vector
AT_MOST: Final = Bound(1.3, 2, "lower")
BY_ID_MS: Final = Bound(10, 20, "lower")
BY_QUERY_MS: Final = Bound(30, 60, "lower")

STATE: Final = ["version", "state"]
LIST: Final = ["candidates", "made_at", "due", "known"]
SHOWN: Final = ["product_id", "title", "kind"]
AVAILABLE: Final = models.Filter(must=[models.FieldCondition(key="available", match=models.MatchValue(value=True))])

Call = Callable[[int], object]
"""Asks on behalf of the shopper of this number."""


class Question(NamedTuple):
    """What is asked, by Afterglow and by others; the first of those is what it is held against."""

    name: str
    ours: Call
    others: Mapping[str, Call]
    p99_ms: Bound | None  # None: neither this nor the ratio is bounded


def measure(options: Options) -> Iterator[Row]:
    queries = unique_texts(options.data, QUERIES, "query")
    known = real(queries, TextKind.QUERY)
    with own_qdrant() as own:
        shop, stocked = own.run(_shop(own, options))
        host, port = own.address.split(":")
        client = QdrantClient(host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False)
        calls = options.scaled(CALLS)
        note = f"{own.kind} Qdrant, {stocked:,} products, {shoppers.PURCHASES} purchases a user, no writes meanwhile"
        asked = _Asked(shop, client, queries, known.vectors, calls)
        with Recommender(own.address, SECRET, generation=shop.name, encode_query=_lookup(known)) as recommender:
            for question in _questions(recommender, asked):
                yield from _rows(question, calls, options.rounds, note)
        client.close()
        own.run(shop.close())


def _questions(recommender: Recommender, asked: _Asked) -> Iterator[Question]:
    yield Question(
        "list by id",
        lambda number: recommender.recommend(f"u{number}", limit=LIMIT),
        {"retrieve": partial(asked.retrieve, fields=LIST)},
        BY_ID_MS,
    )
    yield Question(
        "list by id, derived anew",
        lambda number: recommender.recommend(f"u{number}", limit=LIMIT, at=now_ms()),
        {"retrieve and the same searches": asked.retrieve_and_search},
        None,
    )
    yield Question(
        "profile by id",
        lambda number: recommender.profile(f"u{number}"),
        {"retrieve": partial(asked.retrieve, fields=True)},
        BY_ID_MS,
    )
    yield Question(
        "search by text",
        lambda number: recommender.search(asked.query(number), limit=LIMIT),
        {"query_points": asked.search},
        BY_QUERY_MS,
    )
    yield Question(
        "list by query",
        lambda number: recommender.recommend(f"u{number}", limit=LIMIT, query=asked.query(number)),
        {"query_points": asked.search, "retrieve and query_points": asked.retrieve_and_search_query},
        BY_QUERY_MS,
    )


class _Asked:
    """What a user of Qdrant's client would ask instead."""

    def __init__(
        self, shop: KeptGeneration, client: QdrantClient, queries: Sequence[str], vectors: Vectors, shoppers: int
    ) -> None:
        self._shop = shop
        self._client = client
        self._queries = queries
        self._vectors = vectors.tolist()
        self._products = products_collection(shop.name)
        self._searches = [self._searches_of(number) for number in range(shoppers)]

    def query(self, number: int) -> str:
        return self._queries[number % len(self._queries)]

    def retrieve(self, number: int, *, fields: list[str] | bool) -> object:
        id_ = self._shop.ids.user(f"u{number}")
        return self._client.retrieve(self._shop.profiles, [id_], with_payload=fields, with_vectors=False)

    def search(self, number: int) -> object:
        return self._client.query_points(
            self._products,
            self._vector(number),
            using="text",
            query_filter=AVAILABLE,
            limit=LIMIT,
            with_payload=SHOWN,
        )

    def retrieve_and_search(self, number: int) -> object:
        self.retrieve(number, fields=STATE)
        return self._client.query_batch_points(self._products, self._searches[number])

    def retrieve_and_search_query(self, number: int) -> object:
        self.retrieve(number, fields=STATE)
        return self.search(number)

    def _vector(self, number: int) -> list[float]:
        vector: list[float] = self._vectors[number % len(self._vectors)]
        return vector

    def _searches_of(self, number: int) -> list[models.QueryRequest]:
        """Near each interest, and near what is on now."""
        id_ = self._shop.ids.user(f"u{number}")
        (point,) = self._client.retrieve(self._shop.profiles, [id_], with_payload=False, with_vectors=True)
        named: Any = point.vector
        short = [named["short"]] if "short" in named else []
        return [_search(vector) for vector in [*named.get("interests", []), *short]]


def _search(vector: list[float]) -> models.QueryRequest:
    return models.QueryRequest(query=vector, using="text", filter=AVAILABLE, limit=DEPTH, with_payload=SHOWN)


async def _shop(own: OwnQdrant, options: Options) -> tuple[KeptGeneration, int]:
    """With everybody's list derived; and the number of its products."""
    sold = products(options.data, SHOP)
    sold = sold[: options.scaled(len(sold))]
    known = real([text_of(product) for product in sold])
    shop = KeptGeneration(own, SHOP, known)
    await shop.open()
    await shop.stock(sold)
    ids = [product["product_id"] for product in sold]
    await shop.fold_history(shoppers.purchases(ids, known.vectors, options.scaled(SHOPPERS)))
    # A list made while workers may not know of a change to the catalogue is not read as it is.
    await asyncio.sleep(UNNOTICED_MS / 1000)
    await shop.sweep()
    return shop, len(sold)


def _lookup(known: KnownTexts) -> Callable[[str, Model], Any]:
    async def encode_query(text: str, _: Model) -> Vectors:
        vector: Vectors = (await known.encode([text], TextKind.QUERY))[0]
        return vector

    return encode_query


def _rows(question: Question, calls: int, rounds: int, note: str) -> Iterator[Row]:
    sides = {"": question.ours, **question.others}
    for ask in sides.values():
        _milliseconds(ask, calls)  # warm
    taken: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, ask in sides.items():
            taken[side].append(_milliseconds(ask, calls))
    ours = taken.pop("")
    medians = [median(times) for times in ours]
    for at, (side, theirs) in enumerate(taken.items()):
        their_medians = [median(times) for times in theirs]
        ratio, spread = side_by_side(medians, their_medians)
        yield Row(
            name=f"recommender, {question.name}",
            value=median(medians),
            unit="ms",
            against=f"{side}: {median(their_medians):.2f}",
            ratio=ratio,
            spread=spread,
            bound=AT_MOST if at == 0 and question.p99_ms is not None else None,
            note=note,
        )
    ninety_ninth = [float(np.percentile(times, 99)) for times in ours]
    yield Row(
        name=f"recommender, {question.name}, p99",
        value=float(np.percentile(np.concatenate(ours), 99)),
        unit="ms",
        spread=(min(ninety_ninth), max(ninety_ninth)),
        bound=question.p99_ms,
        note=f"of {rounds * calls:,} calls; {note}",
    )


def _milliseconds(ask: Call, calls: int) -> list[float]:
    """Each call's, for the first so many shoppers."""
    taken = []
    for number in range(calls):
        began = time.perf_counter()
        ask(number)
        taken.append(1000 * (time.perf_counter() - began))
    return taken
