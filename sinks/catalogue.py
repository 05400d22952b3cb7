"""The products of one generation, read back: by id from a bounded cache, and by what lies near a vector."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.identity import PointIds
from sinks.retry import RetryPolicy, until_answered
from sinks.stored import Stored, read_vectors
from sinks.wire import Vector, dense_vector, number_of
from sinks.words import Words, query_words
from sinks.writes import MAJORITY

Answer = TypeVar("Answer")

MAX_AGE_SECONDS = 60.0
_PRODUCTS_A_READ = 512
_QUERIES_A_REQUEST = 64
_REQUESTS_IN_FLIGHT = 2


NOT_STORED = 0
"""The `version` of a product that no point was read of."""

UNSOURCED = ("", -1, -1)
"""The `source` of a product that is known from purchases alone."""


class Product(NamedTuple):
    """A product as it is stored."""

    product_id: str
    version: int = NOT_STORED
    title: str = ""
    brand: str = ""
    category: str = ""
    price: float | None = None
    kind: str = "product"
    """product, content or ad."""
    available: bool = False
    related: tuple[str, ...] = ()
    """Ids of the products that it goes with, as its own event names them."""
    deleted: bool = False
    """The mark of a product that was deleted; never available."""
    revised: bool = False
    """Whether it was stored under another text before: sums may hold the vector of that."""
    ts: int | None = None
    """ms; when the catalogue said so. None for a product known from purchases alone."""
    source: tuple[str, int, int] = UNSOURCED
    """Topic id, partition and offset of the event it is from."""
    vector: Vector | None = None
    """[d] float32, the unit vector of `text`, read-only. None in the mark of a product deleted before it had one."""

    @property
    def text(self) -> str:
        """What is encoded: title, brand and category, empty ones left out."""
        return " ".join(part for part in (self.title, self.brand, self.category) if part)


class Nearby(NamedTuple):
    """A product that a search found."""

    product_id: str
    title: str
    kind: str
    score: float
    """Cosine of the query's and the product's vector; by words, BM25."""
    announced: int
    """ms; when the catalogue said so."""
    vector: Vector | None
    """[d] float32 unit vector, from `for_text` alone."""


class _Kept(NamedTuple):
    read_at: float  # by the clock
    point_id: str
    product: Product


class Catalogue:
    """Reads of `products--NAME` (or of the alias `products`), with a bounded cache of single products.

    What it gives may be up to `max_age_seconds` old: other workers write products, too. `near` always asks Qdrant.
    A product that is missing, or deleted before its text was known, is not remembered as such, since it may come at
    any moment: whoever waits for it looks once more, and would find the memory.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        ids: PointIds,
        *,
        cached: int,
        max_age_seconds: float = MAX_AGE_SECONDS,
        replicated: bool = False,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cached` bounds the products kept in memory (1.5 KB each at 384 dimensions, and their texts)."""
        self._client = client
        self.collection = collection
        self._ids = ids
        self._cached = cached
        self._max_age = max_age_seconds
        self._replicated = replicated
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._products: OrderedDict[str, _Kept] = OrderedDict()
        self._names: dict[str, str] = {}  # the product of each point that is kept
        self._invalid_meanwhile: list[set[str]] = []
        self._has_words: bool | None = None

    async def get(self, product_ids: Iterable[str]) -> dict[str, Product]:
        """Those of the products that exist, marks of deleted ones included, by product id.

        Raises:
            PermanentReadError: Qdrant refused the read for good. Transient errors are waited out (see `retry`).
        """
        found: dict[str, Product] = {}
        missing = []
        fresh = self._clock() - self._max_age
        for product_id in dict.fromkeys(product_ids):
            if (product := self._fresh(product_id, fresh)) is None:
                missing.append(product_id)
            else:
                found[product_id] = product
        read = await self._read_and_keep([self._ids.product(product_id) for product_id in missing])
        return found | {product.product_id: product for product in read.values()}

    async def read(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """As `get`, but asks Qdrant, past the cache: what a write may name in `replaces`."""
        read = await self._read([self._ids.product(product_id) for product_id in product_ids])
        return {product.product_id: product for product in read.values()}

    async def near(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        kind: str | None = None,
    ) -> list[list[Nearby]]:
        """For each query, the available products nearest to it by cosine, best first, at most `limit`.

        Args:
            queries: [n, d] float32, any norm. A caller that compares centred subtracts the mean from the query alone:
                the products' vectors are raw, and subtracting it from them as well would hardly change the order.
            limit: at least 1.
            kind: only products of this kind.

        On a large collection Qdrant searches its HNSW graph, which is approximate.

        Raises:
            ValueError: the queries are no finite [n, d].
            PermanentReadError: Qdrant refused the search for good (a wrong dimension, no such collection).
        """
        if queries.ndim != 2 or not np.isfinite(queries).all():
            raise ValueError(f"queries of shape {queries.shape} must be [n, d] and finite")
        requests = [
            self._search(qdrant.VectorInput(dense=dense_vector(query)), "text", limit, kind, _SHOWN_PAYLOAD)
            for query in queries
        ]
        gate = asyncio.Semaphore(_REQUESTS_IN_FLIGHT)

        async def batch(start: int) -> list[list[Nearby]]:
            request = qdrant.QueryBatchPoints(
                collection_name=self.collection, query_points=requests[start : start + _QUERIES_A_REQUEST]
            )
            async with gate:
                response = await self._answered(self._client.grpc_points.QueryBatch, request)
            return [[_nearby(point) for point in result.result] for result in response.result]

        batches = await asyncio.gather(*(batch(start) for start in range(0, len(requests), _QUERIES_A_REQUEST)))
        return [found for batch in batches for found in batch]

    async def has_words(self) -> bool:
        """Whether the collection holds vectors of words: one made before there were any doesn't.

        Raises PermanentReadError.
        """
        if self._has_words is None:
            response: qdrant.GetCollectionInfoResponse = await self._answered(
                self._client.grpc_collections.Get, qdrant.GetCollectionInfoRequest(collection_name=self.collection)
            )
            self._has_words = "words" in response.result.config.params.sparse_vectors_config.map
        return self._has_words

    async def for_text(
        self, query: Vector, words: Words, limit: int, *, kind: str | None = None
    ) -> tuple[list[Nearby], list[Nearby]]:
        """What is near a text ([d], any norm; see `near`), and what has most of its words, by BM25; best first.

        At most `limit` of each, all with their vectors; none by words where the collection holds no words. One call;
        and another where it finds what is not in the cache, from which all but the scores and the order is.

        Raises PermanentReadError.
        """
        searches = [self._search(qdrant.VectorInput(dense=dense_vector(query)), "text", limit, kind, _NO_PAYLOAD)]
        if len(words.ids) and await self.has_words():
            sparse = qdrant.SparseVector(values=words.weights.tolist(), indices=words.ids.tolist())
            searches.append(self._search(qdrant.VectorInput(sparse=sparse), "words", limit, kind, _NO_PAYLOAD))
        request = qdrant.QueryBatchPoints(collection_name=self.collection, query_points=searches)
        response: qdrant.QueryBatchResponse = await self._answered(self._client.grpc_points.QueryBatch, request)
        found = [[(point.id.uuid, point.score) for point in result.result] for result in response.result]
        products = await self._of_points(dict.fromkeys(point_id for row in found for point_id, _ in row))
        near, worded = (
            [
                Nearby(one.product_id, one.title, one.kind, score, one.ts or 0, one.vector)
                for point_id, score in row
                if (one := products.get(point_id)) is not None and one.vector is not None
            ]
            for row in [*found, []][:2]
        )
        return near, worded

    async def known_of(self, words: Sequence[str]) -> set[str]:
        """Those of these words that an available product has; none where the collection holds no words.

        One call. Raises PermanentReadError.
        """
        if not words or not await self.has_words():
            return set()
        searches = []
        for word in words:
            asked = query_words(word)
            sparse = qdrant.SparseVector(values=asked.weights.tolist(), indices=asked.ids.tolist())
            searches.append(self._search(qdrant.VectorInput(sparse=sparse), "words", 1, None, _NO_PAYLOAD))
        request = qdrant.QueryBatchPoints(collection_name=self.collection, query_points=searches)
        response: qdrant.QueryBatchResponse = await self._answered(self._client.grpc_points.QueryBatch, request)
        return {word for word, found in zip(words, response.result, strict=True) if found.result}

    async def count_available(self, product_ids: Iterable[str]) -> int:
        """How many of these products are available. One call. Raises PermanentReadError."""
        ids = [qdrant.PointId(uuid=self._ids.product(product_id)) for product_id in product_ids]
        if not ids:
            return 0
        these = qdrant.Condition(has_id=qdrant.HasIdCondition(has_id=ids))
        request = qdrant.CountPoints(
            collection_name=self.collection, filter=qdrant.Filter(must=[_AVAILABLE, these]), exact=True
        )
        response: qdrant.CountResponse = await self._answered(self._client.grpc_points.Count, request)
        return int(response.result.count)

    def invalidate(self, product_ids: Iterable[str]) -> None:
        """Forget these products, also those that a `get` is reading at this moment: they were written anew."""
        for product_id in product_ids:
            if (kept := self._products.pop(product_id, None)) is not None:
                del self._names[kept.point_id]
            for invalid in self._invalid_meanwhile:
                invalid.add(product_id)

    async def _answered(self, method: Callable[..., Awaitable[Answer]], request: object) -> Answer:
        return await until_answered(
            lambda: method(request, timeout=timeout_of(self._client)),
            doing="reading products",
            collection=self.collection,
            retry=self._retry,
        )

    def _search(
        self,
        query: qdrant.VectorInput,
        using: str,
        limit: int,
        kind: str | None,
        payload: qdrant.WithPayloadSelector,
    ) -> qdrant.QueryPoints:
        wanted = [_AVAILABLE] if kind is None else [_AVAILABLE, _of_kind(kind)]
        return qdrant.QueryPoints(
            collection_name=self.collection,
            query=qdrant.Query(nearest=query),
            using=using,
            filter=qdrant.Filter(must=wanted),
            limit=limit,
            with_payload=payload,
            with_vectors=_NO_VECTORS,
        )

    async def _of_points(self, point_ids: Iterable[str]) -> dict[str, Product]:
        """As `get`, by point id."""
        found: dict[str, Product] = {}
        missing = []
        fresh = self._clock() - self._max_age
        for point_id in point_ids:
            if (product := self._fresh(self._names.get(point_id, ""), fresh)) is None:
                missing.append(point_id)
            else:
                found[point_id] = product
        return found | await self._read_and_keep(missing)

    def _fresh(self, product_id: str, since: float) -> Product | None:
        kept = self._products.get(product_id)
        if kept is None or kept.read_at <= since:
            return None
        self._products.move_to_end(product_id)
        return kept.product

    async def _read_and_keep(self, point_ids: Sequence[str]) -> dict[str, Product]:
        if not point_ids:
            return {}
        invalid: set[str] = set()
        self._invalid_meanwhile.append(invalid)
        try:
            asked_at = self._clock()
            read = await self._read(point_ids)
        finally:
            self._invalid_meanwhile = [other for other in self._invalid_meanwhile if other is not invalid]
        for point_id, product in read.items():
            if product.product_id not in invalid and product.vector is not None:
                self._keep(_Kept(asked_at, point_id, product))
        return read

    async def _read(self, point_ids: Sequence[str]) -> dict[str, Product]:
        """By point id."""
        found: dict[str, Product] = {}
        for start in range(0, len(point_ids), _PRODUCTS_A_READ):
            request = qdrant.GetPoints(
                collection_name=self.collection,
                ids=[qdrant.PointId(uuid=point_id) for point_id in point_ids[start : start + _PRODUCTS_A_READ]],
                with_payload=_ALL_PAYLOAD,
                with_vectors=_TEXT_VECTOR,
                read_consistency=MAJORITY if self._replicated else None,
            )
            response: qdrant.GetResponse = await self._answered(self._client.grpc_points.Get, request)
            for point in response.result:
                found[point.id.uuid] = _product(point)
        return found

    def _keep(self, kept: _Kept) -> None:
        product_id = kept.product.product_id
        self._products[product_id] = kept
        self._products.move_to_end(product_id)
        self._names[kept.point_id] = product_id
        while len(self._products) > self._cached:
            _, oldest = self._products.popitem(last=False)
            del self._names[oldest.point_id]


_ALL_PAYLOAD = qdrant.WithPayloadSelector(enable=True)
_NO_PAYLOAD = qdrant.WithPayloadSelector(enable=False)
_SHOWN_PAYLOAD = qdrant.WithPayloadSelector(
    include=qdrant.PayloadIncludeSelector(fields=["product_id", "title", "kind", "ts"])
)
_TEXT_VECTOR = qdrant.WithVectorsSelector(include=qdrant.VectorsSelector(names=["text"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)

# A deleted product is never available (`product_point` sees to that), so one indexed condition does for both.
_AVAILABLE = qdrant.Condition(field=qdrant.FieldCondition(key="available", match=qdrant.Match(boolean=True)))


def _of_kind(kind: str) -> qdrant.Condition:
    return qdrant.Condition(field=qdrant.FieldCondition(key="kind", match=qdrant.Match(keyword=kind)))


def _product(point: qdrant.RetrievedPoint) -> Product:
    stored: Stored = point.payload
    # An absent entry of a protobuf map reads as an empty value: "", 0 or false.
    return Product(
        product_id=stored["product_id"].string_value,
        version=stored["version"].integer_value,
        title=stored["title"].string_value,
        brand=stored["brand"].string_value,
        category=stored["category"].string_value,
        price=number_of(stored["price"]) if "price" in stored else None,
        kind=stored["kind"].string_value,
        available=stored["available"].bool_value,
        related=tuple(one.string_value for one in stored["related"].list_value.values),
        deleted=stored["deleted"].bool_value,
        revised=stored["revised"].bool_value,
        ts=stored["ts"].integer_value if "ts" in stored else None,
        source=_source(stored),
        vector=read_vectors(point).get("text"),
    )


def _source(stored: Stored) -> tuple[str, int, int]:
    if "offset" not in stored:
        return UNSOURCED
    return stored["topic_id"].string_value, stored["partition"].integer_value, stored["offset"].integer_value


def _nearby(point: qdrant.ScoredPoint) -> Nearby:
    stored: Stored = point.payload
    return Nearby(
        stored["product_id"].string_value,
        stored["title"].string_value,
        stored["kind"].string_value,
        point.score,
        stored["ts"].integer_value,
        None,
    )
