"""Every available product of a generation in memory, for whoever asks for what is near thousands of vectors at once.

A call of Qdrant for each vector costs milliseconds, most of it in turning answers into messages and back; one product
of matrices costs microseconds a vector. Worth it from a few hundred vectors on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.retry import RetryPolicy, until_answered
from sinks.stored import read_vectors
from sinks.wire import Vector

SNAPSHOT_PRODUCTS: Final = 100_000
"""Most available products that are held in memory: 150 MB at 384 dimensions."""

MAX_AGE_SECONDS: Final = 30.0

_PAGE: Final = 1024
_QUERIES_AT_ONCE: Final = 64  # bounds the matrix of similarities [queries, products]


class Neighbours(NamedTuple):
    """The products nearest to one query, best first. The fields are parallel."""

    product_ids: Sequence[str]
    scores: NDArray[np.float32]  # cosine of the query's and the product's vector


@dataclass(frozen=True, slots=True)
class CatalogueSnapshot:
    """The available products at one moment, in no order. `product_ids`, `kinds` and `vectors` are parallel."""

    product_ids: NDArray[np.object_]
    kinds: NDArray[np.str_]
    vectors: Vector  # [n, d] unit rows
    titles: Mapping[str, str]  # by product id
    announced: Mapping[str, int]  # by product id, ms

    def near(self, queries: Vector, limit: int, *, kind: str | None = None) -> list[Neighbours]:
        """For each query ([n, d], any norm), the products nearest by cosine, at most `limit`. Exact."""
        ids, vectors = self.product_ids, self.vectors
        if kind is not None:
            rows = np.flatnonzero(self.kinds == kind)
            ids, vectors = ids[rows], vectors[rows]
        if not len(ids):
            return [Neighbours((), np.zeros(0, np.float32)) for _ in queries]
        unit = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9)
        found: list[Neighbours] = []
        for start in range(0, len(unit), _QUERIES_AT_ONCE):
            scores = unit[start : start + _QUERIES_AT_ONCE] @ vectors.T
            best = _best(scores, min(limit, len(ids)))
            found += map(Neighbours, ids[best].tolist(), np.take_along_axis(scores, best, 1))
        return found


async def read_snapshot(
    client: AsyncQdrantClient, collection: str, *, at_most: int, retry: RetryPolicy
) -> CatalogueSnapshot | None:
    """The available products; None where there are more than `at_most`, so that they are too many to hold.

    Raises PermanentReadError, and the last transient error when `retry` gives up.
    """
    product_ids: list[str] = []
    titles: list[str] = []
    kinds: list[str] = []
    announced: dict[str, int] = {}
    vectors: list[Vector] = []
    offset: qdrant.PointId | None = None
    while True:
        request = qdrant.ScrollPoints(
            collection_name=collection,
            filter=_AVAILABLE,
            offset=offset,
            limit=_PAGE,
            with_payload=_SHOWN,
            with_vectors=_TEXT,
        )
        response: qdrant.ScrollResponse = await until_answered(
            lambda request=request: client.grpc_points.Scroll(  # type: ignore[misc]
                request, timeout=timeout_of(client)
            ),
            doing="reading the catalogue",
            collection=collection,
            retry=retry,
        )
        for point in response.result:
            stored = point.payload
            product_ids.append(stored["product_id"].string_value)
            titles.append(stored["title"].string_value)
            kinds.append(stored["kind"].string_value)
            announced[product_ids[-1]] = stored["ts"].integer_value
            vectors.append(read_vectors(point)["text"])
        if len(vectors) > at_most:
            return None
        if not response.HasField("next_page_offset"):
            break
        offset = response.next_page_offset
    return CatalogueSnapshot(
        product_ids=np.array(product_ids, np.object_),
        kinds=np.array(kinds, np.str_),
        vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
        titles=dict(zip(product_ids, titles, strict=True)),
        announced=announced,
    )


class RecentSnapshot:
    """A snapshot read when it is asked for, and again when it has become `max_age_seconds` old. Safe for many tasks."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        at_most: int = SNAPSHOT_PRODUCTS,
        max_age_seconds: float = MAX_AGE_SECONDS,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._collection = collection
        self._at_most = at_most
        self._max_age = max_age_seconds
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._reading = asyncio.Lock()
        self._snapshot: CatalogueSnapshot | None = None
        self._good_until = -math.inf

    @property
    def at_hand(self) -> CatalogueSnapshot | None:
        """The snapshot where it was read already and is young enough: worth a look for a single vector."""
        return self._snapshot if self._clock() < self._good_until else None

    async def get(self) -> CatalogueSnapshot | None:
        """The snapshot; None where there are more than `at_most` products. Raises as `read_snapshot`."""
        async with self._reading:
            if self._clock() >= self._good_until:
                self._snapshot = await read_snapshot(
                    self._client, self._collection, at_most=self._at_most, retry=self._retry
                )
                # A catalogue that is too large stays so: to find out costs reading `at_most` products.
                age = self._max_age if self._snapshot is not None else 20 * self._max_age
                self._good_until = self._clock() + age
            return self._snapshot


def _best(scores: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Columns of the highest scores of each row, best first, [n, limit].

    The `limit` highest are in the `limit` blocks of columns with the highest maxima: of 48,000 columns some 3,400 are
    looked at twice, which takes a quarter of the time.
    """
    rows, columns = scores.shape
    size = math.isqrt(columns // limit)  # of a block: as many blocks as columns in the best of them
    if size > 1:
        many = columns // size  # each is every so-manieth column, so that maxima are of whole rows of memory
        whole = scores[:, : size * many]
        blocks = _highest(whole.reshape(rows, size, many).max(axis=1), limit)
        members = (blocks[:, None, :] + (np.arange(size) * many)[None, :, None]).reshape(rows, -1)
        rest = np.broadcast_to(np.arange(size * many, columns), (rows, columns - size * many))
        among = np.concatenate([members, rest], axis=1)
        found = np.take_along_axis(among, _highest(np.take_along_axis(scores, among, 1), limit), 1)
    else:
        found = _highest(scores, limit)
    order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
    best: NDArray[np.int64] = np.take_along_axis(found, order, 1)
    return best


def _highest(scores: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Columns of the highest scores of each row, in no order, [n, limit]."""
    found: NDArray[np.int64] = np.argpartition(scores, -limit, axis=1)[:, -limit:]
    return found


_AVAILABLE: Final = qdrant.Filter(
    must=[qdrant.Condition(field=qdrant.FieldCondition(key="available", match=qdrant.Match(boolean=True)))]
)
_SHOWN: Final = qdrant.WithPayloadSelector(
    include=qdrant.PayloadIncludeSelector(fields=["product_id", "title", "kind", "ts"])
)
_TEXT: Final = qdrant.WithVectorsSelector(include=qdrant.VectorsSelector(names=["text"]))
