"""One Faust worker as a process: opens everything, runs the pipelines, and exits 1, loudly, when it can't go on.

A failure that no retry can cure is never swallowed: the worker stops with nothing of the failed batch acknowledged,
and whoever takes over its partitions reads that batch again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import faust
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.types import EventT

from encoders.client import EncoderError
from sinks.collections import RefusedGeneration
from sinks.generations import served_generation
from sinks.ledgers import StateError
from sinks.retry import PermanentSinkError
from streams.app import create_app
from streams.generations import connected, group_of
from streams.groups import LIVE, GroupInUse, members_of
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.metrics import serve_metrics
from streams.opening import open_for_writing
from streams.pipeline import Intake, Pipeline
from streams.products import ProductBatch
from streams.records import Record
from streams.restart import start_again
from streams.secret import NoSecret
from streams.settings import Settings
from streams.topics import MisconfiguredTopics, describe
from streams.updater import Batch

logger = logging.getLogger("afterglow.worker")

STOP_SECONDS: Final = 15.0
"""How long a failed worker may take to leave the group in order; then it exits all the same."""

TOPIC_CHECK_SECONDS: Final = 1.0
_GENERATION_CHECK_SECONDS: Final = 1.0
_GROUP_CHECK_SECONDS: Final = 0.5
_SAY_EVERY_SECONDS: Final = 10.0


class WorkerFailed(RuntimeError):
    """The worker can't go on; the text says why and what to do."""


class TopicChanged(WorkerFailed):
    """A topic was deleted, made anew, or given more partitions under a running worker."""


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
    with contextlib.suppress(SystemExit), Path(os.devnull).open("w") as nowhere:
        faust.Worker(
            worker.app, loop=loop, quiet=True, stdout=nowhere, override_logging=False, redirect_stdouts=False
        ).execute_from_commandline()
    if worker.failure is not None:
        raise WorkerFailed(str(worker.failure)) from worker.failure
    if worker.successor is not None:
        start_again()  # Faust can't be started twice in one process


_CURED_BY_A_PERSON: Final = (
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
        self._assigned = False
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
        self._keeper = Keeper(
            opened.settings, opened.generation, client=self._client, encoder=opened.encoder, ids=opened.ids
        )
        await self._keeper.start()
        if port := settings.worker.metrics_port:
            try:
                serve_metrics(port, self._keeper.figures, lambda: len(self._events) + len(self._products))
            except OSError as error:
                raise WorkerFailed(
                    f"figures can't be served on port {port} ({error.strerror}): give each worker of a host a "
                    "worker.metrics_port of its own, or 0 for none"
                ) from error
        self._assemble(opened.generation.name)
        await self._wait_for_group()

    def _assemble(self, generation: str) -> None:
        settings, keeper = self._settings, self._keeper
        batch_events, linger = settings.worker.batch_events, settings.worker.linger.seconds
        self._event_pipeline: Pipeline[EventT[bytes], Batch] = Pipeline(
            lambda: self._events.take(batch_events, linger),
            prepare=lambda events: keeper.prepare_events([self._record(event) for event in events]),
            apply=keeper.apply_events,
            acknowledge=_acknowledge,
        )
        self._product_pipeline: Pipeline[EventT[bytes], ProductBatch] = Pipeline(
            lambda: self._products.take(batch_events, linger),
            prepare=lambda events: keeper.prepare_products([self._record(event) for event in events]),
            apply=keeper.apply_products,
            acknowledge=_acknowledge,
        )
        self._group = group_of(generation)
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
        logger.info("event=worker_running generation=%s", self._opened.generation.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in self._work():
                    tasks.create_task(work)
        except BaseExceptionGroup as group:
            self._fail(_first(group))

    def _work(self) -> Sequence[Coroutine[Any, Any, None]]:
        return (
            self._event_pipeline.run(),
            self._product_pipeline.run(),
            self._sweep(),
            self._keep_mean(),
            self._watch_topics(),
            self._watch_generation(),
            self._watch_group(),
        )

    def _fail(self, error: BaseException) -> None:
        """Stops the process in order, and at the latest after STOP_SECONDS: a worker that is half dead is worse."""
        self.failure = error
        logger.critical("event=worker_failed error=%s reason=%r", type(error).__name__, str(error), exc_info=error)
        threading.Thread(target=_exit_later, args=(error,), daemon=True).start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_assignment(self, partitions: frozenset[int]) -> None:
        self._partitions, self._assigned = partitions, True
        self._keeper.profiles.forget()
        logger.info("event=assigned partitions=%s", sorted(partitions))

    def _record(self, event: EventT[bytes]) -> Record:
        message = event.message
        topic = self._opened.topics[message.topic]
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
        """Does what was put off; while events come in, it leaves them half of the time."""
        interval = self._settings.worker.sweep_interval.seconds
        while True:
            done = await self._keeper.sweep(
                self._partitions, busy=lambda: self._event_pipeline.busy or len(self._events) > 0
            )
            if done < SWEPT_AT_ONCE:
                await asyncio.sleep(interval)

    async def _keep_mean(self) -> None:
        """Follows the mean that whichever worker has the products keeps."""
        while True:
            await asyncio.sleep(5 * self._settings.worker.sweep_interval.seconds)
            await self._keeper.read_mean()

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
        topics = self._opened.topics
        while True:
            await asyncio.sleep(TOPIC_CHECK_SECONDS)
            try:
                found = await asyncio.to_thread(describe, self._admin, list(topics))
            except KafkaException:  # away for now: Faust and the pipelines wait as well
                continue
            for name, topic in topics.items():
                if name not in found:
                    raise TopicChanged(f"topic {name} is gone (it had id {topic.id}); start again when it is back")
                if found[name].id != topic.id:
                    raise TopicChanged(
                        f"topic {name} was made anew (id {topic.id} became {found[name].id}); "
                        "start again to read the new one from its beginning"
                    )
                if found[name].partitions != topic.partitions:
                    raise TopicChanged(
                        f"topic {name} went from {topic.partitions} to {found[name].partitions} partitions: users' "
                        "events moved; replay into a new generation"
                    )


async def _acknowledge(events: Sequence[EventT[bytes]]) -> None:
    for event in events:
        event.ack()


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _exit_later(error: BaseException) -> None:
    time.sleep(STOP_SECONDS)
    sys.stderr.write(f"afterglow worker: {error}\n")
    os._exit(1)
