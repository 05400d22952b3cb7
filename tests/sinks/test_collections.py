"""A generation is made once, by whoever comes first, and refuses whoever would mix another one into it."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import msgspec
import numpy as np
import pytest
from conditional_store import ConditionalStore, Unhurried
from qdrant_client import AsyncQdrantClient, models

from sinks.collections import Generation, Model, RefusedGeneration, read_generation
from sinks.connection import connect
from sinks.mean import Mean, read_mean, write_mean
from sinks.opening import open_generation
from sinks.points import payload_point
from sinks.writes import Write, new_version, write


@pytest.fixture
async def client(qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(qdrant, timeout_seconds=30)
    yield client
    await client.close()


def a_generation(name: str) -> Generation:
    return Generation(
        name=name,
        model=Model("all-MiniLM-L6-v2", "5a5f1c0e", 8),
        secret_fingerprint="00112233",
        fold={"half_life_long": 2_592_000_000, "weights": [1.0, 2.0, 4.0]},
        created_at_ms=1_764_000_000_000,
    )


class MemoryQdrant:
    """Collections and aliases in this process, and points in a store that decides conditions."""

    def __init__(self, store: ConditionalStore) -> None:
        self._collections = AsyncQdrantClient(":memory:")
        self.grpc_points = self._client = store
        self.init_options = store.init_options

    def __getattr__(self, name: str) -> object:
        return getattr(self._collections, name)


async def test_a_generation_is_recorded_once_and_read_again(client: AsyncQdrantClient) -> None:
    first = a_generation("recorded")
    later = msgspec.structs.replace(first, created_at_ms=1_765_000_000_000)
    assert await open_generation(client, first) == first
    assert await open_generation(client, later) == first
    assert await read_generation(client, "recorded") == first


async def test_of_workers_that_start_at_once_one_wins_and_the_others_compare(qdrant: str) -> None:
    clients = [connect(qdrant, timeout_seconds=30) for _ in range(3)]
    wanted = [msgspec.structs.replace(a_generation("contested"), created_at_ms=n) for n in (1, 2, 3)]
    opened = await asyncio.gather(*map(open_generation, clients, wanted))
    assert opened[0] in wanted
    assert opened == [opened[0]] * 3
    for client in clients:
        await client.close()


async def test_the_collections_are_as_documented(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("documented"))

    profiles = await client.get_collection("profiles--documented")
    vectors = cast(dict[str, models.VectorParams], profiles.config.params.vectors)
    assert {name: (v.size, v.distance, v.datatype) for name, v in vectors.items()} == dict.fromkeys(
        ("long", "short", "interests"), (8, models.Distance.COSINE, models.Datatype.FLOAT16)
    )
    assert vectors["interests"].multivector_config == models.MultiVectorConfig(
        comparator=models.MultiVectorComparator.MAX_SIM
    )
    assert profiles.config.hnsw_config.m == 0
    assert set(profiles.payload_schema) == {"due", "pending", "partition"}

    products = await client.get_collection("products--documented")
    (text,) = cast(dict[str, models.VectorParams], products.config.params.vectors).items()
    assert (text[0], text[1].size, text[1].distance) == ("text", 8, models.Distance.COSINE)
    assert set(products.payload_schema) == {"kind", "available", "product_id"}


async def test_aliases_are_made_when_there_are_none_and_never_repointed(client: AsyncQdrantClient) -> None:
    async def aliases() -> dict[str, str]:
        return {a.alias_name: a.collection_name for a in (await client.get_aliases()).aliases}

    await open_generation(client, a_generation("served"))
    before = await aliases()
    assert set(before) >= {"profiles", "products", "statistics"}
    await open_generation(client, a_generation("replaying"))
    assert await aliases() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": Model("e5", "77aa00ff", 8)},
            [
                "all-MiniLM-L6-v2 (5a5f1c0e, 8 dimensions)",
                "this worker has e5 (77aa00ff, 8 dimensions)",
                "encoder.model",
            ],
        ),
        ({"model": Model("all-MiniLM-L6-v2", "5a5f1c0e", 4)}, ["this worker has all-MiniLM-L6-v2 (5a5f1c0e, 4"]),
        ({"secret_fingerprint": "ffeeddcc"}, ["fingerprint 00112233", "has ffeeddcc", "secret_file"]),
    ],
)
async def test_what_would_mix_two_generations_is_refused_with_both_values_and_a_way_out(
    client: AsyncQdrantClient, change: dict[str, object], said: list[str]
) -> None:
    await open_generation(client, a_generation("guarded"))
    with pytest.raises(RefusedGeneration) as caught:
        await open_generation(client, msgspec.structs.replace(a_generation("guarded"), **change))
    message = str(caught.value)
    assert message.startswith("generation 'guarded' is not this worker's: ")
    assert message.endswith("or make a new generation: `afterglow replay`.")
    for words in said:
        assert words in message


async def test_a_model_that_was_only_renamed_is_the_same(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("renamed"))
    renamed = msgspec.structs.replace(a_generation("renamed"), model=Model("/models/minilm", "5a5f1c0e", 8))
    assert (await open_generation(client, renamed)).model.name == "all-MiniLM-L6-v2"


async def test_the_fold_that_was_recorded_first_holds(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("folded"))
    other = msgspec.structs.replace(a_generation("folded"), fold={"half_life_long": 1})
    assert (await open_generation(client, other)).fold == {
        "half_life_long": 2_592_000_000,
        "weights": [1.0, 2.0, 4.0],
    }


async def test_a_refused_worker_leaves_no_collection_of_its_own_dimension(client: AsyncQdrantClient) -> None:
    wanted = a_generation("half-made")
    await open_generation(client, wanted)
    await client.delete_collection("products--half-made")
    with pytest.raises(RefusedGeneration):
        await open_generation(client, msgspec.structs.replace(wanted, model=Model("e5", "77aa00ff", 4)))
    assert not await client.collection_exists("products--half-made")


async def test_there_is_no_generation_before_it_is_made(client: AsyncQdrantClient) -> None:
    assert await read_generation(client, "never-made") is None


async def test_a_record_of_another_format_is_refused(client: AsyncQdrantClient) -> None:
    await client.create_collection("statistics--foreign", vectors_config={})
    id_, version = "00000000-0000-0000-0000-000000000001", new_version()
    point = payload_point(id_, version, {"generation": '{"name": "foreign"}'})
    assert await write(client, "statistics--foreign", [Write(id_, version, None, point)]) == [True]
    with pytest.raises(RefusedGeneration, match="'foreign' can't be read by this version"):
        await open_generation(client, a_generation("foreign"))


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "x" * 101])
async def test_a_name_that_no_collection_can_have_is_refused(name: str) -> None:
    client = cast(AsyncQdrantClient, MemoryQdrant(ConditionalStore()))
    with pytest.raises(ValueError, match="can't name a generation"):
        await open_generation(client, a_generation(name))


async def test_a_server_that_ignores_conditions_is_refused() -> None:
    old = cast(AsyncQdrantClient, MemoryQdrant(ConditionalStore(heeds_conditions=False)))
    with pytest.raises(RefusedGeneration, match=r"Afterglow needs Qdrant 1\.16 or newer"):
        await open_generation(old, a_generation("main"), retry=Unhurried())


async def test_the_mean_is_replaced_only_by_who_has_read_it(client: AsyncQdrantClient) -> None:
    await open_generation(client, a_generation("mean"))
    assert await read_mean(client, "mean") is None

    first = Mean(new_version(), 100, np.array([0.5, -0.25, 0, 0, 0, 0, 0, 1e-7], np.float32))
    landmarks = np.array([[1, -127, 0, 0, 0, 0, 0, 0], [0, 0, 127, 5, 0, 0, 0, 0]], np.int8)
    second = Mean(new_version(), 200, first.vector * 2, landmarks)
    assert await write_mean(client, "mean", first, replaces=None)
    stored = await read_mean(client, "mean")
    assert stored is not None
    assert stored.landmarks.shape == (0, 8)
    assert not await write_mean(client, "mean", second, replaces=None)
    assert await write_mean(client, "mean", second, replaces=first.version)

    stored = await read_mean(client, "mean")
    assert stored is not None
    assert stored[:2] == second[:2]
    np.testing.assert_array_equal(stored.vector, second.vector)
    assert stored.vector.dtype == np.float32
    np.testing.assert_array_equal(stored.landmarks, landmarks)
    assert stored.landmarks.dtype == np.int8


async def test_a_mean_that_is_not_finite_is_refused(client: AsyncQdrantClient) -> None:
    mean = Mean(new_version(), 0, np.full(8, np.nan, np.float32))
    with pytest.raises(ValueError, match="mean of 0 products of generation 'mean' is not finite"):
        await write_mean(client, "mean", mean, replaces=None)
