"""Topics that change under a live worker: it stops by name, and whatever comes next skips nothing."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from faults.history import History

from streams.kafka import connect_admin
from streams.topics import describe, end_offsets, ensure_topics

pytestmark = pytest.mark.end_to_end


def test_a_topic_made_anew_stops_the_worker_and_is_read_from_its_beginning(history: History) -> None:
    worker = history.worker()
    history.announce()
    history.shop(300, repeats=0, poison=0)
    history.wait_until_folded()
    remake(history, history.settings.topics.purchases)
    history.shop(300, repeats=0, poison=0)
    assert worker.wait_for_end() == 1
    assert "is gone" in worker.told() or "was made anew" in worker.told()
    history.worker()
    history.shop(50, repeats=0, poison=0)
    history.wait_until_folded()
    assert [one.what for one in history.verdict().differences] == []
    assert events_folded(history) == history.customers.events


def test_more_partitions_stop_the_worker_and_are_refused(history: History) -> None:
    worker = history.worker()
    history.shop(100)
    history.wait_until_folded()
    topics = [history.settings.topics.searches, history.settings.topics.purchases]
    admin = connect_admin(history.settings.kafka)
    for done in admin.create_partitions([NewPartitions(topic, 8) for topic in topics]).values():
        done.result()
    history.shop(100)
    assert worker.wait_for_end() == 1
    assert "went from 4 to 8 partitions" in worker.told()
    refused = history.worker()
    assert refused.wait_for_end() == 1
    assert "has 8 partitions, and had 4 when generation" in refused.told()


def test_records_deleted_before_they_were_read_stop_the_worker(history: History) -> None:
    worker = history.worker()
    history.shop(200)
    history.wait_until_folded()
    worker.stop()
    history.shop(200)
    delete_all_records(history, history.settings.topics.searches)
    history.shop(20)
    late = history.worker()
    assert late.wait_for_end() == 1
    assert f"Kafka has deleted records that group afterglow-{history.name} had not read" in late.told()


def remake(history: History, topic: str) -> None:
    """Deletes it, and makes it again as it was."""
    admin = connect_admin(history.settings.kafka)
    admin.delete_topics([topic])[topic].result()
    while topic in describe(admin, [topic]):
        pass
    ensure_topics(history.settings)
    history.forget_producer()


def delete_all_records(history: History, topic: str) -> None:
    admin = connect_admin(history.settings.kafka)
    ends = end_offsets(admin, describe(admin, [topic]))
    deleted = admin.delete_records([TopicPartition(topic, partition, end) for (_, partition), end in ends.items()])
    for done in deleted.values():
        done.result()


def events_folded(history: History) -> int:
    return sum(ledger.events for state in history.states().values() for ledger in state)
