"""Replays the topics into a generation of its own, beside the live one, and lets it take over.

A replay is a consumer of the new generation's group. It takes the same steps as a live worker (`streams.keeper`), in
large windows, and commits as it goes: killed, it goes on where it was. Any number of replays share the partitions.

    1. The generation is recorded, with the offsets that it begins at; the group's offsets are set to them.
    2. Products are read first, so that what is bought is known when it is folded in.
    3. Searches and purchases are folded in, window by window, until hardly anything is left to read.
    4. What readers see, put off until now, is derived.
    5. When nothing from before that moment is left to do, in any partition, readers are led to the generation.
    6. What is read is applied and committed, and the group left: live workers, who follow the readers, go on there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from sinks.collections import Built, read_generation
from sinks.generations import change_generation, serve, served_generation
from streams.continuity import Continuity
from streams.generations import group_of
from streams.groups import LIVE, REPLAY, GroupInUse, members_of, set_offsets
from streams.kafka import answered, client_config, connect_admin
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.opening import Opened
from streams.pipeline import Pipeline
from streams.products import ProductBatch
from streams.records import Record
from streams.settings import Settings
from streams.topics import TopicPartition, committed_offsets, end_offsets
from streams.updater import UNDERIVED, Batch

logger = logging.getLogger("afterglow.replay")

WINDOW_RECORDS: Final = 50_000
WINDOW_BYTES: Final = 32 * 2**20
"""Of values. Three windows are in memory at most: one being read, one ready, one being applied."""

NEAR_RECORDS: Final = 1000
"""With so little left to read the generation may take over: live workers are that far behind at times."""

_CONSUMED_AT_ONCE: Final = 5000
_POLL_SECONDS: Final = 0.25
_JOIN_SECONDS: Final = 60.0


class ReplayFailed(RuntimeError):
    """The replay can't go on; the text says why and what to do. Nothing is lost: it can be started again."""


class Stage(StrEnum):
    PRODUCTS = "reading products"
    EVENTS = "folding in events"
    CANDIDATES = "recommending"
    DONE = "done"


class Progress(msgspec.Struct, frozen=True):
    """How far the whole replay is, all of its processes together: records, and then profiles."""

    stage: Stage
    done: int
    of: int


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `events` and `profiles_written` are of this process, since it started."""

    generation: str
    served: bool
    events: int
    dead_letters: int
    profiles_written: int
    seconds: float
    seconds_folding: float  # of searches and purchases
    behind: int  # records that came in meanwhile, left to live workers


class _Window(NamedTuple):
    """Records of any topics, each partition's in their order, and where each partition goes on after them."""

    events: list[Record]
    products: list[Record]
    next_offsets: dict[TopicPartition, int]


class Replay:
    """One process of a replay into an opened generation that readers don't see."""

    def __init__(
        self,
        settings: Settings,
        opened: Opened,
        client: AsyncQdrantClient,
        *,
        activate: bool = True,
        window_records: int = WINDOW_RECORDS,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """`activate`: whether readers are led to the generation when it is complete."""
        self._settings = settings
        self._opened = opened
        self._client = client
        self._activate = activate
        self._window_records = window_records
        self._report = report
        self._name = opened.generation.name
        self._group = group_of(self._name)
        self._admin: AdminClient = connect_admin(settings.kafka)
        sources = opened.generation.sources
        self._products_topic = sources["products"].topic
        self._read = {source.topic: opened.topics[source.topic] for source in sources.values()}
        self._start = {
            (source.topic, partition): offset
            for source in sources.values()
            for partition, offset in enumerate(source.start)
        }
        self._partitions: frozenset[int] = frozenset()  # of searches and purchases, this process's
        self._mine: frozenset[TopicPartition] = frozenset()
        self._catalogue_read = False
        self._continuity = Continuity(settings.kafka, self._admin, self._group, self._read)
        self._waiting: list[KafkaPartition] = []  # to be read once the catalogue is
        self._applied: dict[TopicPartition, int] = {}  # to be committed
        self._applied_lock = threading.Lock()
        self._handed_over: dict[TopicPartition, int] = {}
        self._stopping = False
        self._totals: dict[Stage, int] = {}
        self._keeper = Keeper(
            # However few the users of a window: candidates come when all is folded in.
            msgspec.structs.replace(
                opened.settings, worker=msgspec.structs.replace(opened.settings.worker, inline_users=0)
            ),
            opened.generation,
            client=client,
            encoder=opened.encoder,
            ids=opened.ids,
        )

    async def run(self) -> Replayed:
        """Returns when the generation is complete, by this or another process.

        Raises ReplayFailed, PermanentSinkError, StateError, EncoderError and KafkaUnreachable.
        """
        began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        await self._keeper.start()
        self._keeper.derive(at_once=False)
        await asyncio.to_thread(self._begin_at_the_start)
        self._consumer = await asyncio.to_thread(self._joined)
        pipeline: Pipeline[_Window, tuple[Batch, ProductBatch]] = Pipeline(
            self._take, prepare=self._prepare, apply=self._apply, acknowledge=self._acknowledge
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipeline.run())
                directing = tasks.create_task(self._direct(pipeline))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            self._stopping = True
            await asyncio.to_thread(self._leave)
        seconds_folding, behind = directing.result()
        figures = self._keeper.figures
        return Replayed(
            generation=self._name,
            served=await served_generation(self._client) == self._name,
            events=figures.events,
            dead_letters=figures.dead_letters,
            profiles_written=figures.profiles_written,
            seconds=time.monotonic() - began,
            seconds_folding=seconds_folding,
            behind=behind,
        )

    async def _direct(self, pipeline: Pipeline[_Window, tuple[Batch, ProductBatch]]) -> tuple[float, int]:
        """Steps 2 to 6. Returns how long step 3 took, in seconds, and how many records are left."""
        products = frozenset({self._products_topic})
        there = await self._ends(products)
        while (left := await self._left(products, until=there)) and not await self._taken_over():
            self._tell(Stage.PRODUCTS, products, left)
            await asyncio.sleep(_POLL_SECONDS)
        self._catalogue_read, began = True, time.monotonic()
        everything = frozenset(self._read)
        # However few they are: what is there already is folded in before anybody sees the generation.
        there = await self._ends(everything)
        while (
            await self._left(everything, until=there) or await self._left(everything) > NEAR_RECORDS
        ) and not await self._taken_over():
            self._tell(Stage.EVENTS, everything, await self._left(everything))
            await asyncio.sleep(_POLL_SECONDS)
        self._keeper.derive(at_once=True)
        seconds, moment = time.monotonic() - began, time.time_ns() // 1_000_000
        of = await self._keeper.profiles.count_due(moment)
        while (
            due := await self._keeper.profiles.count_due(moment) or await self._keeper.profiles.count_due(UNDERIVED)
        ) and not await self._taken_over():
            self._report(Progress(Stage.CANDIDATES, max(of - due, 0), of))
            if await self._keeper.sweep(self._partitions, busy=lambda: pipeline.busy) < SWEPT_AT_ONCE:
                await asyncio.sleep(_POLL_SECONDS)  # what is left is another process's
        left = await self._left(everything)
        if not await self._taken_over():
            await self._take_over()
        self._stopping = True
        self._report(Progress(Stage.DONE, of, of))
        return seconds, left

    async def _taken_over(self) -> bool:
        """Whether another process has completed the generation."""
        now = await read_generation(self._client, self._name)
        if now is None:
            raise ReplayFailed(f"generation {self._name!r} was dropped")
        return now.built is not None and now.built != self._opened.generation.built

    async def _take_over(self) -> None:
        """Step 5. The record first: readers are never led to a generation that is called unfinished."""
        committed = await asyncio.to_thread(self._committed)
        built = Built(
            time.time_ns() // 1_000_000,
            {
                role: [committed.get((source.topic, partition), start) for partition, start in enumerate(source.start)]
                for role, source in self._opened.generation.sources.items()
            },
        )
        await change_generation(
            self._client,
            self._name,
            lambda generation: msgspec.structs.replace(generation, built=built),
            replicated=self._settings.qdrant.replication_factor > 1,
        )
        if self._activate:
            await serve(self._client, self._name)
            logger.info("event=generation_served generation=%s", self._name)

    def _begin_at_the_start(self) -> None:
        """Step 1: every partition has a committed offset before anybody reads, so that none begins elsewhere."""
        deadline = time.monotonic() + _JOIN_SECONDS
        while missing := self._start.keys() - self._committed().keys():
            try:
                set_offsets(self._settings.kafka, self._group, {at: self._start[at] for at in missing})
            except GroupInUse:  # another process of this replay was faster
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def _joined(self) -> Consumer:
        """A consumer of the group. Live workers in it, who keep the generation up to date, leave no room for one."""
        members = answered(lambda: members_of(self._admin, self._group), self._settings.kafka)
        if members.assignor == LIVE:
            raise ReplayFailed(
                f"{members.number} live workers are in the group {self._group}: they keep generation {self._name!r} up "
                "to date already. Replay into another one (--generation NAME), or stop them first"
            )
        consumer = Consumer(
            {
                **client_config(self._settings.kafka),
                "client.id": "afterglow-replay",
                "group.id": self._group,
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
        consumer.subscribe(list(self._read), on_assign=self._assigned, on_revoke=self._revoked)
        return consumer

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        consumer.assign(partitions)
        self._loop.call_soon_threadsafe(self._continuity.assigned)
        self._loop.call_soon_threadsafe(self._keeper.profiles.forget)
        self._mine = frozenset((at.topic, at.partition) for at in partitions)
        self._partitions = frozenset(partition for topic, partition in self._mine if topic != self._products_topic)
        if not self._catalogue_read:
            self._waiting = [at for at in partitions if at.topic != self._products_topic]
            consumer.pause(self._waiting)

    def _revoked(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._commit(asynchronous=False)
        self._mine = frozenset()
        self._partitions = frozenset()

    async def _take(self) -> Sequence[_Window]:
        window = await asyncio.to_thread(self._read_window)
        return [window] if window is not None else []

    def _read_window(self) -> _Window | None:
        """The next records, at least one; None when the replay ends."""
        window = _Window([], [], {})
        count = size = 0
        while count < self._window_records and size < WINDOW_BYTES and not self._stopping:
            if self._catalogue_read and self._waiting:
                self._consumer.resume(self._waiting)
                self._waiting = []
            self._commit(asynchronous=True)
            more = self._consumer.consume(min(_CONSUMED_AT_ONCE, self._window_records - count), timeout=0.1)
            if not more and window.next_offsets:
                break
            for message in more:
                at, offset = (message.topic(), message.partition()), message.offset()
                if (error := message.error()) is not None:
                    self._check(error, message)
                    if error.code() == KafkaError._PARTITION_EOF and self._handed_over.get(at) != offset:
                        window.next_offsets[at] = offset
                    continue
                self._add(window, message)
                window.next_offsets[at] = offset + 1
                count += 1
                size += len(message)
        self._handed_over |= window.next_offsets
        return window if window.next_offsets else None

    def _check(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise ReplayFailed(
                f"{message.topic()} {message.partition()}: records that were not read yet are gone (retention): "
                f"{error.str()}. Generation {self._name!r} can't be completed: replay into another one, which begins "
                "at what the topics still have"
            )
        if error.fatal():
            raise KafkaException(error)

    def _add(self, window: _Window, message: Message) -> None:
        topic = message.topic()
        record = Record(
            topic,
            self._read[topic].id,
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            message.key(),
            message.value(),
        )
        (window.products if topic == self._products_topic else window.events).append(record)

    async def _prepare(self, windows: Sequence[_Window]) -> tuple[Batch, ProductBatch]:
        (window,) = windows
        for record in (*window.products, *window.events):
            self._continuity.note(record.topic, record.partition, record.offset)
        # The topics are asked for after the window was read, and answer before it is applied.
        products, events, _ = await asyncio.gather(
            self._keeper.prepare_products(window.products),
            self._keeper.prepare_events(window.events),
            self._continuity.check(),
        )
        return events, products

    async def _apply(self, ready: tuple[Batch, ProductBatch]) -> None:
        events, products = ready
        if products.products or products.dead:
            await self._keeper.apply_products(products)
        await self._keeper.apply_events(events)

    async def _acknowledge(self, windows: Sequence[_Window]) -> None:
        (window,) = windows
        with self._applied_lock:
            self._applied |= window.next_offsets

    def _commit(self, *, asynchronous: bool) -> None:
        """What was applied. A commit that fails costs a second reading; what was folded in stays so.

        To be called where nobody consumes: beside a `consume` of another thread it hangs (confluent-kafka 2.16).
        """
        with self._applied_lock:
            applied, self._applied = self._applied, {}
        mine = [KafkaPartition(*at, offset) for at, offset in applied.items() if at in self._mine]
        if mine:
            try:
                self._consumer.commit(offsets=mine, asynchronous=asynchronous)
            except KafkaException as error:
                logger.warning("event=not_committed group=%s reason=%r", self._group, error.args[0].str())

    def _leave(self) -> None:
        self._commit(asynchronous=False)
        self._consumer.close()

    def _committed(self) -> dict[TopicPartition, int]:
        return answered(lambda: committed_offsets(self._settings.kafka, self._group, self._read), self._settings.kafka)

    async def _ends(self, topics: frozenset[str]) -> dict[TopicPartition, int]:
        """Where these topics end now."""
        read = {name: topic for name, topic in self._read.items() if name in topics}
        ask = partial(answered, lambda: end_offsets(self._admin, read), self._settings.kafka)
        return await asyncio.to_thread(ask)

    async def _left(self, topics: frozenset[str], until: Mapping[TopicPartition, int] | None = None) -> int:
        """Records of these topics that the group has not folded in; of those before `until`."""
        ends = until if until is not None else await self._ends(topics)
        committed = await asyncio.to_thread(self._committed)
        return sum(max(0, end - committed.get(at, self._start[at])) for at, end in ends.items())

    def _tell(self, stage: Stage, topics: frozenset[str], left: int) -> None:
        """Of all records of the topics at first sight, those folded in by an earlier run among them."""
        if stage not in self._totals:
            committed = self._committed()
            self._totals[stage] = left + sum(
                committed.get(at, start) - start for at, start in self._start.items() if at[0] in topics
            )
        self._report(Progress(stage, max(self._totals[stage] - left, 0), self._totals[stage]))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
