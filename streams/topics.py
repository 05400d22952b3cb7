"""The topics: created as the design needs them, checked where they exist, described, and how far they are read.

Every function asks Kafka and waits; none keeps anything. `ensure_topics` waits for a Kafka that is starting; the
others raise `KafkaException` at the first failure: `streams.kafka.answered` asks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from typing import Final, NamedTuple, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from streams.kafka import answered, client_config, connect_admin
from streams.producer import MAX_MESSAGE_BYTES
from streams.settings import Kafka, Settings, Topics

REQUEST_SECONDS: Final = 10.0
APPEARANCE_SECONDS: Final = 30.0

TopicPartition: TypeAlias = tuple[str, int]


class MisconfiguredTopics(ValueError):
    """Topics that exist can't be used as they are; the text says why, and how to fix it."""


class Topic(NamedTuple):
    """`id` is Kafka's: a topic deleted and made anew has another."""

    id: str
    partitions: int


class Policy(NamedTuple):
    """How Kafka keeps a topic's records. -1 milliseconds or bytes: without limit."""

    cleanup: str
    retention_ms: int
    retention_bytes: int


def ensure_topics(settings: Settings) -> dict[str, Topic]:
    """Create the topics that are missing, check those that exist, and return all four by name.

    Safe to call by any number of processes at once. A topic that exists is never changed: its partitions and
    retention are its owner's. Where only one of searches and purchases exists, the other gets as many partitions.
    Raises `MisconfiguredTopics` and `KafkaUnreachable`.
    """
    admin = connect_admin(settings.kafka)
    topics = settings.topics
    names = (topics.searches, topics.purchases, topics.products, topics.dead_letters)
    found = answered(lambda: describe(admin, names), settings.kafka)
    missing = [new for new in _wanted(topics, found) if new.topic not in found]
    if missing:
        for future in admin.create_topics(missing, request_timeout=REQUEST_SECONDS).values():
            _created(future, settings)
        found = _appeared(admin, names, settings)
        answered(lambda: end_offsets(admin, found), settings.kafka)  # now each partition has a leader
    _check(topics, found, answered(lambda: policies(admin, names), settings.kafka))
    return found


def describe(admin: AdminClient, names: Iterable[str]) -> dict[str, Topic]:
    """Id and partition count of each of these topics; one that doesn't exist is left out. One round trip."""
    found = {}
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_SECONDS)
    for name, future in described.items():
        try:
            description = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        else:
            found[name] = Topic(str(description.topic_id), len(description.partitions))
    return found


def policies(admin: AdminClient, names: Iterable[str]) -> dict[str, Policy]:
    """How these topics' records are kept; one that we may not look at is left out."""
    found = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    for resource, future in admin.describe_configs(resources, request_timeout=REQUEST_SECONDS).items():
        try:
            entries = future.result()
        except KafkaException as error:
            if error.args[0].code() not in (
                KafkaError.UNKNOWN_TOPIC_OR_PART,
                KafkaError.TOPIC_AUTHORIZATION_FAILED,
            ):
                raise
        else:
            found[resource.name] = Policy(
                entries["cleanup.policy"].value,
                int(entries["retention.ms"].value),
                int(entries["retention.bytes"].value),
            )
    return found


def end_offsets(admin: AdminClient, topics: Mapping[str, Topic]) -> dict[TopicPartition, int]:
    """For each partition, the offset that the next record will get."""
    return _offsets(admin, topics, OffsetSpec.latest())


def first_offsets(admin: AdminClient, topics: Mapping[str, Topic]) -> dict[TopicPartition, int]:
    """For each partition, the offset of the oldest record still kept (its end where there is none)."""
    return _offsets(admin, topics, OffsetSpec.earliest())


def offsets_at(admin: AdminClient, topics: Mapping[str, Topic], moment_ms: int) -> dict[TopicPartition, int]:
    """For each partition, the offset of the first record produced then or later (its end where there is none)."""
    found = _offsets(admin, topics, OffsetSpec.for_timestamp(moment_ms))
    ends = end_offsets(admin, topics) if -1 in found.values() else {}
    return {at: ends[at] if offset == -1 else offset for at, offset in found.items()}


def committed_offsets(kafka: Kafka, group: str, topics: Mapping[str, Topic]) -> dict[TopicPartition, int]:
    """For each partition of these topics the group has committed, the offset it will read next."""
    if not topics:
        return {}
    with closing(CommittedOffsets(kafka, group)) as offsets:
        return offsets.of(topics)


class CommittedOffsets:
    """`committed_offsets`, asked again and again by one connection. Doesn't join the group. Close it.

    It asks as a consumer because `AdminClient.list_consumer_group_offsets` ends the process by a segmentation fault
    when the group's coordinator is just starting or moving (librdkafka issue 5040; 2.16).
    """

    def __init__(self, kafka: Kafka, group: str) -> None:
        self._consumer = Consumer({**client_config(kafka), "group.id": group, "enable.auto.commit": False})

    def of(self, topics: Mapping[str, Topic]) -> dict[TopicPartition, int]:
        """One round trip. Raises KafkaException."""
        answer = self._consumer.committed(_partitions(topics), timeout=REQUEST_SECONDS)
        for at in answer:
            if at.error is not None:
                raise KafkaException(at.error)
        return {(at.topic, at.partition): at.offset for at in answer if at.offset >= 0}

    def close(self) -> None:
        self._consumer.close()


def member_count(admin: AdminClient, group: str) -> int:
    """How many consumers are in the group now; 0 for an unknown one."""
    future = admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS)[group]
    try:
        return len(future.result().members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise


def _offsets(admin: AdminClient, topics: Mapping[str, Topic], spec: OffsetSpec) -> dict[TopicPartition, int]:
    asked = _partitions(topics)
    if not asked:
        return {}
    futures = admin.list_offsets(dict.fromkeys(asked, spec), request_timeout=REQUEST_SECONDS)
    return {(at.topic, at.partition): future.result().offset for at, future in futures.items()}


def _partitions(topics: Mapping[str, Topic]) -> list[KafkaPartition]:
    return [KafkaPartition(name, partition) for name, topic in topics.items() for partition in range(topic.partitions)]


def _wanted(topics: Topics, found: Mapping[str, Topic]) -> list[NewTopic]:
    partner = found.get(topics.searches) or found.get(topics.purchases)
    by_user = partner.partitions if partner else topics.partitions
    # A replay folds every event there ever was: what Kafka drops, by time or by size, no new generation can have.
    kept = {"cleanup.policy": "delete", "retention.ms": str(topics.retention.milliseconds), "retention.bytes": "-1"}
    # A dead letter is an event as large as any, and its headers.
    forever = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    # A worker that was away longer than deletions are kept would never hear of them.
    compacted = {"cleanup.policy": "compact", "delete.retention.ms": str(30 * 86_400_000)}
    return [
        NewTopic(name, partitions, topics.replication_factor, config=config)
        for name, partitions, config in (
            (topics.searches, by_user, kept),
            (topics.purchases, by_user, kept),
            (topics.products, topics.partitions, compacted),
            (topics.dead_letters, 1, forever),
        )
    ]


def _created(future: Future[None], settings: Settings) -> None:
    try:
        future.result()
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise MisconfiguredTopics(
                f"Kafka has fewer brokers than topics.replication_factor ({settings.topics.replication_factor}, "
                f"from: {settings.source('topics.replication_factor')}): {cause.str()}"
            ) from None
        if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
            raise


def _appeared(admin: AdminClient, names: tuple[str, ...], settings: Settings) -> dict[str, Topic]:
    """Wait until every broker asked knows the new topics."""
    deadline = time.monotonic() + APPEARANCE_SECONDS
    while True:
        found = answered(lambda: describe(admin, names), settings.kafka)
        if len(found) == len(names):
            return found
        if time.monotonic() >= deadline:
            missing = ", ".join(name for name in names if name not in found)
            raise MisconfiguredTopics(f"Kafka created {missing}, but doesn't show it: look at the brokers' logs")
        time.sleep(0.05)


def _check(topics: Topics, found: Mapping[str, Topic], kept: Mapping[str, Policy]) -> None:
    searches, purchases = found[topics.searches], found[topics.purchases]
    if searches.partitions != purchases.partitions:
        fewer, more = sorted((topics.searches, topics.purchases), key=lambda name: found[name].partitions)
        raise MisconfiguredTopics(
            f"{topics.searches} has {searches.partitions} partitions and {topics.purchases} has "
            f"{purchases.partitions}: they must have equally many, so that one worker gets all events of a user. "
            f"If {fewer} is still empty, add partitions to it: kafka-topics --bootstrap-server ... --alter "
            f"--topic {fewer} --partitions {found[more].partitions}. Otherwise make new topics, both with "
            f"{found[more].partitions} partitions, produce the events again, and set topics.searches and "
            "topics.purchases."
        )
    for name in (topics.searches, topics.purchases):
        if name in kept and "compact" in kept[name].cleanup:
            raise MisconfiguredTopics(
                f"{name} is compacted: Kafka would drop a user's older events. Set cleanup.policy=delete: "
                f"kafka-configs --bootstrap-server ... --alter --topic {name} --add-config cleanup.policy=delete"
            )
