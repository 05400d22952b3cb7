"""What a keeper does beside the updates: dead letters, each sent once, and the catalogue's vocabulary."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from services import running_qdrant

from encoders.testing import WordHashEncoder
from sinks.collections import Generation, Model, Source
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.mean import Mean, read_mean, write_mean
from sinks.opening import open_generation
from sinks.vocabulary import VocabularyStore
from sinks.writes import new_version
from streams.generations import group_of
from streams.groups import set_offsets
from streams.kafka import connect_admin
from streams.keeper import Keeper
from streams.opening import sources_now
from streams.records import Record
from streams.settings import Settings, load
from streams.topics import end_offsets, ensure_topics

IDS = PointIds(bytes(range(32)))


@pytest.fixture(scope="module")
def own_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant"))) as address:
        yield address


@pytest.fixture
def shop(settings: Settings, own_qdrant: str, tmp_path: Path) -> Settings:
    topics = settings.topics
    return load(
        data_dir=tmp_path,
        overrides={
            "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
            "topics.searches": topics.searches,
            "topics.purchases": topics.purchases,
            "topics.products": topics.products,
            "topics.dead_letters": topics.dead_letters,
            "topics.partitions": "1",
            "qdrant.address": own_qdrant,
        },
        environment={},
    )


@pytest.fixture
async def client(own_qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(own_qdrant)
    yield client
    await client.close()


async def opened(client: AsyncQdrantClient, name: str, sources: Mapping[str, Source]) -> Generation:
    model = Model("word-hash", "word-hash-64", 64)
    return await open_generation(client, Generation(name, model, IDS.fingerprint, {}, 1, dict(sources)))


async def fold_poison(shop: Settings, client: AsyncQdrantClient, generation: Generation, *offsets: int) -> int:
    """How many letters the generation sends of poison events at these offsets of the searches."""
    keeper = Keeper(shop, generation, client=client, encoder=WordHashEncoder(64), ids=IDS)
    await keeper.start()
    topic = shop.topics.searches
    records = [Record(topic, generation.sources["searches"].id, 0, offset, 1, b"u", b"{poison") for offset in offsets]
    before = letters(shop)
    await keeper.apply_events(await keeper.prepare_events(records))
    return letters(shop) - before


def letters(shop: Settings) -> int:
    admin = connect_admin(shop.kafka)
    topics = ensure_topics(shop)
    return end_offsets(admin, {shop.topics.dead_letters: topics[shop.topics.dead_letters]})[shop.topics.dead_letters, 0]


async def test_what_another_generation_has_read_it_has_seen_to(shop: Settings, client: AsyncQdrantClient) -> None:
    sources = await sources_now(shop, ensure_topics(shop))
    main, later = await opened(client, "main", sources), await opened(client, "g2", sources)
    searches = (shop.topics.searches, 0)
    assert await fold_poison(shop, client, main, 3, 4) == 2
    set_offsets(shop.kafka, group_of("main"), {searches: 5})
    assert await fold_poison(shop, client, later, 3, 4) == 0
    assert await fold_poison(shop, client, later, 5) == 1

    # It began at offset 8: of what came before it knows nothing, whatever its group has committed.
    begins = sources | {"searches": Source(sources["searches"].topic, sources["searches"].id, [8])}
    await opened(client, "late", begins)
    set_offsets(shop.kafka, group_of("late"), {searches: 10})
    assert await fold_poison(shop, client, main, 7, 8, 9) == 1


async def test_the_vocabulary_follows_the_catalogue_as_it_grows(shop: Settings, client: AsyncQdrantClient) -> None:
    sources = await sources_now(shop, ensure_topics(shop))
    generation = await opened(client, "growing", sources)
    store = VocabularyStore(client, "growing")

    async def keeper() -> Keeper:
        keeper = Keeper(shop, generation, client=client, encoder=WordHashEncoder(64), ids=IDS)
        await keeper.start()
        return keeper

    async def announce(keeper: Keeper, *titles: str) -> dict[str, int]:
        topic, id_ = shop.topics.products, sources["products"].id
        records = [
            Record(
                topic,
                id_,
                0,
                next(offsets),
                1,
                title.encode(),
                json.dumps({"product_id": title, "title": title}).encode(),
            )
            for title in titles
        ]
        await keeper.apply_products(await keeper.prepare_products(records))
        stored = await store.read()
        assert stored is not None
        return stored.vocabulary.products

    offsets = itertools.count()
    first = await keeper()
    assert await store.read() is None, "of no products there is none"
    five = {"red": 5, "boots": 1, "shoes": 1, "socks": 1, "hats": 1, "tents": 1}
    assert await announce(first, "red boots", "red shoes", "red socks", "red hats", "red tents") == five
    assert await announce(first, "blue mugs") == five, "grown by less than a quarter"
    assert (await announce(await keeper(), "green cups")).keys() - five.keys() == {"blue", "mugs", "green", "cups"}


async def test_a_generation_made_before_there_were_landmarks_gets_them_when_a_worker_starts(
    shop: Settings, client: AsyncQdrantClient
) -> None:
    sources = await sources_now(shop, ensure_topics(shop))
    generation = await opened(client, "without", sources)
    topic, id_ = shop.topics.products, sources["products"].id
    records = [
        Record(topic, id_, 0, n, 1, b"%d" % n, json.dumps({"product_id": str(n), "title": f"thing {n}"}).encode())
        for n in range(65)
    ]
    keeper = Keeper(shop, generation, client=client, encoder=WordHashEncoder(64), ids=IDS)
    await keeper.start()
    await keeper.apply_products(await keeper.prepare_products(records))
    mean = await read_mean(client, "without")
    assert mean is not None
    assert mean.landmarks.shape == (65, 64)

    bare = Mean(new_version(), 65, mean.vector)
    assert await write_mean(client, "without", bare, replaces=mean.version)
    await Keeper(shop, generation, client=client, encoder=WordHashEncoder(64), ids=IDS).start()
    again = await read_mean(client, "without")
    assert again is not None
    np.testing.assert_array_equal(again.landmarks, mean.landmarks)
