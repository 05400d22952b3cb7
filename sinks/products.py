"""The products of one generation as they are stored: read with their versions, written only over what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.identity import PointIds
from sinks.points import JSON, Vector, product_point, read_vectors, value_of
from sinks.retry import PermanentReadError, RetryPolicy, until_answered
from sinks.writes import Write, new_version, write

_PAYLOAD = qdrant.WithPayloadSelector(enable=True)
_TEXT = qdrant.WithVectorsSelector(include=qdrant.VectorsSelector(names=["text"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)
_NO_PAYLOAD = qdrant.WithPayloadSelector(enable=False)
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as the catalogue holds it. A deleted one stays as a mark, so that late news of it is recognised."""

    product_id: str
    title: str = ""
    brand: str = ""
    category: str = ""
    kind: str = "product"
    price: float | None = None
    available: bool = False
    deleted: bool = False
    ts: int | None = None
    vector: Vector | None = None  # unit, float32 [d], of `text`
    source: tuple[str, int, int] = ("", -1, -1)  # topic id, partition and offset of the event it is from
    version: int | None = None  # as read; None: not stored yet

    @property
    def text(self) -> str:
        """What is encoded: title, brand and category, empty ones left out."""
        return " ".join(part for part in (self.title, self.brand, self.category) if part)

    def payload(self) -> dict[str, JSON | bytes]:
        topic_id, partition, offset = self.source
        payload: dict[str, JSON | bytes] = {
            "product_id": self.product_id,
            "title": self.title,
            "brand": self.brand,
            "category": self.category,
            "kind": self.kind,
            "available": self.available and self.vector is not None and not self.deleted,
            "text_hash": blake2b(self.text.encode(), digest_size=8).hexdigest(),
            "topic_id": topic_id,
            "partition": partition,
            "offset": offset,
        }
        if self.price is not None:
            payload["price"] = self.price
        if self.ts is not None:
            payload["ts"] = self.ts
        if self.deleted:
            payload["deleted"] = True
        return payload


class ProductStore:
    """Conditional writes of `products--NAME`, by the same rule as profiles."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        ids: PointIds,
        *,
        replicated: bool = False,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`collection` is a real name, never an alias."""
        self._client = client
        self.collection = collection
        self._ids = ids
        self._replicated = replicated
        self._retry = retry or RetryPolicy()

    async def load(self, product_ids: Sequence[str]) -> dict[str, StoredProduct]:
        """Those of the products that are stored, vectors included."""
        found = {}
        for start in range(0, len(product_ids), _AT_ONCE):
            request = qdrant.GetPoints(
                collection_name=self.collection,
                ids=[
                    qdrant.PointId(uuid=self._ids.product(product_id))
                    for product_id in product_ids[start : start + _AT_ONCE]
                ],
                with_payload=_PAYLOAD,
                with_vectors=_TEXT,
            )
            response = await until_answered(
                lambda request=request: self._client.grpc_points.Get(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="reading products",
                collection=self.collection,
                retry=self._retry,
                kind=PermanentReadError,
            )
            for point in response.result:
                product = stored_product(point)
                found[product.product_id] = product
        return found

    async def write(self, products: Sequence[StoredProduct]) -> list[bool]:
        """Writes each product over the version it was read with. False: somebody else wrote it meanwhile."""
        writes = []
        for product in products:
            id_, version = self._ids.product(product.product_id), new_version()
            point = product_point(id_, version, product.vector, product.payload())
            writes.append(Write(id_, version, product.version, point))
        outcome: list[bool] = []
        for start in range(0, len(writes), _AT_ONCE):
            outcome += await write(
                self._client,
                self.collection,
                writes[start : start + _AT_ONCE],
                replicated=self._replicated,
                retry=self._retry,
            )
        return outcome

    async def insert_provisional(self, titled: Mapping[str, tuple[str, Vector]]) -> list[str]:
        """Makes products known by what a purchase calls them, unavailable until the catalogue says more.

        `titled` maps product ids to their title and its unit vector. Known products are left as they are. Returns the
        ids that are new.
        """
        known = await self.load(list(titled))
        new = [
            StoredProduct(product_id, title=title, vector=vector)
            for product_id, (title, vector) in titled.items()
            if product_id not in known
        ]
        outcome = await self.write(new)
        return [product.product_id for product, mine in zip(new, outcome, strict=True) if mine]

    async def count(self) -> int:
        request = qdrant.CountPoints(collection_name=self.collection, exact=True)
        response = await until_answered(
            lambda: self._client.grpc_points.Count(request, timeout=timeout_of(self._client)),
            doing="counting products",
            collection=self.collection,
            retry=self._retry,
            kind=PermanentReadError,
        )
        return int(response.result.count)

    async def sample_vectors(self, at_most: int) -> NDArray[np.float32]:
        """Vectors of at most `at_most` products, [n, d]; by id, and ids are keyed hashes: a random sample."""
        vectors: list[Vector] = []
        offset: qdrant.PointId | None = None
        while len(vectors) < at_most:
            request = qdrant.ScrollPoints(
                collection_name=self.collection,
                offset=offset,
                limit=min(1024, at_most - len(vectors)),
                with_payload=_NO_PAYLOAD,
                with_vectors=_TEXT,
            )
            response = await until_answered(
                lambda request=request: self._client.grpc_points.Scroll(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="sampling products",
                collection=self.collection,
                retry=self._retry,
                kind=PermanentReadError,
            )
            for point in response.result:
                vectors += read_vectors(point).values()
            if not response.HasField("next_page_offset"):
                break
            offset = response.next_page_offset
        return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def stored_product(point: qdrant.RetrievedPoint) -> StoredProduct:
    """A product from an answer of `Get` over gRPC, with its vector where that was asked for."""
    stored = {name: value_of(value) for name, value in point.payload.items()}
    price, ts = stored.get("price"), stored.get("ts")
    return StoredProduct(
        product_id=str(stored["product_id"]),
        title=str(stored.get("title", "")),
        brand=str(stored.get("brand", "")),
        category=str(stored.get("category", "")),
        kind=str(stored.get("kind", "product")),
        price=float(price) if isinstance(price, int | float) else None,
        available=bool(stored.get("available")),
        deleted=bool(stored.get("deleted")),
        ts=int(ts) if isinstance(ts, int) else None,
        vector=read_vectors(point).get("text"),
        source=(
            str(stored.get("topic_id", "")),
            _whole(stored.get("partition")),
            _whole(stored.get("offset")),
        ),
        version=_whole(stored.get("version")),
    )


def _whole(value: JSON) -> int:
    return value if isinstance(value, int) else -1
