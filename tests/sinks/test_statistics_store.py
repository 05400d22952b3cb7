"""Statistics are replaced by whoever read them last, and read whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from sinks.collections import statistics_collection
from sinks.connection import connect
from sinks.points import payload_point
from sinks.statistics import NO_STATISTICS, Statistics, no_neighbours
from sinks.statistics_store import Head, RecentStatistics, Stamped, StatisticsStore, StoredHead
from sinks.writes import Write, write

HEAD = "00000000-0000-0000-0000-000000000004"


@pytest.fixture
async def client(qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(qdrant, timeout_seconds=30)
    yield client
    await client.close()


@pytest.fixture
async def store(client: AsyncQdrantClient) -> AsyncIterator[StatisticsStore]:
    """Of a generation that nobody else has, with nothing in it."""
    name = f"g{uuid.uuid4().hex[:8]}"
    await client.create_collection(statistics_collection(name), {})
    yield StatisticsStore(client, name)
    await client.delete_collection(statistics_collection(name))


def statistics_of(*product_ids: str) -> Statistics:
    counts = np.arange(len(product_ids), dtype=np.float32)
    none = no_neighbours(len(product_ids))
    first = np.zeros(len(product_ids), np.int64)
    return Statistics(7, product_ids, first, first, *[counts] * 7, *[none] * 5)


async def put(
    store: StatisticsStore, replaces: StoredHead | None, *product_ids: str, checkpoint: bytes = b"kept"
) -> StoredHead | None:
    def describe(now: Stamped, before: Stamped | None) -> Head:
        return Head(now=now, before=before, made_at=1, as_of=7, offsets={}, events=3, users=1, products=1, covered=0)

    return await store.write(statistics_of(*product_ids), checkpoint, replaces, describe)


async def points(store: StatisticsStore, client: AsyncQdrantClient) -> int:
    return (await client.count(store._collection, exact=True)).count


@pytest.mark.end_to_end
async def test_what_is_written_is_read_back(store: StatisticsStore) -> None:
    assert await store.head() is None
    written = await put(store, None, "boots", "tent", checkpoint=bytes(range(256)) * 40_000)
    assert written is not None
    assert await store.head() == written
    found = await store.statistics(written.head)
    assert found is not None
    assert list(found.product_ids) == ["boots", "tent"]
    assert found.buyers.tolist() == [0.0, 1.0]
    assert await store.checkpoint(written.head) == bytes(range(256)) * 40_000


@pytest.mark.end_to_end
async def test_what_does_not_fit_into_one_piece_is_kept_in_several(store: StatisticsStore) -> None:
    checkpoint = np.random.default_rng(1).bytes(5_000_000)  # as good as incompressible
    written = await put(store, None, "boots", checkpoint=checkpoint)
    assert written is not None
    assert written.head.now.checkpoint == 3
    assert await store.checkpoint(written.head) == checkpoint


@pytest.mark.end_to_end
async def test_a_head_is_replaced_by_who_read_it_and_by_nobody_else(
    store: StatisticsStore, client: AsyncQdrantClient
) -> None:
    first = await put(store, None, "boots")
    assert first is not None
    assert await put(store, None, "tent") is None  # there was none when it looked
    second = await put(store, first, "tent")
    assert second is not None
    before = await points(store, client)
    assert await put(store, first, "mug") is None  # that has been replaced
    assert await store.head() == second
    assert await points(store, client) == before  # nothing is left of what lost


@pytest.mark.end_to_end
async def test_pieces_last_until_the_head_after_the_next_one(store: StatisticsStore, client: AsyncQdrantClient) -> None:
    first = await put(store, None, "boots")
    assert first is not None
    second = await put(store, first, "tent")
    assert second is not None
    late = await store.statistics(first.head)  # a reader who had read the first head
    assert late is not None
    assert list(late.product_ids) == ["boots"]

    third = await put(store, second, "mug")
    assert third is not None
    assert await store.statistics(first.head) is None
    assert await store.checkpoint(first.head) is None
    assert await store.statistics(second.head) is not None
    assert await points(store, client) == 1 + 2 + 2  # the head, and a piece of each part of two stamps


@pytest.mark.end_to_end
async def test_a_head_of_another_version_is_none_and_is_replaced(
    store: StatisticsStore, client: AsyncQdrantClient
) -> None:
    point = payload_point(HEAD, 41, {"stamp": "s", "head": '{"of": "another version"}'})
    assert await write(client, store._collection, [Write(HEAD, 41, None, point)]) == [True]
    assert await store.head() is None
    written = await put(store, None, "boots")
    assert written is not None
    assert await store.head() == written


@pytest.mark.end_to_end
async def test_readers_keep_the_old_until_they_can_read_the_new(store: StatisticsStore) -> None:
    now = 0.0
    recent = RecentStatistics(store, seconds=5.0, clock=lambda: now)
    assert await recent.get() is NO_STATISTICS

    first = await put(store, None, "boots")
    assert await recent.get() is NO_STATISTICS  # it has looked just now
    now = 5.0
    old = await recent.get()
    assert list(old.product_ids) == ["boots"]

    heads: list[StoredHead] = []

    class _Overtaken(StatisticsStore):
        """Between the head and its pieces, two more have come into force."""

        async def statistics(self, head: Head) -> Statistics | None:
            last = await store.head()
            for product_id in ("mug", "rope"):
                last = await put(store, last, product_id)
                assert last is not None
                heads.append(last)
            return await super().statistics(head)

    second = await put(store, first, "tent")
    assert second is not None
    recent._store = _Overtaken(store._client, store._collection.removeprefix("statistics--"))
    now = 10.0
    assert await recent.get() is old
    recent._store = store
    now = 15.0
    assert list((await recent.get()).product_ids) == ["rope"]


def test_a_head_says_what_it_was_made_from() -> None:
    head = Head(
        now=Stamped("s", 1, 2), made_at=5, as_of=4, offsets={"id": {"searches": [3, 0]}}, events=3, users=2, products=1,
        covered=0,
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(head), type=Head) == head
