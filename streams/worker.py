"""One Faust worker as a process: opens everything, runs the pipelines, and exits 1, loudly, when it can't go on.

A failure that no retry can cure is never swallowed: the worker stops with nothing of the failed batch acknowledged,
and whoever takes over its partitions reads that batch again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import faust
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.types import EventT

from encoders.client import EncoderError
from sinks.collections import RefusedGeneration
from sinks.generations import served_generation
from sinks.ledgers import StateError
from sinks.retry import PermanentSinkError, Retry, RetryPolicy, log_retry
from streams.app import create_app
from streams.batches import Batch
from streams.continuity import Continuity, Discontinuity, check_committed
from streams.garbage import collect_rarely, keep_freed_memory
from streams.generations import connected, group_of
from streams.groups import LIVE, GroupInUse, members_of
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.lag import Waiting, positions, waiting
from streams.metrics import serve_metrics
from streams.opening import open_for_writing
from streams.pipeline import Intake, Pipeline, first_failure
from streams.products import ProductBatch
from streams.records import Record
from streams.restart import start_again
from streams.secret import NoSecret
from streams.settings import Settings
from streams.stalls import StallWatch, watch_for_stalls
from streams.topics import MisconfiguredTopics, Topic, TopicPartition

logger = logging.getLogger("afterglow.worker")

Ready = TypeVar("Ready")

STOP_SECONDS: Final = 15.0
"""How long a failed worker may take to leave the group in order; then it exits all the same."""

BATCHES_AT_ONCE: Final = 3
"""One is made ready, one is folded in, and of one the last part is being stored."""

TOPIC_CHECK_SECONDS: Final = 1.0
_GENERATION_CHECK_SECONDS: Final = 1.0
_GROUP_CHECK_SECONDS: Final = 0.5
_SAY_EVERY_SECONDS: Final = 10.0
_HANDED_OVER_SECONDS: Final = 0.002  # in this time the agent has what Faust fetched


class WorkerFailed(RuntimeError):
    """The worker can't go on; the text says why and what to do."""


def run_worker(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT. Raises WorkerFailed, from its cause.

    When readers are led to another generation, this process starts anew, under the same id, to go on with that one.
    """
    loop = _event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(settings)
    try:
        loop.run_until_complete(worker.open())
    except _CURED_BY_A_PERSON as error:
        raise WorkerFailed(str(error)) from error
    # Faust's own worker handles the signals, ends with SystemExit, and would turn a cursor on its standard output.
    with Path(os.devnull).open("w") as nowhere:
        runner = faust.Worker(
            worker.app, loop=loop, quiet=True, stdout=nowhere, override_logging=False, redirect_stdouts=False
        )
        try:
            runner.execute_from_commandline()
        except SystemExit as end:
            if end.code and worker.failure is None:
                worker.failure = worker.app.crash_reason or runner.crash_reason or end
    if worker.failure is not None:
        raise WorkerFailed(str(worker.failure)) from worker.failure
    if worker.successor is not None:
        start_again()  # Faust can't be started twice in one process


_CURED_BY_A_PERSON: Final = (
    Discontinuity,
    EncoderError,
    GroupInUse,
    KafkaUnreachable,
    MisconfiguredTopics,
    NoSecret,
    PermanentSinkError,
    RefusedGeneration,
    StateError,
    WorkerFailed,
)


class _Worker:
    app: faust.App

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: AdminClient = connect_admin(settings.kafka)
        self._partitions: frozenset[int] = frozenset()
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._events: Intake[EventT[bytes]] = Intake(settings.worker.buffer_events)
        self._products: Intake[EventT[bytes]] = Intake(settings.worker.buffer_events)
        self.failure: BaseException | None = None
        self.successor: str | None = None
        """The generation that took over, and that this process is to go on with."""

    async def open(self) -> None:
        """Connects to everything and makes sure that it fits together, before a single event is read."""
        settings = self._settings
        self._client = connected(settings)
        opened = await open_for_writing(settings, self._client)
        self._opened = opened
        topics = settings.topics
        self._event_watch = StallWatch("events", (topics.searches, topics.purchases))
        self._product_watch = StallWatch("products", (topics.products,))
        self._group = group_of(opened.generation.name)
        self._keeper = Keeper(
            opened.settings,
            opened.generation,
            client=self._client,
            encoder=opened.encoder,
            ids=opened.ids,
            retry=RetryPolicy(on_retry=self._hindered),
        )
        await self._keeper.start()
        sources = opened.generation.sources.values()
        read = {source.topic: opened.topics[source.topic] for source in sources}
        starts = {(source.topic, at): offset for source in sources for at, offset in enumerate(source.start)}
        await asyncio.to_thread(self._check_committed, read, starts)
        self._continuity = Continuity(settings.kafka, self._admin, self._group, opened.topics, starts)
        if port := settings.worker.metrics_port:
            try:
                serve_metrics(
                    port,
                    self._keeper.figures,
                    lambda: len(self._events) + len(self._products),
                    (self._event_watch, self._product_watch),
                )
            except OSError as error:
                raise WorkerFailed(
                    f"figures can't be served on port {port} ({error.strerror}): give each worker of a host a "
                    "worker.metrics_port of its own, or 0 for none"
                ) from error
        self._assemble()
        await self._wait_for_group()

    def _check_committed(self, topics: Mapping[str, Topic], starts: Mapping[TopicPartition, int]) -> None:
        """Where retention was faster than the group, Faust would go on at the first record there is."""
        kafka = self._settings.kafka
        answered(lambda: check_committed(kafka, self._admin, self._group, topics, starts), kafka)

    def _assemble(self) -> None:
        settings, keeper = self._settings, self._keeper
        batch_events, linger = settings.worker.batch_events, settings.worker.linger.seconds

        def pipeline(
            intake: Intake[EventT[bytes]],
            watch: StallWatch,
            prepare: Callable[[Sequence[Record]], Awaitable[Ready]],
            apply: Callable[[Ready], Awaitable[None]],
        ) -> Pipeline[EventT[bytes], Ready]:
            # Where nothing is at work there is nothing to be gained by waiting for company.
            def wait() -> float:
                return linger if running.busy else min(linger, _HANDED_OVER_SECONDS)

            async def take() -> Sequence[EventT[bytes]]:
                events = await intake.take(batch_events, wait)
                watch.taken()
                return events

            async def prepared(events: Sequence[EventT[bytes]]) -> Ready:
                # The topics are asked for after the batch was taken, and answer before it is applied.
                records = [self._record(event) for event in events]
                ready, _ = await asyncio.gather(prepare(records), self._continuity.check())
                return ready

            async def acknowledge(events: Sequence[EventT[bytes]]) -> None:
                for event in events:
                    event.ack()
                watch.acknowledged()

            running = Pipeline(take, prepare=prepared, apply=apply, acknowledge=acknowledge, at_once=BATCHES_AT_ONCE)
            return running

        self._event_pipeline: Pipeline[EventT[bytes], Batch] = pipeline(
            self._events, self._event_watch, keeper.prepare_events, keeper.apply_events
        )
        self._product_pipeline: Pipeline[EventT[bytes], ProductBatch] = pipeline(
            self._products, self._product_watch, keeper.prepare_products, keeper.apply_products
        )
        self.app = create_app(
            settings,
            group=self._group,
            events=self._events,
            products=self._products,
            on_assignment=self._on_assignment,
            on_failure=self._fail,
        )
        self.app.task()(self._run)

    async def _wait_for_group(self) -> None:
        """Faust and a replay's consumers can't be members of one group at once: whoever comes first is waited for."""
        told: float | None = None
        while others := await asyncio.to_thread(self._members_of_another_kind):
            if told is None or time.monotonic() - told >= _SAY_EVERY_SECONDS:
                told = time.monotonic()
                logger.info(
                    "event=waiting_for_group group=%s reason='%d members of another kind, as a replay has'",
                    self._group, others,
                )  # fmt: skip
            await asyncio.sleep(_GROUP_CHECK_SECONDS)

    def _members_of_another_kind(self) -> int:
        members = answered(lambda: members_of(self._admin, self._group), self._settings.kafka)
        return 0 if members.assignor in ("", LIVE) else members.number

    async def _run(self) -> None:
        """Everything this worker does beside reading: until it is cancelled (SIGTERM) or something fails for good."""
        collect_rarely()
        keep_freed_memory()
        logger.info("event=worker_running generation=%s", self._opened.generation.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in self._work():
                    tasks.create_task(work)
        except BaseExceptionGroup as group:
            self._fail(first_failure(group))

    def _work(self) -> Sequence[Coroutine[Any, Any, None]]:
        return (
            self._event_pipeline.run(),
            self._product_pipeline.run(),
            self._sweep(),
            self._keep_shared(),
            self._watch_topics(),
            self._watch_generation(),
            self._watch_group(),
            watch_for_stalls((self._event_watch, self._product_watch), self._waiting),
        )

    def _fail(self, error: BaseException) -> None:
        """Stops the process in order, and at the latest after STOP_SECONDS: a worker that is half dead is worse."""
        self.failure = error
        logger.critical("event=worker_failed error=%s reason=%r", type(error).__name__, str(error), exc_info=error)
        threading.Thread(target=_exit_later, args=(error,), daemon=True).start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_assignment(self, assigned: frozenset[TopicPartition]) -> None:
        by_product = self._settings.topics.products
        self._assigned = assigned
        self._partitions = frozenset(partition for topic, partition in assigned if topic != by_product)
        self._keeper.profiles.forget()
        self._continuity.assigned()
        logger.info("event=assigned partitions=%s", sorted(self._partitions))

    def _hindered(self, retry: Retry) -> None:
        log_retry(retry)
        for watch in (self._event_watch, self._product_watch):
            if watch.at_work:
                watch.hindered(f"{retry.doing} in {retry.collection}: {retry.reason}")

    def _waiting(self) -> dict[TopicPartition, Waiting]:
        """Events in this worker's partitions that aren't acknowledged."""
        topics = {name: self._opened.topics[name] for name, _ in self._assigned}
        found = positions(self._settings.kafka, self._admin, self._group, topics)
        return waiting(self._settings.kafka, self._group, {at: found[at] for at in self._assigned if at in found})

    def _record(self, event: EventT[bytes]) -> Record:
        message = event.message
        topic = self._opened.topics[message.topic]
        self._continuity.note(message.topic, message.partition, message.offset)
        return Record(
            topic=message.topic,
            topic_id=topic.id,
            partition=message.partition,
            offset=message.offset,
            timestamp=round(message.timestamp * 1000),
            key=message.key,
            value=message.value,
        )

    async def _sweep(self) -> None:
        """Does what was put off; while events come in, it leaves them four fifths of the time."""
        interval = self._settings.worker.sweep_interval.seconds
        while True:
            done = await self._keeper.sweep(
                self._partitions, busy=lambda: self._event_pipeline.busy or len(self._events) > 0
            )
            if done < SWEPT_AT_ONCE:
                await asyncio.sleep(interval)

    async def _keep_shared(self) -> None:
        """Follows the mean that whichever worker has the products keeps, and the statistics across users."""
        while True:
            await asyncio.sleep(5 * self._settings.worker.sweep_interval.seconds)
            await self._keeper.read_shared()

    async def _watch_group(self) -> None:
        """Until this worker has partitions: a replay that came first by a moment leaves Faust hanging, silently."""
        while not self._assigned:
            await asyncio.sleep(_GROUP_CHECK_SECONDS)
            try:
                others = await asyncio.to_thread(self._members_of_another_kind)
            except (KafkaException, KafkaUnreachable):
                continue
            if others and not self._assigned:
                raise WorkerFailed(
                    f"{others} members of another kind, as a replay has, came into the group {self._group} first: "
                    "start again when they have left"
                )

    async def _watch_generation(self) -> None:
        """Goes over to the generation that readers are led to: this process stops in order, and starts anew in it."""
        mine = self._opened.generation.name
        while True:
            await asyncio.sleep(_GENERATION_CHECK_SECONDS)
            if self._settings.generation:  # it was told which one
                continue
            served = await served_generation(self._client)
            if served not in (None, mine):
                logger.info("event=generation_replaced generation=%s successor=%s", mine, served)
                self.successor = served
                os.kill(os.getpid(), signal.SIGTERM)
                return

    async def _watch_topics(self) -> None:
        """Faust silently drops a topic that was deleted and made anew: this notices, and stops the worker by name."""
        while True:
            await asyncio.sleep(TOPIC_CHECK_SECONDS)
            await self._continuity.check()


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # Faust's consumer has a loop of its own, in a thread
    return asyncio.new_event_loop()


def _exit_later(error: BaseException) -> None:
    time.sleep(STOP_SECONDS)
    sys.stderr.write(f"afterglow worker: {error}\n")
    os._exit(1)
