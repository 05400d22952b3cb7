"""The producer on a real Kafka: what arrives, where, and what is raised when it doesn't."""

from __future__ import annotations

import os
import threading
import time

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import NewTopic

from streams.events import InvalidEvent, Product, Search
from streams.kafka import connect_admin
from streams.producer import DeliveryFailed, EventProducer
from streams.settings import Settings
from streams.topics import end_offsets, ensure_topics

pytestmark = pytest.mark.end_to_end

TS = 1_600_000_000_000


def read_all(settings: Settings, name: str) -> list[Message]:
    """Every record of the topic, partition after partition."""
    topics = ensure_topics(settings)
    ends = end_offsets(connect_admin(settings.kafka), {name: topics[name]})
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": settings.generation})
    found: list[Message] = []
    try:
        for (topic, partition), end in sorted(ends.items()):
            if end:
                consumer.assign([TopicPartition(topic, partition, 0)])
                records: list[Message] = []
                while len(records) < end:
                    records.extend(consumer.consume(end - len(records), timeout=1))
                found.extend(records)
    finally:
        consumer.close()
    return found


def test_events_arrive_keyed_and_stamped_with_the_time_they_were_sent(settings: Settings) -> None:
    ensure_topics(settings)
    before = time.time_ns() // 1_000_000
    with EventProducer(settings) as events:
        events.search("u-1", "boots", ts=TS, clicked_product_id="p-1")
        events.purchase("u-1", "p-1", quantity=2, ts=TS, price=9.5)
        events.product("p-1", "Boots")
        events.produce(Product("p-1", "Boots", available=False))
        events.delete_product("p-1")
    after = time.time_ns() // 1_000_000

    (search,) = read_all(settings, settings.topics.searches)
    assert search.key() == b"u-1"
    assert search.value() == b'{"user_id":"u-1","query":"boots","ts":1600000000000,"clicked_product_id":"p-1"}'
    assert before <= search.timestamp()[1] <= after
    (purchase,) = read_all(settings, settings.topics.purchases)
    assert (purchase.key(), purchase.value()) == (
        b"u-1",
        b'{"user_id":"u-1","product_id":"p-1","quantity":2,"ts":1600000000000,"price":9.5}',
    )
    assert purchase.partition() == search.partition()
    assert [(record.key(), record.value()) for record in read_all(settings, settings.topics.products)] == [
        (b"p-1", b'{"product_id":"p-1","title":"Boots"}'),
        (b"p-1", b'{"product_id":"p-1","title":"Boots","available":false}'),
        (b"p-1", None),
    ]


def test_users_are_placed_as_java_clients_place_them(settings: Settings) -> None:
    ensure_topics(settings)
    # Kafka's own test vectors of murmur2: -973932308, -790332482, -985981536, 479470107
    for user, partition in (("21", 4), ("foobar", 6), ("a-little-bit-long-string", 0), ("abc", 3)):
        with EventProducer(settings) as events:
            events.search(user, "boots", ts=TS)
            events.flush()
            assert list(events.offsets) == [(settings.topics.searches, partition)]


def test_nothing_is_sent_of_an_event_that_is_refused(settings: Settings) -> None:
    ensure_topics(settings)
    with EventProducer(settings) as events:
        with pytest.raises(InvalidEvent, match="quantity must be 1 or more"):
            events.purchase("u-1", "p-1", quantity=0)
        with pytest.raises(InvalidEvent, match="ts looks like seconds"):
            events.produce(Search("u-1", "boots", TS // 1000))
        with pytest.raises(InvalidEvent, match="key is missing"):
            events.delete_product("")
    assert events.offsets == {}


def test_more_than_the_queue_holds_is_waited_for_and_counted(settings: Settings) -> None:
    ensure_topics(settings)
    with EventProducer(settings) as events:
        for number in range(120_000):
            events.send(settings.topics.searches, b"%d" % number, b"x")
    assert sum(offset + 1 for offset in events.offsets.values()) == 120_000


def test_one_producer_serves_many_threads(settings: Settings) -> None:
    ensure_topics(settings)
    with EventProducer(settings) as events:

        def shop(user: str) -> None:
            for number in range(200):
                events.search(user, f"query {number}", ts=TS)

        threads = [threading.Thread(target=shop, args=(f"u-{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    queries: dict[bytes | None, list[bytes]] = {}
    for record in read_all(settings, settings.topics.searches):
        queries.setdefault(record.key(), []).append(record.value() or b"")
    assert queries == {
        b"u-%d" % user: [b'{"user_id":"u-%d","query":"query %d","ts":%d}' % (user, number, TS) for number in range(200)]
        for user in range(8)
    }


def test_what_kafka_does_not_take_is_raised_by_flush(settings: Settings) -> None:
    name = settings.topics.searches
    narrow = NewTopic(name, 1, 1, config={"max.message.bytes": "1000"})
    admin = connect_admin(settings.kafka)
    admin.create_topics([narrow])[name].result()
    events = EventProducer(settings)
    events.send(name, b"u", os.urandom(5000))
    with pytest.raises(DeliveryFailed) as caught:
        events.flush()
    assert caught.value.count == 1
    assert "Message size too large" in caught.value.first
    assert name in str(caught.value)

    events.send(name, b"u", b"small")
    events.flush()  # a failure is told once, and the producer goes on
    assert events.offsets == {(name, 0): 0}


def test_a_delivery_failure_does_not_hide_the_error_of_the_block(settings: Settings) -> None:
    name = settings.topics.searches
    narrow = NewTopic(name, 1, 1, config={"max.message.bytes": "1000"})
    admin = connect_admin(settings.kafka)
    admin.create_topics([narrow])[name].result()

    def fail() -> None:
        with EventProducer(settings) as events:
            events.send(name, b"u", os.urandom(5000))
            raise KeyError("ours")

    with pytest.raises(KeyError) as caught:
        fail()
    assert caught.value.__notes__[0].startswith("1 record was not delivered to Kafka")
