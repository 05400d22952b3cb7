"""Events onto Kafka, from any Python program: validated, keyed, idempotent, and never lost in silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.events import Event, InvalidEvent, Kind, Product, Purchase, Search, decode_key, encode, event_key
from streams.kafka import client_config
from streams.settings import Settings, load

# Twice what Kafka takes by default: a dead letter is an event as large as any, and its headers.
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
DELIVERY_SECONDS: Final = 120
_QUEUED_MESSAGES: Final = 100_000
_QUEUED_KILOBYTES: Final = 65_536


class DeliveryFailed(RuntimeError):
    """Kafka didn't take some records: how many (`count`), and why the first failed (`first`)."""

    def __init__(self, count: int, first: str) -> None:
        super().__init__(f"{count} {'record was' if count == 1 else 'records were'} not delivered to Kafka: {first}")
        self.count = count
        self.first = first


class EventProducer:
    """Sends events; use it as a context manager.

        with EventProducer() as events:
            events.search("u-17", "walking boots")
            events.purchase("u-17", "p-4", quantity=1, price=89.0)

    Without settings it finds Kafka as the commands do: environment, a running `afterglow up`, the defaults.

    Every method validates (`InvalidEvent`, before anything is sent), queues, and returns at once; it waits only
    while the queue is full (100,000 records or 64 MiB). Records of one user keep their order. Leaving the block, or
    `flush`, waits until Kafka has acknowledged all of them (acks=all) and raises `DeliveryFailed` where one wasn't
    within two minutes. Retries by the client never duplicate a record; a record whose program died before `flush`
    returned may or may not be stored. Safe to share between threads.

    Keys are placed as Java's default partitioner does (murmur2), so that producers in other languages put a user's
    events on the same partition.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or load()
        self._topics = settings.topics
        self._where = settings.kafka.bootstrap_servers
        self._producer = Producer(
            {
                **client_config(settings.kafka),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "partitioner": "murmur2_random",
                "delivery.timeout.ms": DELIVERY_SECONDS * 1000,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.messages": _QUEUED_MESSAGES,
                "queue.buffering.max.kbytes": _QUEUED_KILOBYTES,
            }
        )
        self._lock = threading.Lock()
        self._offsets: dict[tuple[str, int], int] = {}
        self._failed = 0
        self._first_failure = ""

    def search(
        self,
        user_id: str,
        query: str,
        *,
        ts: int | None = None,
        event_id: str | None = None,
        session_id: str | None = None,
        locale: str | None = None,
        clicked_product_id: str | None = None,
    ) -> None:
        """Send a search; `ts` in ms, by default now."""
        self.produce(
            Search(
                user_id=user_id,
                query=query,
                ts=_now_ms() if ts is None else ts,
                event_id=event_id,
                session_id=session_id,
                locale=locale,
                clicked_product_id=clicked_product_id,
            )
        )

    def purchase(
        self,
        user_id: str,
        product_id: str,
        *,
        quantity: int = 1,
        ts: int | None = None,
        event_id: str | None = None,
        price: float | None = None,
        order_id: str | None = None,
        title: str | None = None,
    ) -> None:
        """Send a purchase; `ts` in ms, by default now."""
        self.produce(
            Purchase(
                user_id=user_id,
                product_id=product_id,
                quantity=quantity,
                ts=_now_ms() if ts is None else ts,
                event_id=event_id,
                price=price,
                order_id=order_id,
                title=title,
            )
        )

    def product(
        self,
        product_id: str,
        title: str,
        *,
        brand: str | None = None,
        category: str | None = None,
        price: float | None = None,
        kind: Kind = "product",
        available: bool = True,
        ts: int | None = None,
        related: Sequence[str] = (),
    ) -> None:
        """Send a product, new or changed: it replaces what was known of it."""
        self.produce(
            Product(
                product_id=product_id,
                title=title,
                brand=brand,
                category=category,
                price=price,
                kind=kind,
                available=available,
                ts=ts,
                related=tuple(related) or None,
            )
        )

    def delete_product(self, product_id: str) -> None:
        """Delete a product: it is never recommended again."""
        key = product_id.encode(errors="replace")
        decode_key(key)
        self.send(self._topics.products, key, None)

    def produce(self, event: Event) -> None:
        """Send an event to its topic. Raises `InvalidEvent`."""
        value = encode(event, _now_ms())
        if isinstance(event, Search):
            topic = self._topics.searches
        elif isinstance(event, Purchase):
            topic = self._topics.purchases
        else:
            topic = self._topics.products
        self.send(topic, event_key(event).encode(), value)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Queue one record as it is, unchecked; its timestamp is now.

        Raises `InvalidEvent` where it is too large for Kafka, and `DeliveryFailed` where the client can't go on.
        """
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise InvalidEvent("value", f"is larger than {MAX_MESSAGE_BYTES} bytes") from None
                raise DeliveryFailed(self._failed + 1, self._first_failure or cause.str()) from error
            else:
                break
        self._producer.poll(0)

    def poll(self, timeout_seconds: float) -> None:
        """Let acknowledgements come in for this long."""
        self._producer.poll(timeout_seconds)

    def flush(self) -> None:
        """Wait until every record is acknowledged or given up. Raises `DeliveryFailed`, once for each failure."""
        while self._producer.flush(0.2):  # in short steps: a Ctrl-C is heard between them
            pass
        with self._lock:
            failed, first = self._failed, self._first_failure
            self._failed, self._first_failure = 0, ""
        if failed:
            raise DeliveryFailed(failed, first)

    @property
    def offsets(self) -> dict[tuple[str, int], int]:
        """The highest offset acknowledged so far, by (topic, partition)."""
        with self._lock:
            return dict(self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        except DeliveryFailed as failed:
            if error is None:
                raise
            error.add_note(str(failed))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        with self._lock:
            if error is not None:
                self._failed += 1
                self._first_failure = self._first_failure or f"{error.str()} ({topic} at {self._where})"
            elif topic is not None and partition is not None and offset is not None:
                at = (topic, partition)
                if offset > self._offsets.get(at, -1):
                    self._offsets[at] = offset


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
