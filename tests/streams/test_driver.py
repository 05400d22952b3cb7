"""What is extended of Faust's Kafka driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import aiokafka
import faust
import pytest

from streams.driver import FETCH_BYTES, FETCH_WAIT_MS, Client, Transport
from streams.producer import EventProducer
from streams.settings import Settings
from streams.topics import ensure_topics


def test_faust_makes_its_consumers_of_ours_which_an_idle_topic_does_not_hold_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faust's own 1500 ms would."""
    asked: dict[str, object] = {}
    (plain,) = Client.__bases__
    monkeypatch.setattr(plain, "__init__", lambda self, *arguments, **options: asked.update(options))
    aiokafka.AIOKafkaConsumer(fetch_max_wait_ms=1500)
    assert asked == {
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "fetch_min_bytes": FETCH_BYTES,
        "isolation_level": "read_committed",
    }


@pytest.mark.end_to_end
async def test_records_that_were_fetched_while_partitions_moved_are_delivered_again(settings: Settings) -> None:
    """Faust drops them and calls `seek_to_committed`, which left a partition where it was if nothing was committed."""
    ensure_topics(settings)
    with EventProducer(settings) as events:
        for number in range(5):
            events.search("21", f"query {number}")
    consumer = Client(
        settings.topics.searches,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=settings.generation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:

        async def offsets() -> list[int]:
            found: list[int] = []
            async with asyncio.timeout(30):
                while len(found) < 5:
                    for records in (await consumer.getmany(timeout_ms=500)).values():
                        found += [record.offset for record in records]
            return found

        assert await offsets() == [0, 1, 2, 3, 4]
        await consumer.seek_to_committed()
        assert await offsets() == [0, 1, 2, 3, 4]
        (partition,) = {at for at in consumer.assignment() if at.partition == 4}
        await consumer.commit({partition: 3})
        await consumer.seek_to_committed()
        records = await consumer.getmany(timeout_ms=5000)
        assert [record.offset for record in records[partition]] == [3, 4]
    finally:
        await consumer.stop()


class Delivery:
    """One that takes as many turns of the event loop as it is told, or fails."""

    def __init__(self, turns: int, failure: Exception | None = None) -> None:
        self.turns = turns
        self.failure = failure
        self.told: list[str] = []

    async def deliver(self) -> str:
        self.told.append("begun")
        for _ in range(self.turns):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.told.append("cancelled")
                raise
        if self.failure is not None:
            raise self.failure
        self.told.append("done")
        return "delivered"


@pytest.fixture
async def consumer() -> AsyncIterator[faust.types.transports.ConsumerT]:
    app = faust.App("driver-test", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
    nothing = dict.fromkeys(("callback", "on_partitions_revoked", "on_partitions_assigned"), lambda *_: None)
    consumer = Transport(app.conf.broker_consumer, app).create_consumer(**nothing)
    yield consumer
    consumer._stopped.set()


async def waited(consumer: faust.types.transports.ConsumerT, first: Awaitable[object], other: asyncio.Event) -> object:
    done = await consumer.wait_first(first, other.wait())
    return done.results


async def test_a_record_that_nobody_has_to_wait_for_takes_no_task(consumer) -> None:
    before = asyncio.all_tasks()
    assert await waited(consumer, Delivery(0).deliver(), asyncio.Event()) == ["delivered"]
    assert asyncio.all_tasks() == before


async def test_a_record_that_has_to_wait_is_waited_for(consumer) -> None:
    delivery = Delivery(3)
    assert await waited(consumer, delivery.deliver(), asyncio.Event()) == ["delivered"]
    assert delivery.told == ["begun", "done"]


async def test_partitions_that_move_end_the_wait(consumer) -> None:
    delivery, suspended = Delivery(1000), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, suspended.set)
    assert await waited(consumer, delivery.deliver(), suspended) == [True]
    await asyncio.sleep(0.05)
    assert delivery.told == ["begun", "cancelled"]


@pytest.mark.parametrize("turns", [0, 2])
async def test_a_failure_is_raised(turns: int, consumer) -> None:
    with pytest.raises(ValueError, match="broken"):
        await waited(consumer, Delivery(turns, ValueError("broken")).deliver(), asyncio.Event())


async def test_nothing_is_delivered_by_a_consumer_that_stops(consumer) -> None:
    consumer._stopped.set()
    done = await consumer.wait_first(Delivery(5).deliver(), asyncio.Event().wait())
    assert done.stopped
