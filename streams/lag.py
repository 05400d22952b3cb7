"""How far a group has come in each partition, and what waits for it there."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from streams.kafka import client_config
from streams.settings import Kafka
from streams.topics import REQUEST_SECONDS, Topic, TopicPartition, committed_offsets, end_offsets, first_offsets

_POLL_SECONDS: Final = 0.2


class Position(NamedTuple):
    """Where a group is in a partition. `committed` is None where it has read nothing yet."""

    first: int
    end: int
    committed: int | None

    @property
    def next(self) -> int:
        """The first offset that waits to be read."""
        if self.committed is None or self.committed > self.end:
            return self.first
        return max(self.committed, self.first)

    @property
    def lag(self) -> int:
        """How many offsets there are from there. Markers of transactions are offsets as well."""
        return self.end - self.next


class Waiting(NamedTuple):
    """Events that a group hasn't acknowledged. `since_ms`: when the oldest of them was produced."""

    number: int
    since_ms: int


def positions(
    kafka: Kafka, admin: AdminClient, group: str, topics: Mapping[str, Topic]
) -> dict[TopicPartition, Position]:
    """For every partition of these topics. Raises KafkaException."""
    committed = committed_offsets(kafka, group, topics)
    first, end = first_offsets(admin, topics), end_offsets(admin, topics)
    return {at: Position(first[at], end[at], committed.get(at)) for at in sorted(end)}


def waiting(kafka: Kafka, group: str, positions: Mapping[TopicPartition, Position]) -> dict[TopicPartition, Waiting]:
    """What waits in each partition where something does: offsets that hold no event are none.

    Reads one record a partition. Doesn't join the group. Raises KafkaException.
    """
    lagging = {at: position for at, position in positions.items() if position.lag}
    if not lagging:
        return {}
    config = {
        **client_config(kafka),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.message.max.bytes": 1,  # Kafka sends one batch all the same
    }
    found: dict[TopicPartition, Waiting] = {}
    open_ = set(lagging)
    deadline = time.monotonic() + REQUEST_SECONDS
    with closing(Consumer(config)) as consumer:
        consumer.assign([KafkaPartition(*at, position.next) for at, position in lagging.items()])
        while open_ and time.monotonic() < deadline:
            message = consumer.poll(_POLL_SECONDS)
            if message is None:
                continue
            error, at = message.error(), (message.topic(), message.partition())
            if error is None:
                found.setdefault(at, Waiting(lagging[at].lag, message.timestamp()[1]))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if at in open_:
                open_.discard(at)
                consumer.pause([KafkaPartition(*at)])
    if open_:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return found


def named(waiting: Mapping[TopicPartition, Waiting]) -> str:
    """In words: how many events wait in which partitions, and since when the oldest."""
    number = sum(one.number for one in waiting.values())
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(min(one.since_ms for one in waiting.values()) / 1000))
    return (
        f"{number:,} event{'s' * (number != 1)} wait{'s' * (number == 1)} in {where(waiting)}, the oldest since "
        f"{since} UTC"
    )


def where(partitions: Iterable[TopicPartition]) -> str:
    """In words: which partitions of which topics."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for topic, partition in sorted(partitions):
        numbers[topic].append(str(partition))
    return " and ".join(
        f"{topic} (partition{'s' * (len(of_topic) > 1)} {', '.join(of_topic)})" for topic, of_topic in numbers.items()
    )
