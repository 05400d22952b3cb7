"""The shop's history out of its topics, as far as it is asked for: what is learned from, and judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from streams.evaluation.files import Shop
from streams.events import (
    InvalidEvent,
    Product,
    Purchase,
    Search,
    check_key,
    decode_key,
    decode_product,
    decode_purchase,
    decode_search,
)
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.partition_reader import PartitionReader
from streams.products import stored_product
from streams.settings import Settings
from streams.topics import Topic, describe, end_offsets, first_offsets

Report: TypeAlias = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is, and of how much."""

_E = TypeVar("_E", Search, Purchase)

_PATIENCE_SECONDS: Final = 60.0


class HistoryGone(RuntimeError):
    """The topics don't have the history that is asked for; the text says what is missing."""


class Stretch(msgspec.Struct, frozen=True):
    """What is read of a topic: for each partition, the offsets from `start` up to `end`."""

    topic: str
    id: str  # Kafka's: a topic deleted and made anew has another
    start: list[int]
    end: list[int]


class Extent(msgspec.Struct, frozen=True):
    """A stretch of each topic. The same extent is the same history, as long as Kafka keeps it."""

    searches: Stretch
    purchases: Stretch
    products: Stretch

    @property
    def topics(self) -> dict[str, str]:
        """Kafka's ids, by topic."""
        return {one.topic: one.id for one in (self.searches, self.purchases, self.products)}

    @property
    def events(self) -> int:
        """Records of searches and purchases in it, at most."""
        return sum(sum(one.end) - sum(one.start) for one in (self.searches, self.purchases))


class History(NamedTuple):
    """What was read. `refused` records are no event, or of another user than their key says."""

    shop: Shop
    refused: int


def extent_now(settings: Settings, newest: int | None = None) -> Extent:
    """All that the topics hold now; with `newest`, only about so many searches and purchases, the newest of each
    partition, in equal shares.

    Raises HistoryGone where a topic isn't there, and KafkaUnreachable.
    """
    names = (settings.topics.searches, settings.topics.purchases, settings.topics.products)
    admin = connect_admin(settings.kafka)
    found = answered(lambda: describe(admin, names), settings.kafka)
    if missing := [name for name in names if name not in found]:
        raise HistoryGone(f"Kafka has no topic {' and no '.join(missing)}: there is nothing to learn from")
    first = answered(lambda: first_offsets(admin, found), settings.kafka)
    ends = answered(lambda: end_offsets(admin, found), settings.kafka)

    def stretch(name: str, share: float) -> Stretch:
        partitions = range(found[name].partitions)
        end = [ends[name, partition] for partition in partitions]
        start = [
            max(first[name, partition], end[partition] - round(share * (end[partition] - first[name, partition])))
            for partition in partitions
        ]
        return Stretch(name, found[name].id, start, end)

    searches, purchases, products = (stretch(name, 1.0) for name in names)
    whole = Extent(searches, purchases, products)
    if newest is None or whole.events <= newest:
        return whole
    share = newest / whole.events
    return Extent(stretch(names[0], share), stretch(names[1], share), products)


def read_history(settings: Settings, extent: Extent, report: Report = lambda *_: None) -> History:
    """The events of an extent, those of each partition in their order; of each product the last event counts.

    Raises HistoryGone where a topic was made anew or retention has deleted what is asked for, and KafkaUnreachable.
    """
    _check(settings, extent)
    reading = _Reading(settings, report, extent.events + sum(extent.products.end) - sum(extent.products.start))
    products: dict[str, Product] = {}

    def product(message: Message) -> None:
        event = decode_product(_bytes(message.value()), message.timestamp()[1])
        product_id = decode_key(_bytes(message.key()))
        if event is None:
            products.pop(product_id, None)
            return
        check_key(_bytes(message.key()), event)
        stored_product(event)
        products.pop(product_id, None)
        products[product_id] = event

    def event(decode: Callable[[bytes | None, int], _E], events: list[_E]) -> Callable[[Message], None]:
        def take(message: Message) -> None:
            decoded = decode(_bytes(message.value()), message.timestamp()[1])
            check_key(_bytes(message.key()), decoded)
            events.append(decoded)

        return take

    purchases: list[Purchase] = []
    searches: list[Search] = []
    reading.read(extent.products, product)
    reading.read(extent.purchases, event(decode_purchase, purchases))
    reading.read(extent.searches, event(decode_search, searches))
    return History(Shop([*products.values()], purchases, searches), reading.refused)


class _Reading:
    def __init__(self, settings: Settings, report: Report, of: int) -> None:
        self._settings = settings
        self._report = report
        self._of = of
        self._done = 0
        self.refused = 0

    def read(self, stretch: Stretch, take: Callable[[Message], None]) -> None:
        """Every record of the stretch, but those that `take` finds to be no event."""
        with PartitionReader(self._settings.kafka) as reader:
            for partition, (start, end) in enumerate(zip(stretch.start, stretch.end, strict=True)):
                if start < end:
                    reader.begin(stretch.topic, partition, start)
                    self._read(reader, end, take)

    def _read(self, reader: PartitionReader, end: int, take: Callable[[Message], None]) -> None:
        def told(message: Message) -> None:
            offset = message.offset()
            if offset is None or offset >= end:
                return
            try:
                take(message)
            except InvalidEvent:
                self.refused += 1

        try:
            reader.read(end, told, report=self._tell, patience_seconds=_PATIENCE_SECONDS)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError._AUTO_OFFSET_RESET:
                raise HistoryGone(
                    f"records of {reader.topic} were deleted while they were read (retention): begin again"
                ) from error
            servers = self._settings.kafka.bootstrap_servers
            raise KafkaUnreachable(f"Kafka at {servers} does not hand over {reader.topic} ({cause.str()})") from error

    def _tell(self, records: int) -> None:
        self._done += records
        self._report("reading topics", min(self._done, self._of), self._of)


def _check(settings: Settings, extent: Extent) -> None:
    admin = connect_admin(settings.kafka)
    stretches = {one.topic: one for one in (extent.searches, extent.purchases, extent.products)}
    found: Mapping[str, Topic] = answered(lambda: describe(admin, [*stretches]), settings.kafka)
    for name, stretch in stretches.items():
        if name not in found or found[name].id != stretch.id:
            raise HistoryGone(f"topic {name} is no longer the one that was to be read: it was deleted, or made anew")
    kept = answered(lambda: first_offsets(admin, found), settings.kafka)
    for stretch in (extent.searches, extent.purchases):
        for partition, start in enumerate(stretch.start):
            if kept[stretch.topic, partition] > start:
                raise HistoryGone(
                    f"records of {stretch.topic} from offset {start:,} of partition {partition} on are gone (retention)"
                )


def _bytes(value: object) -> bytes | None:
    assert isinstance(value, bytes | None)
    return value
