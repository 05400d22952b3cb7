"""Products come from a bounded cache that never hides what was written, and searches ask Qdrant."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from conditional_store import ConditionalStore, Unhurried
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as qdrant

from sinks.catalogue import Catalogue, Product
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.points import product_point
from sinks.products import ProductStore
from sinks.retry import PermanentReadError
from sinks.wire import JSON
from sinks.words import product_words, query_words
from sinks.writes import Write, write

IDS = PointIds(bytes(range(32)))
AXES = np.eye(4, dtype=np.float32)


def a_catalogue(client: object, collection: str = "products--main", cached: int = 10, **options: object) -> Catalogue:
    return Catalogue(
        cast(AsyncQdrantClient, client),
        collection,
        IDS,
        cached=cached,
        retry=Unhurried(),
        **options,  # type: ignore[arg-type]
    )


def a_product(product_id: str, version: int, vector: np.ndarray | None, **payload: JSON) -> Write:
    id_ = IDS.product(product_id)
    fields: dict[str, JSON] = {"product_id": product_id, "title": f"Title {product_id}", "kind": "product"}
    fields |= {"available": True, **payload}
    return Write(id_, version, None, product_point(id_, version, vector, fields))


async def a_store_of(*product_ids: str) -> ConditionalStore:
    store = ConditionalStore()
    writes = [a_product(product_id, 1 + n, AXES[n]) for n, product_id in enumerate(product_ids)]
    await write(cast(AsyncQdrantClient, store), "products--main", writes)
    store.reads.clear()
    return store


def named(reads: list[list[str]], *product_ids: str) -> list[list[str]]:
    names = {IDS.product(product_id): product_id for product_id in product_ids}
    return [[names[id_] for id_ in read] for read in reads]


async def test_only_what_is_not_cached_is_read_and_in_one_go() -> None:
    store = await a_store_of("a", "b", "c")
    catalogue = a_catalogue(store)
    assert set(await catalogue.get(["a", "b", "a"])) == {"a", "b"}
    assert set(await catalogue.get(["b", "c"])) == {"b", "c"}
    assert set(await catalogue.get(["a", "b", "c"])) == {"a", "b", "c"}
    assert named(store.reads, "a", "b", "c") == [["a", "b"], ["c"]]


async def test_a_missing_product_is_looked_for_again() -> None:
    store = await a_store_of("a")
    catalogue = a_catalogue(store)
    assert await catalogue.get(["new"]) == {}
    await write(cast(AsyncQdrantClient, store), "products--main", [a_product("new", 9, AXES[3])])
    assert set(await catalogue.get(["new"])) == {"new"}


async def test_a_product_that_was_deleted_before_its_text_was_known_is_looked_for_again() -> None:
    store = await a_store_of("a")
    catalogue = a_catalogue(store)
    await write(
        cast(AsyncQdrantClient, store), "products--main", [a_product("new", 8, None, available=False, deleted=True)]
    )
    assert (await catalogue.get(["new"]))["new"].vector is None
    announced = a_product("new", 9, AXES[3])
    await write(cast(AsyncQdrantClient, store), "products--main", [replace(announced, replaces=8)])
    assert (await catalogue.get(["new"]))["new"].vector is not None


async def test_the_least_recently_used_product_leaves_first() -> None:
    store = await a_store_of("a", "b", "c")
    catalogue = a_catalogue(store, cached=2)
    for product_id in ("a", "b", "a", "c", "a", "b"):
        await catalogue.get([product_id])
    assert named(store.reads, "a", "b", "c") == [["a"], ["b"], ["c"], ["b"]]


async def test_a_product_is_read_anew_when_it_has_become_too_old() -> None:
    store, now = await a_store_of("a"), [0.0]
    catalogue = a_catalogue(store, max_age_seconds=60, clock=lambda: now[0])
    for now[0] in (0, 59, 61, 100, 122):
        await catalogue.get(["a"])
    assert len(store.reads) == 3  # at 0, 61 and 122


async def test_an_invalid_product_is_read_anew() -> None:
    store = await a_store_of("a", "b")
    catalogue = a_catalogue(store)
    await catalogue.get(["a", "b"])
    catalogue.invalidate(["a", "never-seen"])
    await catalogue.get(["a", "b"])
    assert named(store.reads, "a", "b") == [["a", "b"], ["a"]]


class SlowStore(ConditionalStore):
    """Answers a read only when it is told to, as things were when the read came."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def Get(self, request: qdrant.GetPoints, timeout: float) -> qdrant.GetResponse:  # noqa: N802
        response = await super().Get(request, timeout)
        self.asked.set()
        await self.answer.wait()
        return response


async def test_what_becomes_invalid_while_it_is_being_read_is_not_cached() -> None:
    store = SlowStore()
    store.points = (await a_store_of("a", "b")).points
    catalogue = a_catalogue(store)
    reading = asyncio.create_task(catalogue.get(["a", "b"]))
    await store.asked.wait()
    catalogue.invalidate(["a"])
    store.answer.set()
    await reading
    await catalogue.get(["a", "b"])
    assert named(store.reads, "a", "b") == [["a", "b"], ["a"]]


@pytest.fixture
async def client(qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(qdrant, timeout_seconds=30)
    yield client
    await client.close()


async def a_generation_of(client: AsyncQdrantClient, name: str, *writes: Write, cached: int = 10) -> Catalogue:
    generation = Generation(name, Model("tiny", "1", 4), IDS.fingerprint, {}, 0)
    await open_generation(client, generation)
    assert await write(client, f"products--{name}", writes) == [True] * len(writes)
    return a_catalogue(client, f"products--{name}", cached)


async def test_a_product_is_read_as_it_was_written(client: AsyncQdrantClient) -> None:
    full = a_product(
        "85123A",
        7,
        AXES[0],
        brand="Hearts",
        category="Home",
        price=3.0,
        kind="ad",
        related=["22423", "unheard-of"],
        ts=1_764_000_000_000,
        topic_id="T",
        partition=2,
        offset=9,
    )
    gone = a_product("22423", 8, None, available=False, deleted=True)
    catalogue = await a_generation_of(client, "read", full, gone)

    products = await catalogue.get(["85123A", "22423", "never"])

    vector = products["85123A"].vector
    assert vector is not None
    np.testing.assert_array_equal(vector, AXES[0])
    assert vector.dtype == np.float32
    assert products["85123A"]._replace(vector=None) == Product(
        product_id="85123A",
        version=7,
        title="Title 85123A",
        brand="Hearts",
        category="Home",
        price=3.0,
        kind="ad",
        available=True,
        deleted=False,
        related=("22423", "unheard-of"),
        ts=1_764_000_000_000,
        source=("T", 2, 9),
        vector=None,
    )
    assert products["22423"] == Product(
        "22423",
        8,
        "Title 22423",
        "",
        "",
        None,
        "product",
        available=False,
        deleted=True,
        ts=None,
        source=("", -1, -1),
        vector=None,
    )
    assert "never" not in products


async def test_a_search_finds_the_nearest_of_what_is_available(client: AsyncQdrantClient) -> None:
    catalogue = await a_generation_of(
        client,
        "near",
        a_product("first", 1, AXES[0]),
        a_product("second", 2, np.array([0.6, 0.8, 0, 0], np.float32)),
        a_product("sold out", 3, AXES[0], available=False),
        a_product("gone", 4, AXES[0], available=False, deleted=True),
        a_product("ad", 5, np.array([0.8, 0, 0.6, 0], np.float32), kind="ad"),
    )
    queries = np.array([[2, 0, 0, 0], [0.3, 0.4, 0, 0]], np.float32)

    found = await catalogue.near(queries, 2)
    assert [[p.product_id for p in row] for row in found] == [["first", "ad"], ["second", "first"]]
    np.testing.assert_allclose([[p.score for p in row] for row in found], [[1, 0.8], [1, 0.6]], atol=1e-6)
    assert (found[0][1].title, found[0][1].kind, found[0][1].vector) == ("Title ad", "ad", None)

    ((only,),) = await catalogue.near(queries[:1], 5, kind="ad")
    assert only.product_id == "ad"

    assert await catalogue.count_available(["first", "sold out", "gone", "ad", "never heard of"]) == 2
    assert await catalogue.count_available([]) == 0


async def test_what_is_near_a_text_comes_with_its_vectors_whether_it_was_read_before_or_not(
    client: AsyncQdrantClient,
) -> None:
    catalogue = await a_generation_of(
        client,
        "text",
        a_product("first", 1, AXES[0]),
        a_product("sold out", 2, AXES[0], available=False),
        a_product("ad", 3, np.array([0.8, 0, 0.6, 0], np.float32), kind="ad"),
    )
    nothing = query_words("?")
    for _ in range(2):
        near, worded = await catalogue.for_text(AXES[0] * 2, nothing, 5)
        assert worded == []
        assert [(one.product_id, one.title, one.kind) for one in near] == [
            ("first", "Title first", "product"),
            ("ad", "Title ad", "ad"),
        ]
        np.testing.assert_allclose([one.score for one in near], [1, 0.8], atol=1e-6)
        assert near[1].vector is not None
        np.testing.assert_allclose(near[1].vector, [0.8, 0, 0.6, 0], atol=1e-6)
    (only,), _ = await catalogue.for_text(AXES[0], nothing, 5, kind="ad")
    assert only.product_id == "ad"


async def test_a_product_that_left_the_cache_is_found_by_a_text_as_it_is_now(client: AsyncQdrantClient) -> None:
    catalogue = await a_generation_of(client, "left", *(a_product(str(n), 1 + n, AXES[n]) for n in range(4)), cached=1)
    for n in (0, 1, 0, 3):
        (best, *_), _ = await catalogue.for_text(AXES[n], query_words("?"), 2)
        assert (best.product_id, best.title) == (str(n), f"Title {n}")
    store = ProductStore(client, catalogue, IDS)
    await store.write([(await catalogue.read(["3"]))["3"]._replace(title="Another title")])
    ((best, *_), _) = await catalogue.for_text(AXES[3], query_words("?"), 2)
    assert (best.product_id, best.title) == ("3", "Another title")


async def test_many_queries_are_answered_in_their_order(client: AsyncQdrantClient) -> None:
    catalogue = await a_generation_of(client, "many", *(a_product(str(n), 1 + n, AXES[n]) for n in range(4)))
    order = [n % 4 for n in range(150)]
    found = await catalogue.near(AXES[order], 1)
    assert [row[0].product_id for row in found] == [str(n) for n in order]
    assert await catalogue.near(AXES[:0], 1) == []


async def test_a_query_that_is_not_finite_or_no_batch_is_refused(client: AsyncQdrantClient) -> None:
    catalogue = a_catalogue(client)
    with pytest.raises(ValueError, match=r"shape \(4,\) must be \[n, d\] and finite"):
        await catalogue.near(AXES[0], 1)
    with pytest.raises(ValueError, match="and finite"):
        await catalogue.near(np.full((1, 4), np.inf, np.float32), 1)


async def test_a_query_of_another_dimension_is_a_permanent_error(client: AsyncQdrantClient) -> None:
    catalogue = await a_generation_of(client, "dimension", a_product("a", 1, AXES[0]))
    with pytest.raises(PermanentReadError, match="'products--dimension' was refused: INVALID_ARGUMENT"):
        await catalogue.near(np.ones((1, 3), np.float32), 1)


async def test_a_provisional_product_is_known_but_not_shown_and_never_replaces(client: AsyncQdrantClient) -> None:
    gone = a_product("gone", 2, None, available=False, deleted=True)
    catalogue = await a_generation_of(client, "provisional", a_product("real", 1, AXES[0]), gone)

    titles = dict.fromkeys(("real", "gone", "new"), ("AS BOUGHT", AXES[1]))
    store = ProductStore(client, catalogue, IDS)
    await store.insert_provisional(titles)
    await store.insert_provisional(titles)

    products = await catalogue.get(["real", "gone", "new"])
    assert {p.product_id: (p.title, p.available, p.deleted) for p in products.values()} == {
        "real": ("Title real", True, False),
        "gone": ("Title gone", False, True),
        "new": ("AS BOUGHT", False, False),
    }
    np.testing.assert_array_equal(products["new"].vector, AXES[1])
    assert [p.product_id for p in (await catalogue.near(AXES[1:2], 5))[0]] == ["real"]


async def worded(catalogue: Catalogue, query: str, kind: str | None = None) -> list[tuple[str, float]]:
    _, found = await catalogue.for_text(AXES[0], query_words(query), 10, kind=kind)
    return [(one.product_id, round(one.score, 3)) for one in found]


@pytest.mark.end_to_end
async def test_products_are_found_by_their_words_the_rarer_the_better(client: AsyncQdrantClient) -> None:
    name = f"worded-{uuid.uuid4().hex[:8]}"
    await open_generation(client, Generation(name, Model("axes", "axes@4", 4), IDS.fingerprint, {}, created_at_ms=5))
    catalogue = a_catalogue(client, f"products--{name}")
    titles = {"lamp": "Desk lamp", "boots": "Walking boots", "desk": "Walnut desk", "guide": "Desk care, a guide"}
    store = ProductStore(client, catalogue, IDS)
    await store.write(
        [
            Product(
                product_id,
                title=title,
                available=True,
                kind="content" if product_id == "guide" else "product",
                vector=AXES[n],
            )
            for n, (product_id, title) in enumerate(titles.items())
        ]
    )
    assert [product_id for product_id, _ in await worded(catalogue, "DESK lamps")] == ["lamp", "desk", "guide"]
    assert [product_id for product_id, _ in await worded(catalogue, "desk", "content")] == ["guide"]
    assert await worded(catalogue, "tent") == await worded(catalogue, "?") == []
    assert await catalogue.known_of(["tent", "desks", "boot", "lampp"]) == {"desks", "boot"}
    assert await catalogue.known_of([]) == set()
    _, (best,) = await catalogue.for_text(AXES[0], query_words("boot"), 1)
    assert best.vector is not None
    assert best.vector.tolist() == AXES[1].tolist()
    # ln((4 - 1 + .5) / (1 + .5) + 1) times what a word of two weighs
    assert best.score == pytest.approx(1.204 * product_words("Walking boots").weights[0], rel=1e-3)


@pytest.mark.end_to_end
async def test_a_collection_that_was_made_before_there_were_words_is_written_and_read_without(
    client: AsyncQdrantClient,
) -> None:
    collection = f"products--old-{uuid.uuid4().hex[:8]}"
    params = models.VectorParams(size=4, distance=models.Distance.COSINE)
    await client.create_collection(collection, vectors_config={"text": params})
    catalogue = a_catalogue(client, collection)
    store = ProductStore(client, catalogue, IDS)
    assert await store.write([Product("lamp", title="Desk lamp", available=True, vector=AXES[0])]) == [True]
    assert await worded(catalogue, "lamp") == []
    assert [one.product_id for (one,) in await catalogue.near(AXES[:1], 5)] == ["lamp"]
    await client.delete_collection(collection)
    assert await catalogue.known_of(["desk"]) == set()
