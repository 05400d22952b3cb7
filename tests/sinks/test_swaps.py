"""What readers see while generations are swapped under them: every answer is wholly of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from services import running_qdrant

import sinks.retrieval.serving
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.derivation import Vector
from sinks.generations import drop_generation, serve
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState, encode_state
from sinks.mean import Mean, write_mean
from sinks.opening import open_generation
from sinks.points import product_point, profile_point
from sinks.retrieval import AsyncRecommender, NothingServed
from sinks.retry import PermanentReadError
from sinks.writes import Write, new_version, write
from streams.profiles import Contribution, FoldEvent, FoldRules, fold

pytestmark = pytest.mark.end_to_end

DAY, NOW = 86_400_000, 1_700_000_000_000
SECRET = bytes(range(32))
IDS = PointIds(SECRET)
FOLD = FoldRules(30.0 * DAY, 3_600_000.0, history=8, event_id_memory=0, pending=8)
PRODUCTS = 12
BOUGHT = ("p0", "p1", "p2")


@pytest.fixture(scope="module")
def own_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant"))) as address:
        yield address


@pytest.fixture
async def client(own_qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(own_qdrant, timeout_seconds=30)
    yield client
    await client.close()


def vectors_of(model: str) -> Vector:
    """One unit vector a product, and a query's as the last: each model has others."""
    found = np.random.default_rng(list(model.encode())).standard_normal((PRODUCTS + 1, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


async def encode_query(_: str, model: Model) -> Vector:
    await asyncio.sleep(0)
    return vectors_of(model.identity)[PRODUCTS]


async def make(client: AsyncQdrantClient, name: str) -> None:
    """A generation whose titles tell its name, and whose model is its own; ada bought the same in all of them."""
    folded: dict[str, object] = {"half_life_long_ms": 30 * DAY, "half_life_short_ms": 3_600_000}
    model = Model(name, f"id-{name}", 16)
    await open_generation(client, Generation(name, model, IDS.fingerprint, folded, created_at_ms=NOW), serve=False)
    vectors = vectors_of(model.identity)
    products = []
    for n in range(PRODUCTS):
        id_, version = IDS.product(f"p{n}"), new_version()
        payload = {"product_id": f"p{n}", "title": f"{name} product {n}", "kind": "product", "available": True}
        products.append(Write(id_, version, None, product_point(id_, version, vectors[n], payload)))
    await write(client, f"products--{name}", products)
    await write_mean(client, name, Mean(new_version(), PRODUCTS, vectors[:PRODUCTS].mean(axis=0) / 2), replaces=None)
    ledger = Ledger()
    events = [
        FoldEvent(n, NOW + n, n + 1, 0, (Contribution(f"p{product}", 4.0, vectors[n]),))
        for n, product in enumerate(BOUGHT)
    ]
    fold(ledger, "purchases", 0, events, FOLD)
    id_, version = IDS.user("ada"), new_version()
    state = encode_state(ProfileState(Ledger(), ledger))
    point = profile_point(id_, version, vectors[0], None, None, {"state": state, "known": 0.5})
    await write(client, f"profiles--{name}", [Write(id_, version, None, point)])


def reader(address: str, generation: str | None = None) -> AsyncRecommender:
    return AsyncRecommender(address, SECRET, generation=generation, encode_query=encode_query)


async def answers(reader: AsyncRecommender) -> list[object]:
    """One of each kind; floats rounded, and without what the clock decides."""
    listed = await reader.recommend("ada", limit=5, at=NOW + DAY)
    asked = await reader.recommend("ada", limit=5, at=NOW + DAY, query="anything")
    crowd = await reader.recommend_many(["ada"] * 65, limit=5, at=NOW + DAY)  # enough for a snapshot
    seen = await reader.profile("ada", at=NOW + DAY)
    found, _ = await reader.search("anything", limit=5)
    return [
        [(item.title, round(item.score, 3)) for item in listed.items],
        [(item.title, round(item.score, 3)) for item in asked.items],
        [(item.title, round(item.score, 3)) for item in crowd[64].items],
        (seen.generation, [(key.text, round(key.share, 3)) for key in seen.keys], seen.interests[0].texts),
        [(product.title, round(product.similarity, 3)) for product in found],
    ]


async def test_a_reader_goes_on_at_once_when_the_generation_it_reads_was_replaced_and_dropped(
    own_qdrant: str, client: AsyncQdrantClient
) -> None:
    await make(client, "first")
    await make(client, "second")
    await serve(client, "first")
    async with reader(own_qdrant) as following, reader(own_qdrant, "first") as pinned:
        assert (await following.profile("ada")).generation == "first"
        assert (await pinned.profile("ada")).generation == "first"

        await serve(client, "second")
        await drop_generation(client, "first")

        async with reader(own_qdrant) as newcomer:
            expected = await answers(newcomer)
        assert [title.split()[0] for title, _ in expected[0]] == ["second"] * 5
        assert await answers(following) == expected
        with pytest.raises(PermanentReadError, match="first"):
            await pinned.profile("ada")


async def test_a_reader_of_a_generation_that_was_deleted_by_hand_is_told_so(
    own_qdrant: str, client: AsyncQdrantClient
) -> None:
    await make(client, "only")
    await serve(client, "only")
    async with reader(own_qdrant) as following:
        assert (await following.profile("ada")).generation == "only"
        await client.delete_collection("products--only")  # and with it the alias, but that of the profiles stays
        with pytest.raises(PermanentReadError, match="products--only"):
            await following.recommend("ada")
        for collection in ("profiles--only", "statistics--only"):
            await client.delete_collection(collection)
        with pytest.raises(NothingServed, match="serves no profiles yet"):
            await following.profile("ada")


async def test_of_two_hundred_swaps_every_answer_is_wholly_of_one_generation(
    own_qdrant: str, client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks.retrieval.serving, "SERVING_SECONDS", -1.0)  # every answer looks up which one is served
    expected: list[list[object]] = []
    for name in ("left", "right"):
        await make(client, name)
        async with reader(own_qdrant, name) as pinned:
            expected.append(await answers(pinned))
    await serve(client, "left")
    swapping = True
    seen: list[set[int]] = [set() for _ in expected[0]]

    async def read() -> int:
        count = 0
        async with reader(own_qdrant) as following:
            while swapping:
                for kind, answer in enumerate(await answers(following)):
                    (side,) = [n for n, of in enumerate(expected) if of[kind] == answer]  # exactly one of the two
                    seen[kind].add(side)
                    count += 1
        return count

    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(read()) for _ in range(4)]
        for n in range(200):
            await serve(client, ("right", "left")[n % 2])
        while any(sides != {0, 1} for sides in seen):
            await serve(client, "right")
            await asyncio.sleep(0.05)
            await serve(client, "left")
            await asyncio.sleep(0.05)
        swapping = False
    assert sum(task.result() for task in readers) > 0
    assert seen == [{0, 1}] * 5
