"""Consumer groups: who is in one, and where an empty one begins."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Final, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from streams.kafka import answered, client_config
from streams.settings import Kafka
from streams.topics import REQUEST_SECONDS, TopicPartition

LIVE: Final = "faust"
"""The assignor of live workers. A group has members of one kind at a time: Kafka refuses the others."""

REPLAY: Final = "range"
"""The assignor of replays: equal partition numbers of equally partitioned topics go to one member."""


class GroupInUse(RuntimeError):
    """Offsets can't be set while the group has members; the text says which group."""


class Member(NamedTuple):
    """One consumer. `id` is Kafka's, new for every start; `host` is where Kafka sees it."""

    id: str
    host: str


class Members(NamedTuple):
    """Who is in a group now. `assignor` is empty where nobody is, or where they are still agreeing."""

    number: int
    assignor: str
    agreeing: bool = False
    """Whether they are just sharing out the partitions."""
    owners: Mapping[TopicPartition, Member] = MappingProxyType({})


def members_of(admin: AdminClient, group: str) -> Members:
    """Raises KafkaException."""
    future = admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS)[group]
    try:
        described = future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Members(0, "")
        raise
    owners = {
        (at.topic, at.partition): Member(member.member_id, member.host.lstrip("/"))
        for member in described.members
        if member.assignment is not None
        for at in member.assignment.topic_partitions
    }
    return Members(len(described.members), described.partition_assignor or "", described.state in _AGREEING, owners)


def set_offsets(kafka: Kafka, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Let an empty group go on from these offsets. Raises GroupInUse, KafkaUnreachable, and KafkaException."""
    answered(lambda: _set_offsets(kafka, group, offsets), kafka)


def _set_offsets(kafka: Kafka, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    at = [KafkaPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
    with closing(Consumer({**client_config(kafka), "group.id": group, "enable.auto.commit": False})) as consumer:
        try:
            done = consumer.commit(offsets=at, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in _IN_USE:
                raise GroupInUse(f"the consumer group {group} has members: stop them first") from None
            raise
    for partition in done or []:
        if partition.error is not None:
            raise KafkaException(partition.error)


_AGREEING: Final = frozenset({ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING})
_IN_USE: Final = frozenset(
    {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS}
)
