"""Which generation readers see is changed in one step; records change only for who has read them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from qdrant_client import AsyncQdrantClient, models
from services import running_qdrant

from sinks.collections import Built, Generation, Model, RefusedGeneration, Source, read_generation
from sinks.connection import connect
from sinks.generations import (
    StillServed,
    change_generation,
    drop_generation,
    list_generations,
    serve,
    served_generation,
)
from sinks.opening import open_generation
from sinks.retry import PermanentSinkError


@pytest.fixture(scope="module")
def own_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant"))) as address:
        yield address


@pytest.fixture
async def client(own_qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(own_qdrant, timeout_seconds=30)
    yield client
    await client.close()


def a_generation(name: str, created_at_ms: int = 1) -> Generation:
    return Generation(name, Model("small", "abc", 4), "00112233", {"half_life_long_ms": 5}, created_at_ms)


async def test_nothing_is_served_at_first_then_the_first_generation_then_the_one_that_is_activated(
    client: AsyncQdrantClient,
) -> None:
    assert await served_generation(client) is None
    await open_generation(client, a_generation("quiet", 1), serve=False)
    assert await served_generation(client) is None
    await open_generation(client, a_generation("main", 3))
    assert await served_generation(client) == "main"
    await open_generation(client, a_generation("g1", 2))
    assert await served_generation(client) == "main"

    await serve(client, "g1")
    assert await served_generation(client) == "g1"
    aliases = {one.alias_name: one.collection_name for one in (await client.get_aliases()).aliases}
    assert aliases == {"profiles": "profiles--g1", "products": "products--g1", "statistics": "statistics--g1"}
    assert [generation.name for generation in await list_generations(client)] == ["quiet", "g1", "main"]


async def test_one_that_is_dropped_after_it_was_listed_is_left_out(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_generation(client, a_generation("brief"), serve=False)
    collections = client.get_collections

    async def listed() -> models.CollectionsResponse:
        found = await collections()
        await drop_generation(client, "brief")
        return found

    monkeypatch.setattr(client, "get_collections", listed)
    assert "brief" not in [generation.name for generation in await list_generations(client)]


async def test_what_does_not_exist_is_not_served_and_readers_keep_what_they_have(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("main", 3))
    await serve(client, "main")
    with pytest.raises(PermanentSinkError):
        await serve(client, "never-made")
    assert await served_generation(client) == "main"


async def test_the_served_generation_is_not_dropped_and_another_one_is(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("kept"))
    await open_generation(client, a_generation("old"))
    await serve(client, "kept")
    with pytest.raises(StillServed, match="readers see generation 'kept'"):
        await drop_generation(client, "kept")
    assert await drop_generation(client, "old")
    assert await read_generation(client, "old") is None
    assert not await client.collection_exists("profiles--old")
    assert not await drop_generation(client, "old")
    assert await read_generation(client, "kept") == a_generation("kept")


async def test_of_changes_at_the_same_time_none_is_lost(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("changing"))

    def built(generation: Generation) -> Generation:
        return msgspec.structs.replace(generation, built=Built(7, {"searches": [1, 2]}))

    def made_anew(generation: Generation) -> Generation:
        return msgspec.structs.replace(generation, sources={"searches": Source("s", "id", [0, 0])})

    await asyncio.gather(change_generation(client, "changing", built), change_generation(client, "changing", made_anew))
    expected = made_anew(built(a_generation("changing")))
    assert await read_generation(client, "changing") == expected
    assert await change_generation(client, "changing", built) == expected


async def test_a_generation_that_was_dropped_is_not_changed(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("gone"))
    await client.delete_collection("statistics--gone")
    with pytest.raises((RefusedGeneration, PermanentSinkError)):
        await change_generation(client, "gone", lambda generation: generation)
