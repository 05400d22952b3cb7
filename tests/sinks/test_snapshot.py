"""A snapshot finds what Qdrant finds, is read again when it is old, and not at all where the catalogue is too large."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sinks.catalogue import Catalogue, Product
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.products import ProductStore
from sinks.snapshot import CatalogueSnapshot, RecentSnapshot

pytestmark = pytest.mark.end_to_end

IDS = PointIds(bytes(range(32)))
AXES = np.eye(4, dtype=np.float32)


class Shop:
    def __init__(self, address: str) -> None:
        self.client = connect(address)
        self.name = f"s{uuid.uuid4().hex[:8]}"
        self.catalogue = Catalogue(self.client, f"products--{self.name}", IDS, cached=0)
        self.products = ProductStore(self.client, self.catalogue, IDS)
        self.now = 0.0

    def recent(self, at_most: int = 100) -> RecentSnapshot:
        return RecentSnapshot(
            self.client, self.catalogue.collection, at_most=at_most, max_age_seconds=30.0, clock=lambda: self.now
        )

    async def stock(self, *product_ids: str, kind: str = "product") -> None:
        rows = np.random.default_rng(len(product_ids)).normal(size=(len(product_ids), 4)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        await self.products.write(
            [
                Product(product_id, title=f"Title {product_id}", kind=kind, available=True, vector=row)
                for product_id, row in zip(product_ids, rows, strict=True)
            ]
        )


@pytest.fixture
async def shop(qdrant: str) -> AsyncIterator[Shop]:
    shop = Shop(qdrant)
    await open_generation(shop.client, Generation(shop.name, Model("tiny", "1", 4), IDS.fingerprint, {}, 0))
    yield shop
    await shop.client.close()


async def test_it_is_read_once_until_it_is_old(shop: Shop):
    await shop.stock("a", "b")
    recent = shop.recent()
    assert recent.at_hand is None
    first = await recent.get()
    assert first is not None
    assert sorted(first.product_ids) == ["a", "b"]
    await shop.stock("c")
    shop.now = 29.0
    assert await recent.get() is first
    assert recent.at_hand is first
    shop.now = 30.0
    assert recent.at_hand is None
    second = await recent.get()
    assert second is not None
    assert sorted(second.product_ids) == ["a", "b", "c"]


async def test_a_catalogue_that_is_too_large_is_none_and_not_read_again_soon(shop: Shop):
    await shop.stock("a", "b", "c")
    recent = shop.recent(at_most=2)
    assert await recent.get() is None
    await shop.products.write(
        [product._replace(deleted=True, available=False) for product in (await shop.products.load(["a"])).values()]
    )
    shop.now = 599.0
    assert await recent.get() is None
    shop.now = 600.0
    found = await recent.get()
    assert found is not None
    assert sorted(found.product_ids) == ["b", "c"]


async def test_what_is_near_is_what_qdrant_says(shop: Shop):
    await shop.stock(*(f"p{n}" for n in range(40)))
    await shop.stock("ad", kind="ad")
    snapshot = await shop.recent().get()
    assert snapshot is not None
    for kind in (None, "product", "ad"):
        asked = await shop.catalogue.near(AXES, 5, kind=kind)
        found = snapshot.near(AXES, 5, kind=kind)
        for theirs, ours in zip(asked, found, strict=True):
            assert [product.product_id for product in theirs] == list(ours.product_ids)
            np.testing.assert_allclose([product.score for product in theirs], ours.scores, atol=1e-6)


@pytest.mark.parametrize(("products", "limit"), [(1, 1), (7, 7), (30, 7), (101, 3), (1000, 10), (1003, 60)])
def test_what_is_near_is_what_a_sort_says(products: int, limit: int):
    chance = np.random.default_rng(products)
    vectors = chance.normal(size=(products, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.array([f"p{n}" for n in range(products)], np.object_)
    snapshot = CatalogueSnapshot(ids, np.array(["product"] * products), vectors, {}, {})
    queries = chance.normal(size=(5, 8)).astype(np.float32)
    for query, found in zip(queries, snapshot.near(queries, limit), strict=True):
        scores = vectors @ (query / np.linalg.norm(query))
        assert list(found.product_ids) == ids[np.argsort(-scores)[:limit]].tolist()
