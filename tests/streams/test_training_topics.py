"""The history that is learned from: what the topics hold, as far as is asked for, the same whenever it is read."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from streams.settings import Settings, load
from streams.topics import ensure_topics
from streams.training.topics import HistoryGone, extent_now, read_history

pytestmark = pytest.mark.end_to_end

START = 1_600_000_000_000


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Settings:
    own = uuid.uuid4().hex[:8]
    topics = {role: f"{role}-{own}" for role in ("searches", "purchases", "products", "dead_letters")}
    made = load(
        environment={
            "AFTERGLOW_DATA_DIR": str(tmp_path),
            "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "AFTERGLOW_TOPICS_PARTITIONS": "2",
            **{f"AFTERGLOW_TOPICS_{role.upper()}": name for role, name in topics.items()},
        }
    )
    ensure_topics(made)
    return made


def send(settings: Settings, topic: str, key: str, value: object, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(topic, None if value is None else json.dumps(value).encode(), key.encode(), partition=partition)
    producer.flush()


def bought(user: str, product: str, number: int) -> dict[str, object]:
    return {"user_id": user, "product_id": product, "quantity": 1, "ts": START + number}


def test_it_is_what_the_topics_hold(settings: Settings) -> None:
    topics = settings.topics
    for product_id, value in (
        ("p1", {"product_id": "p1", "title": "red tent"}),
        ("p2", {"product_id": "p2", "title": "blue mug"}),
        ("p1", {"product_id": "p1", "title": "large red tent"}),
        ("p2", None),
        ("p3", {"product_id": "p4", "title": "of another key"}),
    ):
        send(settings, topics.products, product_id, value)
    send(settings, topics.purchases, "ada", bought("ada", "p1", 1))
    send(settings, topics.purchases, "bob", bought("bob", "p1", 2), partition=1)
    send(settings, topics.purchases, "eve", bought("ada", "p1", 3))
    send(settings, topics.searches, "ada", {"user_id": "ada", "query": "tent", "ts": START})
    send(settings, topics.searches, "ada", "no event")

    extent = extent_now(settings)
    shop, refused = read_history(settings, extent)
    assert [(one.product_id, one.title) for one in shop.products] == [("p1", "large red tent")]
    assert [(one.user_id, one.ts - START) for one in shop.purchases] == [("ada", 1), ("bob", 2)]
    assert [(one.user_id, one.query) for one in shop.searches] == [("ada", "tent")]
    assert refused == 3

    send(settings, topics.purchases, "cleo", bought("cleo", "p1", 4))
    assert len(read_history(settings, extent).shop.purchases) == 2, "the same extent, the same history"
    assert len(read_history(settings, extent_now(settings)).shop.purchases) == 3


def test_of_more_than_is_asked_for_the_newest_of_each_partition_are_read(settings: Settings) -> None:
    for number in range(20):
        send(settings, settings.topics.purchases, "ada", bought("ada", "p1", number))
    for number in range(20):
        send(settings, settings.topics.searches, "bob", {"user_id": "bob", "query": "tent", "ts": START + number}, 1)
    extent = extent_now(settings, newest=10)
    assert extent.events == 10
    shop, _ = read_history(settings, extent)
    assert [one.ts - START for one in shop.purchases] == [15, 16, 17, 18, 19]
    assert [one.ts - START for one in shop.searches] == [15, 16, 17, 18, 19]


def test_a_topic_that_is_gone_is_named(settings: Settings) -> None:
    extent = extent_now(settings)
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    admin.delete_topics([settings.topics.searches])[settings.topics.searches].result()
    with pytest.raises(HistoryGone, match=f"Kafka has no topic {settings.topics.searches}"):
        extent_now(settings)
    with pytest.raises(HistoryGone, match=f"topic {settings.topics.searches} is no longer the one"):
        read_history(settings, extent)
