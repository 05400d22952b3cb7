"""The catalogue's events become stored products, and whoever waited for one of them gets it.

By the same rule as profiles: load, compute, write on the condition that nothing else was written, read back, redo;
acknowledge last. What a product is follows from the newest event of its key alone: a stored product remembers the
offset it is from, and older news changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from encoders.client import EncoderClient, TextKind
from encoders.text import clean
from sinks.catalogue import UNSOURCED
from sinks.catalogue import Product as StoredProduct
from sinks.derivation import Vector
from sinks.mean import Mean
from sinks.products import ProductStore
from sinks.profiles import ProfileStore
from sinks.support import landmarks_of
from sinks.writes import new_version
from streams.dead_letters import DeadLetter
from streams.events import InvalidEvent, Product, check_key, decode_key, decode_product
from streams.records import Record, dead_letter

SAMPLE: Final = 10_000
"""Products that μ is the mean of, at most: enough for a mean, and a bounded read."""

TEXTS_SAMPLED: Final = 50_000
"""Products whose words are the catalogue's vocabulary, at most: a bounded read."""

SHRINKAGE: Final = 16
"""μ = Σ v / (n + 16): next to nothing for a handful of products, whose mean would be the products themselves."""

GROWTH: Final = 1.25
"""μ and the vocabulary are made anew when the catalogue has grown by a quarter: work in proportion to the catalogue,
over its life."""


@dataclass(frozen=True, slots=True)
class ProductBatch:
    """The newest event of each product of a batch, and what could not be understood."""

    products: Mapping[str, StoredProduct]  # by product id; the vector is still to come
    dead: Sequence[DeadLetter]


class CatalogueUpdater:
    """Applies batches of product events. One at a time, like `Updater.apply`."""

    def __init__(
        self,
        *,
        products: ProductStore,
        profiles: ProfileStore,
        encoder: EncoderClient,
        settle: Callable[[Sequence[str]], Awaitable[None]],
        changing: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle` folds in what the profiles of these point ids wait for: `Updater.settle`. `changing` tells readers
        that what may be recommended is changing.
        """
        self._products = products
        self._profiles = profiles
        self._encoder = encoder
        self._settle = settle
        self._changing = changing

    async def prepare(self, records: Sequence[Record]) -> ProductBatch:
        """Understands the records; of several events of one product only the newest counts."""
        products: dict[str, StoredProduct] = {}
        dead = []
        for record in records:
            try:
                product = _understand(record)
            except InvalidEvent as refusal:
                dead.append(dead_letter(record, refusal))
                continue
            earlier = products.get(product.product_id)
            if earlier is None or _is_newer(product, earlier):
                products[product.product_id] = product
        return ProductBatch(products, dead)

    async def apply(self, batch: ProductBatch) -> None:
        """Returns when every product is stored, or something newer is, and nobody waits for it any more.

        Raises PermanentWriteError and PermanentReadError; nothing of the batch may then be acknowledged.
        """
        waiting = dict(batch.products)
        while waiting:
            stored = await self._products.load(list(waiting))
            news = [product for id_, product in waiting.items() if id_ not in stored or _is_newer(product, stored[id_])]
            ready = await self._with_vectors(news, stored)
            changes = any(_is_change(product, stored.get(product.product_id)) for product in ready)
            if changes:
                await self._changing()
            outcome = await self._products.write(ready)
            if changes:
                await self._changing()
            waiting = {
                product.product_id: waiting[product.product_id]
                for product, mine in zip(ready, outcome, strict=True)
                if not mine
            }
        if batch.products and (waiters := await self._profiles.waiting_for(list(batch.products))):
            await self._settle(waiters)

    async def _with_vectors(
        self, products: Sequence[StoredProduct], stored: Mapping[str, StoredProduct]
    ) -> list[StoredProduct]:
        """Each with its vector: the stored one where the text is the same, so that a new price costs no encoding."""
        ready, to_encode = [], []
        for product in products:
            known = stored.get(product.product_id)
            if known is not None:
                renamed = not product.deleted and known.vector is not None and known.text != product.text
                product = product._replace(version=known.version, revised=known.revised or renamed)
            if product.deleted:
                ready.append(_mark(product, known))
            elif known is not None and known.vector is not None and known.text == product.text:
                ready.append(product._replace(vector=known.vector))
            else:
                to_encode.append(product)
        if to_encode:
            vectors = await self._encoder.encode([product.text for product in to_encode], TextKind.PRODUCT)
            ready += [product._replace(vector=vector) for product, vector in zip(to_encode, vectors, strict=True)]
        return ready


async def catalogue_mean(products: ProductStore, dimension: int) -> Mean:
    """μ and the landmarks of the catalogue as it is now."""
    count, vectors = await asyncio.gather(products.count(), products.sample_vectors(SAMPLE))
    if not len(vectors):
        return Mean(new_version(), count, np.zeros(dimension, np.float32), np.zeros((0, dimension), np.int8))
    mean = mean_of(vectors)
    return Mean(new_version(), count, mean, landmarks_of(vectors, mean))


def mean_of(vectors: Vector) -> Vector:
    """μ of a sample of the catalogue ([n, d], n from 1), float32 [d]."""
    mean: Vector = (vectors.sum(axis=0, dtype=np.float64) / (len(vectors) + SHRINKAGE)).astype(np.float32)
    return mean


def _understand(record: Record) -> StoredProduct:
    source = (record.topic_id, record.partition, record.offset)
    event: Product | None = decode_product(record.value, record.timestamp)
    if event is None:
        return StoredProduct(decode_key(record.key), deleted=True, source=source)
    check_key(record.key, event)
    return stored_product(event, source)


def stored_product(event: Product, source: tuple[str, int, int] = UNSOURCED) -> StoredProduct:
    """As it is stored; the vector is still to come. Raises InvalidEvent where the title says nothing."""
    if not clean(event.title):
        raise InvalidEvent("title", f"has nothing that could be encoded: {event.title[:40]!r}")
    return StoredProduct(
        event.product_id,
        title=event.title,
        brand=event.brand or "",
        category=event.category or "",
        price=event.price,
        kind=event.kind,
        available=event.available,
        related=related_of(event),
        ts=event.ts,
        source=source,
    )


def related_of(event: Product) -> tuple[str, ...]:
    """Each product that it goes with once, and not itself."""
    return tuple(one for one in dict.fromkeys(event.related or ()) if one != event.product_id)


def kinds_of(product: Product | StoredProduct) -> tuple[str, ...]:
    """The brand and the category, where it can be had and has them, each distinct from what the other calls so."""
    named = (("brand", product.brand), ("category", product.category)) if product.available else ()
    return tuple(f"{what} {name.strip().casefold()}" for what, name in named if name and name.strip())


def _is_change(product: StoredProduct, stored: StoredProduct | None) -> bool:
    """Whether a list might be another one with it: a price alone makes none."""
    return stored is None or (product.text, product.kind, product.available, product.deleted, product.related) != (
        stored.text,
        stored.kind,
        stored.available,
        stored.deleted,
        stored.related,
    )


def _mark(deletion: StoredProduct, known: StoredProduct | None) -> StoredProduct:
    """What stays of a deleted product: title and vector, for those who bought it, and that it is gone."""
    if known is None:
        return deletion
    return known._replace(deleted=True, available=False, source=deletion.source)


def _is_newer(product: StoredProduct, stored: StoredProduct) -> bool:
    """By offset within one topic; a topic made anew is newer than the one before it."""
    topic_id, _, offset = product.source
    return topic_id != stored.source[0] or offset > stored.source[2]
