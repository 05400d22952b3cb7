"""One look at everything: what is counted, what is wrong, and that one dead service does not hide the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from qdrant_client import AsyncQdrantClient

from encoders.protocol import ModelDescription
from sinks.collections import Generation, Model, Source
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.points import product_point, profile_point
from sinks.wire import JSON
from sinks.writes import Write, new_version, write
from streams import group_health, health
from streams.app import create_app
from streams.groups import set_offsets
from streams.health import look
from streams.kafka import answered, connect_admin
from streams.pipeline import Intake
from streams.producer import EventProducer
from streams.settings import Settings, load
from streams.status import EncoderStatus
from streams.topics import ensure_topics

pytestmark = pytest.mark.end_to_end

IDS = PointIds(bytes(range(32)))
X = np.eye(4, dtype=np.float32)[0]


@pytest.fixture
def both(settings: Settings, qdrant: str, tmp_path: Path) -> Settings:
    """The session's Kafka and Qdrant, and no encoding worker."""
    topics = settings.topics
    return load(
        data_dir=tmp_path,
        overrides={
            "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
            "topics.searches": topics.searches,
            "topics.purchases": topics.purchases,
            "topics.products": topics.products,
            "topics.dead_letters": topics.dead_letters,
            "topics.partitions": "2",
            "generation": settings.generation,
            "qdrant.address": qdrant,
        },
        environment={},
    )


@pytest.fixture
async def client(qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(qdrant)
    yield client
    await client.close()


async def fill(client: AsyncQdrantClient, name: str) -> None:
    await open_generation(client, Generation(name, Model("small", "abc", 4), IDS.fingerprint, {}, 5))
    profiles: dict[str, dict[str, JSON | bytes]] = {
        "ada": {
            "n_searches": 2,
            "n_purchases": 3,
            "pending": ["lamp", "rug"],
            "due": 1000,
            "noise": {"rate": 1},
        },
        "bob": {"n_searches": 0, "n_purchases": 4, "pending": ["lamp"]},
        "eve": {"n_searches": 5, "n_purchases": 0, "due": 2**42, "noise": {"gibberish": 2, "rate": 2}},
    }
    writes = []
    for user, payload in profiles.items():
        id_, version = IDS.user(user), new_version()
        writes.append(Write(id_, version, None, profile_point(id_, version, X, None, None, payload)))
    await write(client, f"profiles--{name}", writes)
    products: dict[str, dict[str, JSON | bytes]] = {
        "tent": {"available": True},
        "boots": {"available": False},
        "gone": {"available": False, "deleted": True},
    }
    writes = []
    for product, payload in products.items():
        id_, version = IDS.product(product), new_version()
        writes.append(Write(id_, version, None, product_point(id_, version, X, {"product_id": product, **payload})))
    await write(client, f"products--{name}", writes)


async def test_counts_are_added_up_and_problems_told(both: Settings, client: AsyncQdrantClient) -> None:
    ensure_topics(both)
    await fill(client, both.generation)
    with EventProducer(both) as producer:
        producer.send(both.topics.dead_letters, b"k", b"not understood")
        for n in range(3):
            producer.send(both.topics.searches, f"user-{n}".encode(), b"{}")

    status = await look(both)

    assert status.qdrant is not None
    assert status.qdrant.profiles == health.ProfilesStatus(
        count=3, searches=7, purchases=7, waiting=2, pending_products=2, due=1, noise={"rate": 3, "gibberish": 2}
    )
    assert status.qdrant.products == health.ProductsStatus(count=2, available=1)
    assert status.qdrant.generation is not None
    assert (status.qdrant.generation.model, status.qdrant.generation.created_at) == ("small", 5)
    assert status.kafka is not None
    assert (status.kafka.members, status.kafka.lag, status.kafka.dead_letters) == (0, 3, 1)
    assert {(one.topic, one.partition) for one in status.kafka.partitions} == {
        (topic, partition)
        for topic in (both.topics.searches, both.topics.purchases, both.topics.products)
        for partition in (0, 1)
    }
    assert all(one.committed is None for one in status.kafka.partitions)
    assert status.encoder is None
    assert not status.healthy
    assert [problem.split(":")[0] for problem in status.problems] == [
        "the encoding worker at unix",
        f"no worker is in the group afterglow-{both.generation}",
    ]


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[Intake[Any]]:
    """A worker as far as Kafka can see. Its searches and purchases come out of the intake; acknowledge them there."""
    events: Intake[Any] = Intake(100)
    app = create_app(
        settings,
        group=f"afterglow-{settings.generation}",
        events=events,
        products=Intake(100),
        on_assignment=lambda partitions: None,
        on_failure=lambda stopped: None,
    )
    await app.start()
    try:
        yield events
    finally:
        await app.stop()


def produce_long_ago(settings: Settings) -> None:
    """A search in each partition, produced in 2025."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for partition in (0, 1):
        producer.produce(settings.topics.searches, b"{}", b"ada", partition=partition, timestamp=1_750_000_000_000)
    producer.flush()


def about_kafka(problems: list[str]) -> list[str]:
    return [problem for problem in problems if not problem.startswith(("the encoding worker", "Qdrant has no"))]


async def test_a_worker_that_acknowledges_nothing_is_a_problem_and_one_that_does_is_none(
    both: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(both)
    produce_long_ago(both)
    async with worker(both) as events:
        monkeypatch.setattr(group_health, "STANDSTILL_SECONDS", 2.0)
        taken = [*await events.take(1, 0), *await events.take(1, 0)]
        status = await look(both)
        assert status.kafka is not None
        assert (status.kafka.members, status.kafka.live, status.kafka.lag) == (1, True, 2)
        assert [at.waiting_since for at in status.kafka.partitions if at.lag] == [1_750_000_000_000] * 2
        (problem,) = about_kafka(status.problems)
        assert problem.startswith(
            f"2 events wait in {both.topics.searches} (partitions 0, 1), the oldest since 2025-06-15 15:06:40 UTC, and "
            "the worker on 127.0.0.1 that has these partitions acknowledged nothing of it in 2 s: look at its log"
        )

        monkeypatch.setattr(group_health, "STANDSTILL_SECONDS", 60.0)  # it commits every second
        for event in taken:
            event.ack()
        assert about_kafka((await look(both)).problems) == []


async def test_a_replay_in_the_group_is_told_and_is_no_problem(both: Settings) -> None:
    ensure_topics(both)
    produce_long_ago(both)
    config = {"bootstrap.servers": both.kafka.bootstrap_servers, "group.id": f"afterglow-{both.generation}"}
    replay = Consumer({**config, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    replay.subscribe([both.topics.searches])
    assert len(replay.consume(2, timeout=60)) == 2
    status = await look(both)
    replay.close()
    assert status.kafka is not None
    assert (status.kafka.members, status.kafka.live) == (1, False)
    assert about_kafka(status.problems) == []


async def test_a_topic_made_anew_and_records_gone_before_they_were_read(
    both: Settings, client: AsyncQdrantClient
) -> None:
    found, topics = ensure_topics(both), both.topics
    sources = {
        "searches": Source(topics.searches, found[topics.searches].id, [0, 0]),
        "purchases": Source(topics.purchases, "another", [0, 0]),
        "products": Source(topics.products, found[topics.products].id, [0, 0]),
    }
    made = Generation(both.generation, Model("small", "abc", 4), IDS.fingerprint, {}, 5, sources)
    await open_generation(client, made)
    group = f"afterglow-{both.generation}"
    committed = {(topics.searches, 0): 1, (topics.purchases, 0): 7}
    answered(lambda: set_offsets(both.kafka, group, committed), both.kafka)
    produce_long_ago(both)
    produce_long_ago(both)
    admin = connect_admin(both.kafka)
    for partition in (0, 1):
        at = KafkaPartition(topics.searches, partition, 2)
        admin.delete_records([at])[at].result()

    made_anew, gone, nobody = about_kafka((await look(both)).problems)
    assert made_anew == (
        f"topic {topics.purchases} was made anew (id another became {found[topics.purchases].id}): start the workers "
        "again, and they read the new one from its beginning"
    )
    assert gone.startswith(
        f"Kafka has deleted records that group {group} had not read: {topics.searches} partition 0 offsets 1 to 1, "
        f"{topics.searches} partition 1 offsets 0 to 1 (retention, or somebody's deletion)."
    )
    assert nobody.startswith(f"no worker is in the group {group}")


async def test_an_encoder_of_another_model_is_a_problem(
    both: Settings, client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(client, both.generation)
    other = ModelDescription("large", "def", 8, "cpu")

    async def encoder(_: Settings) -> EncoderStatus:
        return EncoderStatus(
            address="unix:///there",
            model=other.name,
            model_identity=other.identity,
            dimension=other.dimension,
            device=other.device,
            texts=0,
            cache_share=0.0,
            waiting=0,
            waiting_limit=1,
            uptime_seconds=1.0,
        )

    monkeypatch.setattr(health, "_encoder", encoder)
    problems = (await look(both)).problems
    assert any(
        problem.startswith(
            f"the encoding worker has the model large (def), and generation {both.generation!r} was made"
        )
        for problem in problems
    )


def test_the_command_tells_every_dead_service_and_exits_1(tmp_path: Path) -> None:
    away = ["--kafka", "127.0.0.1:1", "--qdrant", "127.0.0.1:2"]
    result = subprocess.run(
        [sys.executable, "-m", "streams", "status", "--json", "--data-dir", str(tmp_path), *away],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert not told["healthy"]
    assert (told["kafka"], told["qdrant"], told["encoder"]) == (None, None, None)
    assert [problem.partition(" at ")[0] for problem in told["problems"]] == ["Kafka", "Qdrant", "the encoding worker"]
    assert result.stderr == ""
