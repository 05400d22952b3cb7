"""Records in large windows, read as a member of a generation's group: what a replay feeds on.

One thread at a time calls `read`, which serves the consumer in every way: rebalances, pauses and commits. Beside a
`consume` in another thread they hang (confluent-kafka 2.16).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from streams.continuity import Overtaken
from streams.groups import REPLAY
from streams.kafka import client_config
from streams.records import Record
from streams.settings import Kafka
from streams.topics import Topic, TopicPartition

logger = logging.getLogger("afterglow.windows")

WINDOW_RECORDS: Final = 50_000
WINDOW_BYTES: Final = 32 * 2**20
"""Of keys and values."""

CONSUMED_AT_ONCE: Final = 5000
_POLL_SECONDS: Final = 0.1


class Window(NamedTuple):
    """Records of any topics, each partition's in their order, and where each partition goes on after them."""

    records: list[Record]
    next_offsets: dict[TopicPartition, int]


class WindowReader:
    """A member of a group all of whose partitions have committed offsets. Close it.

    Delivers each partition contiguously from the group's committed offset, and anew from there when it was moved.
    """

    def __init__(
        self,
        kafka: Kafka,
        group: str,
        topics: Mapping[str, Topic],
        *,
        first: str,
        on_assignment: Callable[[frozenset[TopicPartition]], object],
    ) -> None:
        """`first` is the topic that is read alone until `read_all`. `on_assignment` is called from `read`."""
        self._group = group
        self._topics = topics
        self._first: str | None = first
        self._on_assignment = on_assignment
        self._mine: frozenset[TopicPartition] = frozenset()
        self._paused: list[KafkaPartition] = []
        self._delivered: dict[TopicPartition, int] = {}
        self._applied: dict[TopicPartition, int] = {}
        self._applied_lock = threading.Lock()
        self._consumer = Consumer(
            {
                **client_config(kafka),
                "client.id": "afterglow-replay",
                "group.id": group,
                "partition.assignment.strategy": REPLAY,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",  # every partition has an offset: one that is gone was overtaken
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2000,
                "max.poll.interval.ms": 3_600_000,  # a window of texts that a new model has never seen
                "queued.max.messages.kbytes": 32_768,
                "enable.partition.eof": True,  # where a partition ends with a transaction's mark, no record says so
            }
        )
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked)

    def read_all(self) -> None:
        """From now on every topic is read. Callable from any thread."""
        self._first = None

    def read(self) -> Window | None:
        """What has come, up to a window; None where nothing has, for a moment. Commits what was applied meanwhile.

        Raises Overtaken where records that were to be read are gone, and KafkaException where Kafka refuses for good.
        """
        window = Window([], {})
        size = 0
        while len(window.records) < WINDOW_RECORDS and size < WINDOW_BYTES:
            self._resume()
            self._commit(asynchronous=True)
            most = min(CONSUMED_AT_ONCE, WINDOW_RECORDS - len(window.records))
            messages = self._consumer.consume(most, timeout=_POLL_SECONDS)
            if not messages:
                break
            for message in messages:
                size += self._add(window, message)
        self._delivered |= window.next_offsets
        return window if window.next_offsets else None

    def applied(self, window: Window) -> None:
        """The window may be committed. In the order in which they were read; callable from any thread."""
        with self._applied_lock:
            self._applied |= window.next_offsets

    def close(self) -> None:
        """Commits what was applied, and leaves the group. Nobody may be in `read`."""
        self._commit(asynchronous=False)
        self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        consumer.assign(partitions)
        self._mine = frozenset((at.topic, at.partition) for at in partitions)
        self._on_assignment(self._mine)
        self._paused = [at for at in partitions if self._first not in (None, at.topic)]
        if self._paused:
            consumer.pause(self._paused)

    def _revoked(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._commit(asynchronous=False)
        self._mine = frozenset()
        self._paused = []
        self._delivered.clear()

    def _resume(self) -> None:
        if self._paused and self._first is None:
            self._consumer.resume(self._paused)
            self._paused = []

    def _add(self, window: Window, message: Message) -> int:
        """How many bytes the window has grown by."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                if self._delivered.get((topic, partition)) != offset:
                    window.next_offsets[topic, partition] = offset
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise Overtaken(
                    f"{topic} {partition}: records that group {self._group} had not read yet are gone (retention, or "
                    f"somebody's deletion): {error.str()}. Replay into another generation, which begins at what the "
                    "topics still have"
                )
            elif error.fatal():
                raise KafkaException(error)
            return 0
        window.records.append(
            Record(
                topic,
                self._topics[topic].id,
                partition,
                offset,
                message.timestamp()[1],
                message.key(),
                message.value(),
            )
        )
        window.next_offsets[topic, partition] = offset + 1
        return len(message)

    def _commit(self, *, asynchronous: bool) -> None:
        """A commit that fails costs a second reading; what was folded in stays so."""
        with self._applied_lock:
            applied, self._applied = self._applied, {}
        mine = [KafkaPartition(*at, offset) for at, offset in applied.items() if at in self._mine]
        if mine:
            try:
                self._consumer.commit(offsets=mine, asynchronous=asynchronous)
            except KafkaException as error:
                logger.warning("event=not_committed group=%s reason=%r", self._group, error.args[0].str())
