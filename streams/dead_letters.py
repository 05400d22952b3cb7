"""Events that couldn't be understood: kept with their reason and their original bytes, listed, and sent again.

A dead letter is a Kafka record with the original key and value, untouched, and these headers (UTF-8 text):
`topic`, `partition`, `offset`, `timestamp` (ms): where and when the original was; `field`, `reason`: what was wrong.

The letters that still wait are those from the committed offset of the group `afterglow-dead-letters-retry` on.
`retry` goes through all of them once, in order: those chosen that can be understood now are produced anew to their
source topic; the others move to the end; then the offset is committed. So each letter is sent again at most once,
unless `retry` is killed between the two (it is then sent twice; an `event_id` makes that harmless) or runs twice at
the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from streams.events import (
    InvalidEvent,
    check_key,
    decode_key,
    decode_product,
    decode_purchase,
    decode_search,
)
from streams.kafka import answered, client_config, connect_admin
from streams.producer import EventProducer
from streams.refusals import Refusals
from streams.settings import Settings, Topics
from streams.topics import TopicPartition, committed_offsets, describe, end_offsets, first_offsets

RETRY_GROUP: Final = "afterglow-dead-letters-retry"
MAX_REASON: Final = 1000
_CHUNK: Final = 1000

Headers = list[tuple[str, bytes]]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One event that couldn't be understood, where it came from, and why. Times in ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    field: str
    reason: str
    key: bytes | None
    value: bytes | None

    def headers(self) -> Headers:
        """The headers of its record on the dead-letter topic; key and value are the record's own."""
        return [
            ("topic", self.topic.encode()),
            ("partition", b"%d" % self.partition),
            ("offset", b"%d" % self.offset),
            ("timestamp", b"%d" % self.timestamp),
            ("field", self.field.encode(errors="replace")),
            ("reason", self.reason[:MAX_REASON].encode(errors="replace")),
        ]

    def because(self, error: InvalidEvent) -> DeadLetter:
        """The same event, with another reason."""
        return msgspec.structs.replace(self, field=error.field, reason=error.reason)


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """What a retry did: letters sent to their topics, letters not chosen, and those still not understood.

    `offsets` are the highest of the records sent, by (topic, partition).
    """

    sent: int
    kept: int
    refusals: Refusals
    offsets: dict[TopicPartition, int]


def read_letter(message: Message) -> DeadLetter:
    """A record of the dead-letter topic. Whatever its headers are, its key and value come back as they are."""
    headers = {name: _text(value) for name, value in message.headers() or []}
    return DeadLetter(
        topic=headers.get("topic", ""),
        partition=_number(headers.get("partition")),
        offset=_number(headers.get("offset")),
        timestamp=_number(headers.get("timestamp")),
        field=headers.get("field", ""),
        reason=headers.get("reason", ""),
        key=message.key(),
        value=message.value(),
    )


def understand(letter: DeadLetter, topics: Topics, reference_ms: int) -> None:
    """Judge the original record as a worker would if it were produced at `reference_ms`; raises `InvalidEvent`."""
    if letter.topic == topics.searches:
        check_key(letter.key, decode_search(letter.value, reference_ms))
    elif letter.topic == topics.purchases:
        check_key(letter.key, decode_purchase(letter.value, reference_ms))
    elif letter.topic == topics.products:
        product = decode_product(letter.value, reference_ms)
        if product is None:
            decode_key(letter.key)
        else:
            check_key(letter.key, product)
    else:
        raise InvalidEvent("topic", f"is not one of ours: {letter.topic!r}")


def newest(settings: Settings, limit: int) -> list[DeadLetter]:
    """The last `limit` letters that still wait, oldest first."""
    ranges = {at: (max(start, end - limit), end) for at, (start, end) in _waiting(settings).items()}
    with _consumer(settings) as consumer:
        dated = [(message.timestamp()[1], read_letter(message)) for message in _read(consumer, ranges)]
    dated.sort(key=lambda letter: letter[0])
    return [letter for _, letter in dated[-limit:]] if limit > 0 else []


def waiting_count(settings: Settings) -> int:
    """How many letters still wait."""
    return sum(end - start for start, end in _waiting(settings).values())


def retry(settings: Settings, now_ms: int, only: str = "") -> Retried:
    """Send the waiting letters again, as the module says; `only` chooses those whose "field reason" contains it.

    Raises `DeliveryFailed` and `KafkaUnreachable`; what was committed by then is done, the rest still waits.
    """
    dead_letters = settings.topics.dead_letters
    sent = kept = 0
    refusals = Refusals()
    done: dict[TopicPartition, int] = {}
    with _consumer(settings) as consumer, EventProducer(settings) as producer:
        for handled, message in enumerate(_read(consumer, _waiting(settings)), start=1):
            letter = read_letter(message)
            chosen = only in f"{letter.field} {letter.reason}"
            if chosen:
                try:
                    understand(letter, settings.topics, now_ms)
                except InvalidEvent as error:
                    letter, chosen = letter.because(error), False
                    refusals.add(error, f"{letter.topic}/{letter.partition} at {letter.offset}")
            else:
                kept += 1
            if chosen:
                sent += 1
                producer.send(letter.topic, letter.key, letter.value)
            else:
                producer.send(dead_letters, letter.key, letter.value, letter.headers())
            done[_where(message)] = _offset(message) + 1
            if handled % _CHUNK == 0:
                _commit(consumer, producer, done)
        _commit(consumer, producer, done)
        offsets = {at: offset for at, offset in producer.offsets.items() if at[0] != dead_letters}
    return Retried(sent=sent, kept=kept, refusals=refusals, offsets=offsets)


def _commit(consumer: Consumer, producer: EventProducer, done: dict[TopicPartition, int]) -> None:
    producer.flush()
    if done:
        offsets = [KafkaPartition(topic, partition, offset) for (topic, partition), offset in done.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        done.clear()


def _waiting(settings: Settings) -> dict[TopicPartition, tuple[int, int]]:
    """For each partition of the dead-letter topic, the offsets [from, to) of the letters that wait."""
    admin = connect_admin(settings.kafka)
    topics = answered(lambda: describe(admin, [settings.topics.dead_letters]), settings.kafka)
    first = answered(lambda: first_offsets(admin, topics), settings.kafka)
    end = answered(lambda: end_offsets(admin, topics), settings.kafka)
    committed = answered(lambda: committed_offsets(settings.kafka, RETRY_GROUP, topics), settings.kafka)
    waiting = {}
    for at, stop in end.items():
        start = committed.get(at, 0)
        if start > stop:  # the topic was made anew since
            start = 0
        waiting[at] = (max(start, first[at]), stop)
    return waiting


def _read(consumer: Consumer, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Message]:
    """The records at these offsets [from, to), each partition's in order. Raises `KafkaException`."""
    left = {at: stop for at, (start, stop) in ranges.items() if start < stop}
    if left:
        consumer.assign([KafkaPartition(*at, ranges[at][0]) for at in left])
    while left:
        for message in consumer.consume(_CHUNK, timeout=1.0):
            error, at = message.error(), _where(message)
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # what is missing before it are Kafka's own records
                    left.pop(at, None)
                elif not error.retriable():
                    raise KafkaException(error)
            elif at in left:
                if _offset(message) < left[at]:
                    yield message
                if _offset(message) + 1 >= left[at]:
                    left.pop(at)


def _consumer(settings: Settings) -> closing[Consumer]:
    return closing(
        Consumer(
            {
                **client_config(settings.kafka),
                "group.id": RETRY_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
    )


def _where(message: Message) -> TopicPartition:
    return message.topic() or "", -1 if message.partition() is None else message.partition()


def _offset(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.lstrip("-").isdigit() else -1
