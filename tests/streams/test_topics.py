"""Topics on a real Kafka: made right, checked, and how far they are read."""

from __future__ import annotations

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.producer import EventProducer
from streams.settings import Settings, load
from streams.topics import (
    MisconfiguredTopics,
    committed_offsets,
    describe,
    end_offsets,
    ensure_topics,
    first_offsets,
    member_count,
    policies,
)

pytestmark = pytest.mark.end_to_end


def create(admin: AdminClient, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
    admin.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result()


def test_topics_are_made_as_designed_and_left_as_they_are(settings: Settings) -> None:
    made = ensure_topics(settings)
    topics = settings.topics
    assert {name: topic.partitions for name, topic in made.items()} == {
        topics.searches: 8,
        topics.purchases: 8,
        topics.products: 8,
        topics.dead_letters: 1,
    }
    assert len({topic.id for topic in made.values()}) == 4
    assert ensure_topics(settings) == made
    kept = policies(connect_admin(settings.kafka), made)
    assert kept[topics.searches] == ("delete", -1, -1)
    assert kept[topics.purchases] == ("delete", -1, -1)
    assert kept[topics.products].cleanup == "compact"
    assert kept[topics.dead_letters] == ("delete", -1, -1)


def test_purchases_get_as_many_partitions_as_searches_have(settings: Settings) -> None:
    create(connect_admin(settings.kafka), settings.topics.searches, 3)
    assert ensure_topics(settings)[settings.topics.purchases].partitions == 3


def test_topics_that_are_not_co_partitioned_are_refused_with_the_way_out(settings: Settings) -> None:
    admin, topics = connect_admin(settings.kafka), settings.topics
    create(admin, topics.searches, 3)
    create(admin, topics.purchases, 4)
    with pytest.raises(MisconfiguredTopics) as caught:
        ensure_topics(settings)
    assert str(caught.value).startswith(
        f"{topics.searches} has 3 partitions and {topics.purchases} has 4: they must have equally many"
    )
    assert f"--alter --topic {topics.searches} --partitions 4" in str(caught.value)


def test_compacted_searches_are_refused(settings: Settings) -> None:
    create(connect_admin(settings.kafka), settings.topics.searches, 2, {"cleanup.policy": "compact"})
    with pytest.raises(MisconfiguredTopics, match="is compacted: Kafka would drop a user's older events"):
        ensure_topics(settings)


def test_more_replicas_than_brokers_is_told_by_the_setting(settings: Settings) -> None:
    settings = msgspec.structs.replace(settings, topics=msgspec.structs.replace(settings.topics, replication_factor=3))
    with pytest.raises(MisconfiguredTopics, match=r"topics\.replication_factor \(3"):
        ensure_topics(settings)


def test_a_topic_made_anew_is_another(settings: Settings) -> None:
    admin, name = connect_admin(settings.kafka), settings.topics.searches
    first = ensure_topics(settings)[name]
    admin.delete_topics([name])[name].result()
    assert ensure_topics(settings)[name].id != first.id


def test_offsets_and_groups(settings: Settings) -> None:
    admin, name = connect_admin(settings.kafka), settings.topics.products
    ensure_topics(settings)
    found = describe(admin, [name, "no-such-topic"])
    assert list(found) == [name]
    with EventProducer(settings) as producer:
        for number in range(20):
            producer.product(f"p-{number}", "Lamp")
    ends = end_offsets(admin, found)
    assert sorted(ends) == [(name, partition) for partition in range(8)]
    assert sum(ends.values()) == 20
    assert set(first_offsets(admin, found).values()) == {0}

    group = settings.generation
    assert answered(lambda: committed_offsets(settings.kafka, group, found), settings.kafka) == {}
    assert answered(lambda: member_count(admin, group), settings.kafka) == 0
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group})
    consumer.commit(offsets=[TopicPartition(name, 2, 5)], asynchronous=False)
    consumer.close()
    assert committed_offsets(settings.kafka, group, found) == {(name, 2): 5}


def test_a_kafka_that_is_not_there() -> None:
    settings = load(overrides={"kafka.bootstrap_servers": "127.0.0.1:1"}, environment={})
    admin = connect_admin(settings.kafka)

    def ask() -> object:
        return admin.list_topics(timeout=0.2)

    with pytest.raises(KafkaUnreachable, match=r"Kafka at 127\.0\.0\.1:1 can't be reached .* start `afterglow up`"):
        answered(ask, settings.kafka, timeout_seconds=0.5)
