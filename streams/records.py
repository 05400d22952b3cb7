"""A Kafka record as a driver hands it to an updater: the same whether Faust or a replay has read it."""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    topic: str
    topic_id: str  # Kafka's: a topic deleted and made anew has another
    partition: int
    offset: int
    timestamp: int  # when it was produced, ms
    key: bytes | None
    value: bytes | None
