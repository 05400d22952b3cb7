"""Writing the products of one generation: only over what was read, by the same rule as profiles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.catalogue import Catalogue, Product
from sinks.connection import timeout_of
from sinks.identity import PointIds
from sinks.points import product_point
from sinks.retry import RetryPolicy, until_answered
from sinks.stored import read_vectors
from sinks.wire import JSON, Vector
from sinks.words import product_words
from sinks.writes import Write, new_version, write

_TEXT = qdrant.WithVectorsSelector(include=qdrant.VectorsSelector(names=["text"]))
_NO_PAYLOAD = qdrant.WithPayloadSelector(enable=False)
_TEXT_FIELDS = ("title", "brand", "category")
_TEXT_PAYLOAD = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=[*_TEXT_FIELDS, "deleted"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)
_WRITTEN_AT_ONCE = 256
_SAMPLED_AT_ONCE = 1024


class ProductStore:
    """Conditional writes of `products--NAME`. What it writes is at once what `catalogue` gives in this process."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        catalogue: Catalogue,
        ids: PointIds,
        *,
        replicated: bool = False,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`catalogue` reads the collection by its real name, never by an alias."""
        self._client = client
        self._catalogue = catalogue
        self._ids = ids
        self._replicated = replicated
        self._retry = retry or RetryPolicy()

    async def load(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Those of the products that are stored, as they are now, marks of deleted ones included."""
        return await self._catalogue.read(product_ids)

    async def write(self, products: Sequence[Product]) -> list[bool]:
        """Writes each product over the `version` it was read with (`NOT_STORED`: there was none).

        False: somebody else wrote it meanwhile, and it has to be read again. Raises PermanentWriteError.
        """
        writes = []
        has_words = await self._catalogue.has_words()
        for product in products:
            id_, version = self._ids.product(product.product_id), new_version()
            words = product_words(product.text) if has_words and product.vector is not None else None
            point = product_point(id_, version, product.vector, _payload(product), words)
            writes.append(Write(id_, version, product.version or None, point))
        outcome: list[bool] = []
        for start in range(0, len(writes), _WRITTEN_AT_ONCE):
            outcome += await write(
                self._client,
                self._catalogue.collection,
                writes[start : start + _WRITTEN_AT_ONCE],
                replicated=self._replicated,
                retry=self._retry,
            )
        self._catalogue.invalidate(product.product_id for product in products)
        return outcome

    async def insert_provisional(self, titled: Mapping[str, tuple[str, Vector]]) -> None:
        """Makes products known by what a purchase calls them: {product_id: (title, unit vector of the title)}.

        Unavailable, and only where there is no point yet, not even the mark of a deletion: whatever the catalogue has
        said or will say stands. Raises PermanentWriteError.
        """
        known = await self._catalogue.get(titled)
        new = [
            Product(product_id, title=title, vector=vector)
            for product_id, (title, vector) in titled.items()
            if product_id not in known
        ]
        # Where somebody else's point is found, that is as good as ours.
        await self.write(new)

    async def count(self) -> int:
        """How many products there are, marks of deleted ones included."""
        request = qdrant.CountPoints(collection_name=self._catalogue.collection, exact=True)
        response: qdrant.CountResponse = await until_answered(
            lambda: self._client.grpc_points.Count(request, timeout=timeout_of(self._client)),
            doing="counting products",
            collection=self._catalogue.collection,
            retry=self._retry,
        )
        return int(response.result.count)

    async def sample_texts(self, at_most: int) -> list[str]:
        """What `Product.text` is of at most `at_most` products that aren't deleted: a random sample, as of vectors."""
        texts: list[str] = []
        async for point in self._sampled(at_most, _TEXT_PAYLOAD, _NO_VECTORS):
            stored = point.payload
            if not stored["deleted"].bool_value:
                texts.append(" ".join(filter(None, (stored[field].string_value for field in _TEXT_FIELDS))))
        return texts

    async def sample_vectors(self, at_most: int) -> NDArray[np.float32]:
        """Vectors of at most `at_most` products, [n, d]: the first by id, and ids are keyed hashes: a random sample."""
        vectors: list[Vector] = []
        async for point in self._sampled(at_most, _NO_PAYLOAD, _TEXT):
            vectors += read_vectors(point).values()
        return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)

    async def _sampled(
        self, at_most: int, payload: qdrant.WithPayloadSelector, vectors: qdrant.WithVectorsSelector
    ) -> AsyncIterator[qdrant.RetrievedPoint]:
        """The first by id."""
        sampled = 0
        offset: qdrant.PointId | None = None
        while sampled < at_most:
            request = qdrant.ScrollPoints(
                collection_name=self._catalogue.collection,
                offset=offset,
                limit=min(_SAMPLED_AT_ONCE, at_most - sampled),
                with_payload=payload,
                with_vectors=vectors,
            )
            response: qdrant.ScrollResponse = await until_answered(
                lambda request=request: self._client.grpc_points.Scroll(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="sampling products",
                collection=self._catalogue.collection,
                retry=self._retry,
            )
            for point in response.result:
                yield point
            sampled += len(response.result)
            if not response.HasField("next_page_offset"):
                break
            offset = response.next_page_offset


def _payload(product: Product) -> dict[str, JSON | bytes]:
    topic_id, partition, offset = product.source
    payload: dict[str, JSON | bytes] = {
        "product_id": product.product_id,
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "kind": product.kind,
        "available": product.available,
        "topic_id": topic_id,
        "partition": partition,
        "offset": offset,
    }
    if product.related:
        payload["related"] = list(product.related)
    if product.price is not None:
        payload["price"] = product.price
    if product.ts is not None:
        payload["ts"] = product.ts
    if product.deleted:
        payload["deleted"] = True
    if product.revised:
        payload["revised"] = True
    return payload
