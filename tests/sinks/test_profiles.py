"""The cache of profiles is bounded by what it holds, and forgets what turned out to be somebody else's."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient

from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.points import profile_point
from sinks.profiles import MISSING, Held, ProfileStore
from sinks.writes import Write, new_version

pytestmark = pytest.mark.end_to_end

IDS = PointIds(bytes(range(32)))


@pytest.fixture
async def collection(qdrant: str) -> AsyncIterator[tuple[AsyncQdrantClient, str]]:
    client, name = connect(qdrant), f"p{uuid.uuid4().hex[:8]}"
    await open_generation(client, Generation(name, Model("tiny", "1", 4), IDS.fingerprint, {}, 0))
    yield client, f"profiles--{name}"
    await client.close()


def stored(user: str, size: int, replaces: int | None = None) -> tuple[Write, Held]:
    """A profile of `size` bytes of state."""
    version, state = new_version(), b"s" * size
    point = profile_point(IDS.user(user), version, None, None, None, {"state": state, "partition": 0})
    return Write(IDS.user(user), version, replaces, point), Held(version=version, state=state)


def counted(store: ProfileStore) -> list[int]:
    """How many profiles each of the store's later reads asked Qdrant for."""
    asked: list[int] = []
    read = store._read

    async def counting(ids):
        asked.append(len(ids))
        return await read(ids)

    store._read = counting
    return asked


async def test_what_was_written_is_not_read_again_until_it_is_too_much(collection: tuple[AsyncQdrantClient, str]):
    store = ProfileStore(*collection, cached_bytes=20_000)
    asked = counted(store)
    users = [IDS.user(str(n)) for n in range(10)]
    await store.write([stored(str(n), 4_000) for n in range(10)])
    found = await store.load(users)
    assert asked == [6]  # four of 4,600 bytes fit into 20,000
    assert [len(found[user].state) for user in users] == [4_000] * 10


async def test_a_profile_that_somebody_else_wrote_is_read_anew(collection: tuple[AsyncQdrantClient, str]):
    mine, theirs = ProfileStore(*collection, cached_bytes=20_000), ProfileStore(*collection, cached_bytes=20_000)
    first = stored("ada", 10)
    assert await mine.write([first]) == [True]
    second = stored("ada", 20, replaces=first[0].version)
    assert await theirs.write([second]) == [True]
    assert len((await mine.load([IDS.user("ada")]))[IDS.user("ada")].state) == 10  # stale, and allowed to be
    assert await mine.write([stored("ada", 30, replaces=first[0].version)]) == [False]
    assert len((await mine.load([IDS.user("ada")]))[IDS.user("ada")].state) == 20


async def test_a_profile_that_is_not_there_is_missing_and_not_remembered_as_such(
    collection: tuple[AsyncQdrantClient, str],
):
    store = ProfileStore(*collection, cached_bytes=20_000)
    assert await store.load([IDS.user("bob")]) == {IDS.user("bob"): MISSING}
    await ProfileStore(*collection, cached_bytes=0).write([stored("bob", 5)])
    assert (await store.load([IDS.user("bob")]))[IDS.user("bob")].state == b"sssss"
