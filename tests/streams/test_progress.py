"""Waiting for what was sent: until it is committed, then until nothing it made due is left."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from qdrant_client import QdrantClient, models

from streams.producer import EventProducer
from streams.progress import Waiting, wait_until_folded
from streams.settings import Settings, load
from streams.topics import ensure_topics

pytestmark = pytest.mark.end_to_end

ID = "00000000-0000-0000-0000-000000000001"


def test_it_waits_for_the_commit_and_then_for_what_is_due(settings: Settings, qdrant: str) -> None:
    given = {
        "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
        "qdrant.address": qdrant,
        "topics.searches": settings.topics.searches,
        "topics.purchases": settings.topics.purchases,
        "topics.products": settings.topics.products,
        "topics.dead_letters": settings.topics.dead_letters,
        "generation": settings.generation,
    }
    settings = load(overrides=given, environment={})
    ensure_topics(settings)
    with EventProducer(settings) as events:
        for number in range(5):
            events.search("21", f"query {number}")  # partition 4
    name = settings.topics.searches
    assert events.offsets == {(name, 4): 4}

    host, _, port = qdrant.rpartition(":")
    collection = f"profiles--{settings.generation}"
    client = QdrantClient(host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False)
    client.create_collection(collection, {"long": models.VectorParams(size=2, distance=models.Distance.COSINE)})
    client.create_payload_index(collection, "due", models.PayloadSchemaType.INTEGER, wait=True)

    def put(due: int) -> None:
        point = models.PointStruct(id=ID, vector={"long": [1.0, 0.0]}, payload={"due": due})
        client.upsert(collection, [point], wait=True)

    now = time.time_ns() // 1_000_000
    put(now + 1000)  # not due yet, but within the interval after which candidates are made anew
    group = Consumer(
        {"bootstrap.servers": given["kafka.bootstrap_servers"], "group.id": f"afterglow-{given['generation']}"}
    )
    name_of_group = f"afterglow-{settings.generation}"
    seen: list[Waiting] = []

    def work(waiting: Waiting) -> None:
        """What a worker does meanwhile: commits three, then all; then does what is due."""
        if waiting not in seen:
            seen.append(waiting)
        if waiting.records == 5:
            group.commit(offsets=[TopicPartition(name, 4, 3)], asynchronous=False)
        elif waiting.records == 2:
            group.commit(offsets=[TopicPartition(name, 4, 5)], asynchronous=False)
        elif waiting.due:
            put(now + 3_600_000)  # put off by an hour: not waited for

    wait_until_folded(settings, events.offsets, work)
    group.close()
    assert seen == [
        Waiting(group=name_of_group, records=5, due=None, workers=0),
        Waiting(group=name_of_group, records=2, due=None, workers=0),
        Waiting(group=name_of_group, records=0, due=None, workers=0),
        Waiting(group=name_of_group, records=0, due=1, workers=0),
        Waiting(group=name_of_group, records=0, due=0, workers=0),
    ]


def test_nothing_sent_is_nothing_to_wait_for() -> None:
    wait_until_folded(load(overrides={"kafka.bootstrap_servers": "127.0.0.1:1"}, environment={}), {})
