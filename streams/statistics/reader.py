"""Searches and purchases of all partitions, in the order of their time, and what products go with, for statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from encoders.text import normalise
from sinks.clicks import query_hash
from streams.events import InvalidEvent, check_key, decode_key, decode_product, decode_purchase, decode_search
from streams.kafka import client_config
from streams.products import kinds_of, related_of
from streams.profiles import stable_hash
from streams.settings import Kafka, Topics
from streams.statistics.merging import Merger
from streams.topics import Topic, TopicPartition

_AT_ONCE: Final = 5000
_POLL_SECONDS: Final = 0.25
_SETTLED_SECONDS: Final = 1.0
"""For so long after its last record it is waited for a partition's next, or a history that is being sent would be
merged as it arrives: some partitions' next minutes before others' last days.
"""


class Bought(NamedTuple):
    user: int  # 64-bit pseudonym
    product_id: str
    order: int  # 64-bit hash


class Clicked(NamedTuple):
    user: int  # 64-bit pseudonym
    query: int  # its `query_hash`
    product_id: str


class Related(NamedTuple):
    """What the catalogue says that a product goes with and is of, from now on: nothing, where it is deleted."""

    product_id: str
    related: tuple[int, ...]  # 64-bit hashes of product ids
    announced: int  # ms; 0 where the catalogue doesn't say
    kinds: tuple[int, ...] = ()  # 64-bit hashes of its brand and category


Seen: TypeAlias = Bought | Clicked | Related


class EventReader:
    """Reads from given offsets, as a plain consumer: its group has committed offsets, and no members. Close it.

    One thread at a time. What can't be understood is passed over: the workers see to it.
    """

    def __init__(
        self,
        kafka: Kafka,
        group: str,
        names: Topics,
        topics: Mapping[str, Topic],
        offsets: Mapping[TopicPartition, int],
        pseudonym: Callable[[str], int],
    ) -> None:
        """`offsets`: where each partition begins; one whose record is gone begins at the oldest there is.

        `pseudonym` is what a user id is replaced by: `PointIds.pseudonym`.
        """
        self._pseudonym = lru_cache(maxsize=16_384)(pseudonym)  # an order's lines come one after the other
        self._names = names
        self._topics = topics
        self._next = dict(offsets)
        self._taken = dict(offsets)  # where each partition goes on after what was taken
        self._committed: dict[TopicPartition, int] = {}
        self._caught_up: set[TopicPartition] = set()
        self._came: dict[TopicPartition, float] = {}  # when each partition's last event came
        self._merger: Merger[tuple[TopicPartition, int, Seen | None]] = Merger()
        self._consumer = Consumer(
            {
                **client_config(kafka),
                "client.id": "afterglow-statistics",
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                # It may be late, and an answer for every few records costs Kafka as much as the workers do.
                "fetch.min.bytes": 65_536,
                "fetch.wait.max.ms": 500,
            }
        )
        self._consumer.assign([KafkaPartition(*at, offset) for at, offset in offsets.items()])

    @property
    def offsets(self) -> dict[str, dict[str, list[int]]]:
        """What is to be read next, after all that was taken: by topic id, topic and partition."""
        return {
            topic.id: {name: [self._taken[name, partition] for partition in range(topic.partitions)]}
            for name, topic in self._topics.items()
        }

    @property
    def caught_up(self) -> bool:
        """Whether everything that there was at the last look is taken."""
        return len(self._caught_up) == len(self._next) and not len(self._merger)

    def read(self) -> Iterator[tuple[int, Seen]]:
        """What has come, with its time (ms); waits a moment for it. Raises KafkaException where Kafka refuses.

        Reads on until nothing more is there, for a second at least where it keeps coming: only then is it known what
        comes first. Of products it comes as it is read: a catalogue is true of all that happened.
        """
        began = time.monotonic()
        messages = self._consumer.consume(_AT_ONCE, _POLL_SECONDS)
        while messages:
            for message in messages:
                if message.topic() != self._names.products or message.error() is not None:
                    self._put(message)
                elif (related := self._related(message)) is not None:
                    yield message.timestamp()[1], related
            long = time.monotonic() - began > _SETTLED_SECONDS
            if self._merger.full or (long and len(messages) < _AT_ONCE):
                break
            messages = self._consumer.consume(_AT_ONCE, _POLL_SECONDS)
        lately = time.monotonic() - _SETTLED_SECONDS
        behind = (self._next.keys() - self._caught_up) | {at for at, came in self._came.items() if came > lately}
        for ts, (at, offset, seen) in self._merger.take(frozenset(behind)):
            self._taken[at] = offset + 1
            if seen is not None:
                yield ts, seen
        for at in self._caught_up:
            if not len(self._merger):
                self._taken[at] = self._next[at]  # ends with a transaction's mark, it may be

    def commit(self) -> None:
        """Tells Kafka how far statistics have come, for whoever waits for them. Raises KafkaException."""
        if self._taken == self._committed:
            return
        self._consumer.commit(
            offsets=[KafkaPartition(*at, offset) for at, offset in self._taken.items()], asynchronous=False
        )
        self._committed = dict(self._taken)

    def close(self) -> None:
        self._consumer.close()

    def _related(self, message: Message) -> Related | None:
        """None where it can't be understood."""
        at, offset = self._count(message)
        self._taken[at] = offset + 1
        try:
            product = decode_product(message.value(), message.timestamp()[1])
            if product is None:
                return Related(decode_key(message.key()), (), 0)
            check_key(message.key(), product)
        except InvalidEvent:
            return None
        related, kinds = (tuple(map(stable_hash, of(product))) for of in (related_of, kinds_of))
        return Related(product.product_id, related, product.ts or 0, kinds)

    def _put(self, message: Message) -> None:
        at = (message.topic() or "", message.partition() or 0)
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._next[at] = message.offset() or 0
                self._caught_up.add(at)
            elif not error.retriable():
                raise KafkaException(error)
            return
        at, offset = self._count(message)
        self._came[at] = time.monotonic()
        ts, seen = self._understood(at[0], message.value(), message.timestamp()[1])
        self._merger.put(at, ts, (at, offset, seen))

    def _count(self, message: Message) -> tuple[TopicPartition, int]:
        """Where the message is; what comes after it is still to be read."""
        at, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        self._caught_up.discard(at)
        self._next[at] = offset + 1
        return at, offset

    def _understood(self, topic: str, value: bytes | None, produced: int) -> tuple[int, Seen | None]:
        try:
            if topic == self._names.searches:
                search = decode_search(value, produced)
                clicked = search.clicked_product_id
                if not clicked:
                    return search.ts, None
                query = query_hash(normalise(search.query))
                return search.ts, Clicked(self._pseudonym(search.user_id), query, clicked)
            purchase = decode_purchase(value, produced)
        except InvalidEvent:
            return produced, None
        order = stable_hash(purchase.order_id or str(purchase.ts))
        return purchase.ts, Bought(self._pseudonym(purchase.user_id), purchase.product_id, order)
