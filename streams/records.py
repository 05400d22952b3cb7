"""A Kafka record as a driver hands it to an updater: the same whether Faust or a replay has read it."""

from __future__ import annotations

from typing import NamedTuple

from streams.dead_letters import DeadLetter
from streams.events import InvalidEvent


class Record(NamedTuple):
    topic: str
    topic_id: str  # Kafka's: a topic deleted and made anew has another
    partition: int
    offset: int
    timestamp: int  # when it was produced, ms
    key: bytes | None
    value: bytes | None


def dead_letter(record: Record, refusal: InvalidEvent) -> DeadLetter:
    """The letter that keeps a record which can't be understood, with the reason."""
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        field=refusal.field,
        reason=refusal.reason,
        key=record.key,
        value=record.value,
    )
