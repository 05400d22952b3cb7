"""What one would write with confluent-kafka: `python -m benchmarks.plain_consumer`, the same steps without Faust.

It takes its settings, its generation and its figures' port as `afterglow worker` does, and until SIGTERM does what that
does with each batch: the same keeper, batches as large at most, as long a linger, one batch made ready while the one
before it is applied, offsets stored when a batch is, candidates put off and swept alike. It checks nothing beside that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Final

import uvloop
from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from streams.batches import Batch
from streams.garbage import collect_rarely, keep_freed_memory
from streams.generations import connected, group_of
from streams.kafka import client_config
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.metrics import serve_metrics
from streams.opening import Opened, open_for_writing
from streams.pipeline import Pipeline
from streams.products import ProductBatch
from streams.records import Record
from streams.settings import Settings, load
from streams.worker import BATCHES_AT_ONCE

_COMMIT_MS: Final = 1000  # as often as a worker


class PlainConsumer:
    def __init__(self, opened: Opened, keeper: Keeper) -> None:
        self._opened = opened
        self._keeper = keeper
        self._settings = settings = opened.settings
        self._partitions: frozenset[int] = frozenset()
        self._assigned = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pipeline: Pipeline[Message, tuple[ProductBatch, Batch]] = Pipeline(
            self._take,
            prepare=self._prepare,
            apply=self._apply,
            acknowledge=self._acknowledge,
            at_once=BATCHES_AT_ONCE,
        )
        self._consumer = Consumer(
            {
                **client_config(settings.kafka),
                "group.id": group_of(opened.generation.name),
                "auto.offset.reset": "earliest",
                "enable.auto.offset.store": False,
                "auto.commit.interval.ms": _COMMIT_MS,
            }
        )

    async def run(self) -> None:
        """Until it is cancelled. Figures are served as soon as it has partitions."""
        topics = self._settings.topics
        self._consumer.subscribe([topics.searches, topics.purchases, topics.products], on_assign=self._on_assign)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pipeline.run())
                tasks.create_task(self._sweep())
                await self._assigned.wait()
                serve_metrics(self._settings.worker.metrics_port, self._keeper.figures, lambda: 0)
        finally:
            self._consumer.close()

    async def _take(self) -> Sequence[Message]:
        worker = self._settings.worker
        while True:
            messages: list[Message] = await asyncio.to_thread(
                self._consumer.consume, worker.batch_events, worker.linger.seconds
            )
            if messages:
                return messages

    async def _prepare(self, messages: Sequence[Message]) -> tuple[ProductBatch, Batch]:
        records = [self._record(message) for message in messages]
        by_product = self._settings.topics.products
        return await asyncio.gather(
            self._keeper.prepare_products([record for record in records if record.topic == by_product]),
            self._keeper.prepare_events([record for record in records if record.topic != by_product]),
        )

    async def _apply(self, ready: tuple[ProductBatch, Batch]) -> None:
        products, events = ready
        if products.products:
            await self._keeper.apply_products(products)
        await self._keeper.apply_events(events)

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        ends = {(message.topic(), message.partition()): message.offset() + 1 for message in messages}
        self._consumer.store_offsets(offsets=[KafkaPartition(*at, offset) for at, offset in ends.items()])

    async def _sweep(self) -> None:
        interval = self._settings.worker.sweep_interval.seconds
        while True:
            if await self._keeper.sweep(self._partitions, busy=lambda: self._pipeline.busy) < SWEPT_AT_ONCE:
                await asyncio.sleep(interval)

    def _record(self, message: Message) -> Record:
        if message.error() is not None:
            raise KafkaException(message.error())
        topic = message.topic()
        return Record(
            topic,
            self._opened.topics[topic].id,
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            message.key(),
            message.value(),
        )

    def _on_assign(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        by_product = self._settings.topics.products
        self._partitions = frozenset(at.partition for at in partitions if at.topic != by_product)
        self._loop.call_soon_threadsafe(self._assigned.set)


async def consume(settings: Settings) -> None:
    client = connected(settings)
    opened = await open_for_writing(settings, client)
    keeper = Keeper(opened.settings, opened.generation, client=client, encoder=opened.encoder, ids=opened.ids)
    await keeper.start()
    collect_rarely()
    keep_freed_memory()
    running = asyncio.ensure_future(PlainConsumer(opened, keeper).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(consume(load()))
