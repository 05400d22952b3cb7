"""The topics that a generation is made from, as far as they belong to it and are still there."""

from __future__ import annotations

from typing import Final, NamedTuple

from sinks.collections import Generation
from streams.generations import group_of
from streams.kafka import answered, connect_admin
from streams.settings import Settings
from streams.topics import Topic, committed_offsets, describe, end_offsets, first_offsets

USERS_ROLES: Final = ("searches", "purchases")


class Unverifiable(RuntimeError):
    """There is nothing to judge the profiles by; the text says what is missing."""


class UsersTopic(NamedTuple):
    """A topic of users' events."""

    name: str
    id: str
    start: tuple[int, ...]
    """For each partition that the generation has, the first offset that belongs to it."""
    committed: tuple[int, ...]
    """For each of them, the offset below which workers have acknowledged everything."""
    earlier: frozenset[str] | None
    """Ids of the topics of this name before it, whose events ledgers may hold; None: the record does not say."""

    def may_have_preceded(self, topic_id: str) -> bool:
        return topic_id != self.id and (self.earlier is None or topic_id in self.earlier)


def users_topics(settings: Settings, generation: Generation) -> tuple[UsersTopic, ...]:
    """Searches and purchases, as Kafka has them now.

    Raises Unverifiable where a topic is gone, or the beginning of what belongs to the generation; KafkaUnreachable.
    """
    names = {role: _name(settings, generation, role) for role in USERS_ROLES}
    admin = connect_admin(settings.kafka)
    found = answered(lambda: describe(admin, names.values()), settings.kafka)
    if missing := [name for name in names.values() if name not in found]:
        raise Unverifiable(f"Kafka has no topic {' and no '.join(missing)}")
    first = answered(lambda: first_offsets(admin, found), settings.kafka)
    committed = answered(lambda: committed_offsets(settings.kafka, group_of(generation.name), found), settings.kafka)
    topics, gone = [], []
    for role, name in names.items():
        source, id_ = generation.sources.get(role), found[name].id
        partitions = range(found[name].partitions)
        kept = tuple(first[name, partition] for partition in partitions)
        if source is not None and source.id != id_:
            # No worker has followed it yet. What is committed, if anything, is of the topic before.
            topics.append(UsersTopic(name, id_, kept, kept, frozenset((*source.earlier, source.id))))
            continue
        start = (0,) * len(partitions) if source is None else tuple(source.start)
        gone += [
            f"{name} {partition} from {begins:,} to {there:,}"
            for partition, (begins, there) in enumerate(zip(start, kept, strict=False))
            if there > begins
        ]
        read = tuple(committed.get((name, partition), begins) for partition, begins in enumerate(start))
        topics.append(UsersTopic(name, id_, start, read, None if source is None else frozenset(source.earlier)))
    if gone:
        raise Unverifiable(
            f"the profiles of generation {generation.name!r} can't be recomputed, since records that it is made from "
            f"are gone (retention, or deleted): topic, partition, and offsets: {'; '.join(gone)}. The profiles keep "
            "what they are; topics made by Afterglow keep everything (topics.retention). `afterglow replay` makes a "
            "generation of what is left, and that can be verified"
        )
    return tuple(topics)


def ends_of(settings: Settings, topics: tuple[UsersTopic, ...], partition: int) -> dict[str, int]:
    """By name, the offset that the next record of this partition will get. Raises KafkaUnreachable."""
    admin = connect_admin(settings.kafka)
    asked = {topic.name: Topic(topic.id, len(topic.start)) for topic in topics}
    ends = answered(lambda: end_offsets(admin, asked), settings.kafka)
    return {name: end for (name, at), end in ends.items() if at == partition}


def _name(settings: Settings, generation: Generation, role: str) -> str:
    if role in generation.sources:
        return generation.sources[role].topic
    name: str = getattr(settings.topics, role)
    return name
