"""Reads a stretch of one partition as a plain consumer, which joins no group and commits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka import client_config
from streams.settings import Kafka

_AT_ONCE: Final = 5000
_POLL_SECONDS: Final = 0.1  # it waits so long for a full batch, at the end of a partition too


class PartitionReader:
    """Reads committed records only. A context manager; one thread at a time."""

    def __init__(self, kafka: Kafka) -> None:
        self._consumer = Consumer(
            {
                **client_config(kafka),
                "group.id": "afterglow-plain",  # required, and never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )
        self.topic = ""
        self.position = 0

    def __enter__(self) -> PartitionReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def begin(self, topic: str, partition: int, offset: int) -> None:
        """What is read next."""
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        self.topic, self.position = topic, offset

    def read(
        self,
        until: int,
        take: Callable[[Message], None],
        *,
        report: Callable[[int], None] = lambda _: None,
        patience_seconds: float | None = None,
    ) -> None:
        """Hands over every record from where it stands up to offset `until`, and maybe some beyond.

        Waits for a Kafka that is away, but no longer than `patience_seconds` for the next records.

        Raises:
            KafkaException: Kafka refuses, has deleted what was to be read next (_AUTO_OFFSET_RESET), or took too long
                (_TIMED_OUT).
        """
        progressed = time.monotonic()
        while self.position < until:
            before = self.position
            for message in self._consumer.consume(_AT_ONCE, _POLL_SECONDS):
                error = message.error()
                offset = message.offset()
                if error is None:
                    take(message)
                    assert offset is not None
                    self.position = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Nothing lies before `offset`: what is missing there was compacted away, or no record.
                    self.position = max(self.position, offset or 0)
                elif not error.retriable():
                    raise KafkaException(error)
            report(self.position - before)
            if self.position > before:
                progressed = time.monotonic()
            elif patience_seconds is not None and time.monotonic() - progressed > patience_seconds:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
