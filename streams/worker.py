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
import numpy as np
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.types import EventT

from encoders.client import EncoderClient, EncoderError
from sinks.catalogue import Catalogue
from sinks.collections import (
    Generation,
    Mean,
    Model,
    RefusedGeneration,
    Replication,
    open_generation,
    products_collection,
    profiles_collection,
    read_mean,
    write_mean,
)
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.ledgers import StateError
from sinks.products import ProductStore
from sinks.profiles import ProfileStore
from sinks.retry import PermanentSinkError
from sinks.snapshot import RecentSnapshot
from sinks.writes import new_version
from streams.app import create_app
from streams.dead_letters import DeadLetter
from streams.kafka import KafkaUnreachable, connect_admin
from streams.metrics import serve_metrics
from streams.pipeline import Intake, Pipeline
from streams.producer import DeliveryFailed, EventProducer
from streams.products import GROWTH, CatalogueUpdater, ProductBatch, catalogue_mean
from streams.records import Record
from streams.rules import derivation_rules, fold_rules, ranking_rules, recorded_fold, refresh_rules, weights
from streams.secret import NoSecret, read_secret
from streams.settings import Settings
from streams.topics import MisconfiguredTopics, describe, ensure_topics
from streams.updater import Batch, Updater

logger = logging.getLogger("afterglow.worker")

STOP_SECONDS: Final = 15.0
"""How long a failed worker may take to leave the group in order; then it exits all the same."""

TOPIC_CHECK_SECONDS: Final = 1.0
_SWEPT_AT_ONCE: Final = 512
_REFRESHED_AT_ONCE: Final = 16  # candidates take milliseconds a user, and events wait meanwhile
_WORTH_A_SNAPSHOT: Final = 64  # users whose candidates are due


class WorkerFailed(RuntimeError):
    """The worker can't go on; the text says why and what to do."""


class TopicChanged(WorkerFailed):
    """A topic was deleted, made anew, or given more partitions under a running worker."""


def run_worker(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT. Raises WorkerFailed, from its cause."""
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


_CURED_BY_A_PERSON: Final = (
    EncoderError,
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
        self._events: Intake[EventT[bytes]] = Intake(settings.worker.buffer_events)
        self._products: Intake[EventT[bytes]] = Intake(settings.worker.buffer_events)
        self._producer: EventProducer | None = None
        self.failure: BaseException | None = None

    async def open(self) -> None:
        """Connects to everything and makes sure that it fits together, before a single event is read."""
        settings = self._settings
        self._topics = await asyncio.to_thread(ensure_topics, settings)
        ids = PointIds(read_secret(settings.secret_file))
        self._encoder = EncoderClient(settings.encoder_address)
        model = await self._encoder.describe()
        qdrant = settings.qdrant
        self._client = connect(
            qdrant.address,
            api_key=qdrant.api_key.reveal() or None,
            tls=qdrant.tls,
            timeout_seconds=qdrant.timeout.seconds,
        )
        replication = Replication(qdrant.replication_factor, qdrant.shard_number)
        self._replicated = replication.replicated
        generation = Generation(
            name=settings.generation,
            model=Model(model.name, model.identity, model.dimension),
            secret_fingerprint=ids.fingerprint,
            fold=recorded_fold(settings),
            created_at_ms=_now_ms(),
        )
        await open_generation(self._client, generation, replication=replication)
        self._assemble(ids)
        self._mean: Mean | None = None
        self._updater.mean = np.zeros(model.dimension, np.float32)
        await self._read_mean()
        if port := settings.worker.metrics_port:
            try:
                serve_metrics(port, self._updater.figures, lambda: len(self._events) + len(self._products))
            except OSError as error:
                raise WorkerFailed(
                    f"figures can't be served on port {port} ({error.strerror}): give each worker of a host a "
                    "worker.metrics_port of its own, or 0 for none"
                ) from error

    def _assemble(self, ids: PointIds) -> None:
        settings, name = self._settings, self._settings.generation
        self._profiles = ProfileStore(
            self._client,
            profiles_collection(name),
            cached_bytes=settings.worker.profile_cache,
            replicated=self._replicated,
        )
        catalogue = Catalogue(
            self._client,
            products_collection(name),
            ids,
            cached=settings.worker.cached_products,
            replicated=self._replicated,
        )
        self._snapshots = RecentSnapshot(self._client, products_collection(name))
        self._product_store = ProductStore(self._client, catalogue, ids, replicated=self._replicated)
        self._updater = Updater(
            searches_topic=settings.topics.searches,
            profiles=self._profiles,
            catalogue=catalogue,
            products=self._product_store,
            encoder=self._encoder,
            ids=ids,
            rules=fold_rules(settings),
            weights=weights(settings),
            derivation=derivation_rules(settings),
            ranking=ranking_rules(settings),
            refresh=refresh_rules(settings),
            chunk_users=settings.worker.chunk_users,
            writes_in_flight=settings.worker.writes_in_flight,
            clock=_now_ms,
        )
        self._catalogue_updater = CatalogueUpdater(
            products=self._product_store,
            profiles=self._profiles,
            encoder=self._encoder,
            settle=self._updater.settle,
        )
        batch_events, linger = settings.worker.batch_events, settings.worker.linger.seconds
        self._event_pipeline: Pipeline[EventT[bytes], Batch] = Pipeline(
            self._events,
            prepare=lambda events: self._updater.prepare([self._record(event) for event in events]),
            apply=self._apply_events,
            acknowledge=_acknowledge,
            batch_events=batch_events,
            linger_seconds=linger,
        )
        self._product_pipeline: Pipeline[EventT[bytes], ProductBatch] = Pipeline(
            self._products,
            prepare=lambda events: self._catalogue_updater.prepare([self._record(event) for event in events]),
            apply=self._apply_products,
            acknowledge=_acknowledge,
            batch_events=batch_events,
            linger_seconds=linger,
        )
        self.app = create_app(settings, events=self._events, products=self._products, on_assignment=self._on_assignment)
        self.app.task()(self._run)

    async def _run(self) -> None:
        """Everything this worker does beside reading: until it is cancelled (SIGTERM) or something fails for good."""
        logger.info("event=worker_running generation=%s", self._settings.generation)
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
        )

    def _fail(self, error: BaseException) -> None:
        """Stops the process in order, and at the latest after STOP_SECONDS: a worker that is half dead is worse."""
        self.failure = error
        logger.critical("event=worker_failed error=%s reason=%r", type(error).__name__, str(error), exc_info=error)
        threading.Thread(target=_exit_later, args=(error,), daemon=True).start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_assignment(self, partitions: frozenset[int]) -> None:
        self._partitions = partitions
        self._profiles.forget()
        logger.info("event=assigned partitions=%s", sorted(partitions))

    def _record(self, event: EventT[bytes]) -> Record:
        message = event.message
        topic = self._topics[message.topic]
        return Record(
            topic=message.topic,
            topic_id=topic.id,
            partition=message.partition,
            offset=message.offset,
            timestamp=round(message.timestamp * 1000),
            key=message.key,
            value=message.value,
        )

    async def _apply_events(self, batch: Batch) -> None:
        await self._updater.apply(batch)
        await self._bury(batch.dead)

    async def _apply_products(self, batch: ProductBatch) -> None:
        await self._bury(batch.dead)
        await self._catalogue_updater.apply(batch)
        await self._renew_mean()

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Sends what could not be understood to the dead-letter topic, before its offset may be committed."""
        if letters:
            await asyncio.to_thread(self._send_letters, letters)

    def _send_letters(self, letters: Sequence[DeadLetter]) -> None:
        if self._producer is None:
            self._producer = EventProducer(self._settings)
        while True:
            for letter in letters:
                self._producer.send(self._settings.topics.dead_letters, letter.key, letter.value, letter.headers())
            try:
                self._producer.flush()
            except DeliveryFailed as failure:
                logger.warning("event=dead_letters_not_delivered reason=%r retrying=yes", str(failure))
            else:
                return

    async def _sweep(self) -> None:
        """Does what was put off, a few users at a time; while events come in, it leaves them half of the time."""
        interval = self._settings.worker.sweep_interval.seconds
        while True:
            ids = await self._profiles.due(self._partitions, _now_ms(), _SWEPT_AT_ONCE) if self._partitions else []
            snapshot = await self._snapshots.get() if len(ids) >= _WORTH_A_SNAPSHOT else None
            for start in range(0, len(ids), _REFRESHED_AT_ONCE):
                began = time.monotonic()
                await self._updater.refresh(ids[start : start + _REFRESHED_AT_ONCE], snapshot)
                if self._event_pipeline.busy:
                    await asyncio.sleep(time.monotonic() - began)
            if len(ids) < _SWEPT_AT_ONCE:
                await asyncio.sleep(interval)

    async def _keep_mean(self) -> None:
        """Follows the mean that whichever worker has the products keeps."""
        while True:
            await asyncio.sleep(5 * self._settings.worker.sweep_interval.seconds)
            await self._read_mean()

    async def _read_mean(self) -> None:
        mean = await read_mean(self._client, self._settings.generation, replicated=self._replicated)
        if mean is not None:
            self._mean = mean
            self._updater.mean = mean.vector.astype(np.float32)

    async def _renew_mean(self) -> None:
        """Takes μ anew when the catalogue has grown enough. Of two workers that do, one wins; both are right."""
        count = await self._product_store.count()
        if self._mean is not None and count < GROWTH * self._mean.n:
            return
        vector, count = await catalogue_mean(self._product_store, len(self._updater.mean))
        mean = Mean(new_version(), count, vector)
        replaces = None if self._mean is None else self._mean.version
        await write_mean(self._client, self._settings.generation, mean, replaces=replaces, replicated=self._replicated)
        await self._read_mean()

    async def _watch_topics(self) -> None:
        """Faust silently drops a topic that was deleted and made anew: this notices, and stops the worker by name."""
        while True:
            await asyncio.sleep(TOPIC_CHECK_SECONDS)
            try:
                found = await asyncio.to_thread(describe, self._admin, list(self._topics))
            except KafkaException:  # away for now: Faust and the pipelines wait as well
                continue
            for name, topic in self._topics.items():
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
