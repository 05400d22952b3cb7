"""Which records of a real Kafka's topics a generation is judged by."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from sinks.collections import Generation, Model, Source
from streams.generations import group_of
from streams.groups import set_offsets
from streams.kafka import connect_admin
from streams.partition_reader import PartitionReader
from streams.producer import EventProducer
from streams.settings import Settings
from streams.topics import describe, ensure_topics
from streams.verification.sources import Unverifiable, ends_of, users_topics

pytestmark = pytest.mark.end_to_end

PARTITIONS = 8


def generation_of(settings: Settings, **sources: Source) -> Generation:
    """Made from the topics as they are now, all of them; but for `sources`."""
    topics = ensure_topics(settings)
    names = {role: getattr(settings.topics, role) for role in ("searches", "purchases", "products")}
    whole = {role: Source(name, topics[name].id, [0] * PARTITIONS) for role, name in names.items()}
    return Generation(settings.generation, Model("m", "i", 8), "secret", {}, 0, sources={**whole, **sources})


def purchases(settings: Settings, user: str, number: int) -> int:
    """Sends them, and returns the user's partition."""
    ensure_topics(settings)
    with EventProducer(settings) as producer:
        for n in range(number):
            producer.purchase(user, f"p-{n}")
    topics, name = users_topics(settings, generation_of(settings)), settings.topics.purchases
    (partition,) = (n for n in range(PARTITIONS) if ends_of(settings, topics, n) == {name: number, topics[0].name: 0})
    return partition


def delete_before(settings: Settings, partition: int, offset: int) -> None:
    admin, at = connect_admin(settings.kafka), TopicPartition(settings.topics.purchases, partition, offset)
    admin.delete_records([at])[at].result()


def changed(source: Source, **changes: Any) -> Source:
    return msgspec.structs.replace(source, **changes)


def test_a_generation_is_judged_from_where_it_begins_and_what_its_group_has_committed(settings: Settings) -> None:
    partition = purchases(settings, "ada", 5)
    start = [0] * PARTITIONS
    start[partition] = 2
    generation = generation_of(settings)
    generation = generation_of(settings, purchases=changed(generation.sources["purchases"], start=start))
    _, topic = users_topics(settings, generation)
    assert (topic.name, topic.start, topic.committed) == (settings.topics.purchases, tuple(start), tuple(start))
    read = []
    with PartitionReader(settings.kafka) as reader:
        reader.begin(topic.name, partition, topic.start[partition])
        reader.read(5, lambda message: read.append(message.offset()))
    assert read == [2, 3, 4]

    set_offsets(settings.kafka, group_of(generation.name), {(topic.name, partition): 4})
    searches, topic = users_topics(settings, generation)
    assert topic.committed == tuple(4 if n == partition else 0 for n in range(PARTITIONS))
    assert searches.committed == (0,) * PARTITIONS
    assert not topic.may_have_preceded(topic.id)
    assert not topic.may_have_preceded("another")


def test_records_deleted_before_the_beginning_are_missed_by_nobody_and_those_after_it_by_name(
    settings: Settings,
) -> None:
    partition = purchases(settings, "ada", 5)
    delete_before(settings, partition, 2)
    start = [0] * PARTITIONS
    start[partition] = 2
    made_since = changed(generation_of(settings).sources["purchases"], start=start)
    assert users_topics(settings, generation_of(settings, purchases=made_since))[1].start == tuple(start)

    with pytest.raises(Unverifiable) as caught:
        users_topics(settings, generation_of(settings))
    assert f"offsets: {settings.topics.purchases} {partition} from 0 to 2. " in str(caught.value)
    assert "`afterglow replay` makes a generation of what is left" in str(caught.value)

    delete_before(settings, partition, 3)
    with pytest.raises(Unverifiable, match=f"{settings.topics.purchases} {partition} from 2 to 3"):
        users_topics(settings, generation_of(settings, purchases=made_since))


def test_a_topic_made_anew_that_no_worker_has_followed_yet_has_nothing_committed(settings: Settings) -> None:
    generation = generation_of(settings)
    name, admin = settings.topics.purchases, connect_admin(settings.kafka)
    before = changed(generation.sources["purchases"], earlier=["first"])
    generation = msgspec.structs.replace(generation, sources={**generation.sources, "purchases": before})
    set_offsets(settings.kafka, group_of(generation.name), {(name, 0): 3})
    admin.delete_topics([name])[name].result()
    with pytest.raises(Unverifiable, match=f"Kafka has no topic {name}"):
        users_topics(settings, generation)

    ensure_topics(settings)
    _, anew = users_topics(settings, generation)
    assert anew.id != before.id
    assert anew.committed == (0,) * PARTITIONS, "what was committed is of the topic before"
    assert anew.earlier == {"first", before.id}
    assert anew.may_have_preceded(before.id)
    assert not anew.may_have_preceded("another")


def test_partitions_that_were_added_are_not_the_generations(settings: Settings) -> None:
    generation, name, admin = generation_of(settings), settings.topics.purchases, connect_admin(settings.kafka)
    admin.create_partitions([NewPartitions(name, PARTITIONS + 1)])[name].result()
    while describe(admin, [name])[name].partitions == PARTITIONS:
        time.sleep(0.05)
    searches, grown = users_topics(settings, generation)
    assert len(searches.start) == len(grown.start) == PARTITIONS


def test_a_record_without_topics_is_judged_from_the_beginning_of_those_that_are_set(settings: Settings) -> None:
    generation = msgspec.structs.replace(generation_of(settings), sources={})
    _, topic = users_topics(settings, generation)
    assert (topic.name, topic.start) == (settings.topics.purchases, (0,) * PARTITIONS)
    assert topic.may_have_preceded("any other")
