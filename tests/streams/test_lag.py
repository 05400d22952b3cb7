"""How far a group has come on a real Kafka, and what waits for it."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.groups import set_offsets
from streams.kafka import answered, connect_admin
from streams.lag import Position, Waiting, positions, waiting
from streams.settings import Settings
from streams.topics import Topic, TopicPartition, describe, end_offsets

pytestmark = pytest.mark.end_to_end


def create(settings: Settings, admin: AdminClient, topic: NewTopic) -> dict[str, Topic]:
    """Returns when each partition has a leader."""
    admin.create_topics([topic])[topic.topic].result()
    while not (topics := describe(admin, [topic.topic])):
        pass
    answered(lambda: end_offsets(admin, topics), settings.kafka)
    return topics


def asked(settings: Settings, topics: dict[str, Topic]) -> dict[TopicPartition, Position]:
    """Again while the group's coordinator is starting."""
    admin = connect_admin(settings.kafka)
    return answered(lambda: positions(settings.kafka, admin, settings.generation, topics), settings.kafka)


def test_what_waits_is_where_the_group_goes_on(settings: Settings) -> None:
    admin, kafka, group = connect_admin(settings.kafka), settings.kafka, settings.generation
    name = settings.topics.searches
    topics = create(settings, admin, NewTopic(name, 4, 1, config={"retention.ms": "-1"}))
    assert asked(settings, topics) == {(name, n): Position(0, 0, None) for n in range(4)}
    assert waiting(kafka, group, asked(settings, topics)) == {}

    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for offset in range(5):
        for partition in range(3):
            producer.produce(name, b"x", partition=partition, timestamp=1000 * partition + 9000 + offset)
    producer.flush()
    set_offsets(kafka, group, {(name, 1): 3, (name, 2): 5})
    at = asked(settings, topics)
    assert at == {
        (name, 0): Position(0, 5, None),
        (name, 1): Position(0, 5, 3),
        (name, 2): Position(0, 5, 5),
        (name, 3): Position(0, 0, None),
    }
    assert waiting(kafka, group, at) == {(name, 0): Waiting(5, 9000), (name, 1): Waiting(2, 10003)}

    gone = KafkaPartition(name, 1, 4)
    admin.delete_records([gone])[gone].result()
    at = asked(settings, topics)
    assert at[name, 1] == Position(4, 5, 3)
    assert waiting(kafka, group, at)[name, 1] == Waiting(1, 10004)


def test_the_end_of_a_transaction_is_no_event(settings: Settings) -> None:
    admin, kafka, group = connect_admin(settings.kafka), settings.kafka, settings.generation
    name = settings.topics.searches
    topics = create(settings, admin, NewTopic(name, 1, 1))
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(name, b"x", partition=0)
    producer.commit_transaction()
    assert asked(settings, topics)[name, 0].lag == 2
    set_offsets(kafka, group, {(name, 0): 1})
    at = asked(settings, topics)
    assert at[name, 0].lag == 1
    assert waiting(kafka, group, at) == {}


def test_a_committed_offset_beyond_the_end_is_read_from_the_beginning() -> None:
    assert Position(2, 10, 12).next == 2
    assert Position(2, 10, 12).lag == 8
