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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from sinks.collections import Built, read_generation
from sinks.generations import change_generation, serve, served_generation
from streams.batches import Batch
from streams.continuity import Continuity
from streams.generations import group_of
from streams.groups import LIVE, GroupInUse, members_of, set_offsets
from streams.kafka import answered, connect_admin
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.opening import Opened
from streams.pipeline import Pipeline, first_failure
from streams.products import ProductBatch
from streams.profile_writes import UNDERIVED
from streams.settings import Settings
from streams.topics import CommittedOffsets, TopicPartition, end_offsets
from streams.windows import Window, WindowReader

logger = logging.getLogger("afterglow.replay")

NEAR_RECORDS: Final = 1000
"""With so little left to read the generation may take over: live workers are that far behind at times."""

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


class Replay:
    """One process of a replay into an opened generation that readers don't see.

    At most three windows are in memory: one being read, one ready, one being applied.
    """

    def __init__(
        self,
        settings: Settings,
        opened: Opened,
        client: AsyncQdrantClient,
        *,
        activate: bool = True,
        instead_of: str | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """`activate`: whether readers are led to the generation when it is complete; with `instead_of` only from that
        one, and not where somebody has led them elsewhere meanwhile."""
        self._settings = settings
        self._opened = opened
        self._client = client
        self._activate = activate
        self._instead_of = instead_of
        self._report = report
        self._name = opened.generation.name
        self._group = group_of(self._name)
        self._admin: AdminClient = connect_admin(settings.kafka)
        sources = opened.generation.sources
        self._products_topic = sources["products"].topic
        self._topics = {source.topic: opened.topics[source.topic] for source in sources.values()}
        self._start = {
            (source.topic, partition): offset
            for source in sources.values()
            for partition, offset in enumerate(source.start)
        }
        self._partitions: frozenset[int] = frozenset()  # of searches and purchases, this process's
        self._stopping = False
        self._continuity = Continuity(settings.kafka, self._admin, self._group, self._topics, self._start)
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

        Raises ReplayFailed, Discontinuity, PermanentSinkError, StateError, EncoderError and KafkaUnreachable.
        """
        began = time.monotonic()
        await self._keeper.start()
        self._keeper.derive(at_once=False)
        self._offsets = CommittedOffsets(self._settings.kafka, self._group)
        try:
            await asyncio.to_thread(self._begin_at_the_start)
            await asyncio.to_thread(self._make_way_for_live_workers)
            seconds_folding, behind = await self._read_and_direct()
        finally:
            self._offsets.close()
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

    async def _read_and_direct(self) -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        self._reader = WindowReader(
            self._settings.kafka,
            self._group,
            self._topics,
            first=self._products_topic,
            on_assignment=lambda partitions: loop.call_soon_threadsafe(self._assigned, partitions),
        )
        pipeline: Pipeline[Window, tuple[Batch, ProductBatch]] = Pipeline(
            self._take, prepare=self._prepare, apply=self._apply, acknowledge=self._acknowledge, at_once=2
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipeline.run())
                directing = tasks.create_task(self._direct(pipeline))
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            self._stopping = True
            await asyncio.to_thread(self._reader.close)
        return directing.result()

    async def _direct(self, pipeline: Pipeline[Window, tuple[Batch, ProductBatch]]) -> tuple[float, int]:
        """Steps 2 to 6. Returns how long step 3 took, in seconds, and how many records are left."""
        products = {self._products_topic}
        there = await self._ends(products)
        while (left := await self._left(there)) and not await self._taken_over():
            self._tell(Stage.PRODUCTS, there, left)
            await asyncio.sleep(_POLL_SECONDS)
        self._reader.read_all()
        began = time.monotonic()
        # However few they are: what is there already is folded in before anybody sees the generation.
        there = await self._ends(self._topics)
        while not await self._taken_over():
            left = await self._left(there)
            if left == 0 and await self._left(await self._ends(self._topics)) <= NEAR_RECORDS:
                break
            self._tell(Stage.EVENTS, there, left)
            await asyncio.sleep(_POLL_SECONDS)
        self._keeper.derive(at_once=True)
        seconds, moment = time.monotonic() - began, time.time_ns() // 1_000_000
        of = await self._keeper.profiles.count_due(moment)
        while (due := await self._count_due(moment)) and not await self._taken_over():
            self._report(Progress(Stage.CANDIDATES, max(of - due, 0), of))
            if await self._keeper.sweep(self._partitions, busy=lambda: pipeline.busy) < SWEPT_AT_ONCE:
                await asyncio.sleep(_POLL_SECONDS)  # what is left is another process's
        left = await self._left(await self._ends(self._topics))
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
        if self._activate and self._instead_of in (None, await served_generation(self._client)):
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

    def _make_way_for_live_workers(self) -> None:
        """Live workers in the group keep the generation up to date, and leave no room for a replay."""
        members = answered(lambda: members_of(self._admin, self._group), self._settings.kafka)
        if members.assignor == LIVE:
            raise ReplayFailed(
                f"{members.number} live workers are in the group {self._group}: they keep generation {self._name!r} up "
                "to date already. Replay into another one (--generation NAME), or stop them first"
            )

    def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._partitions = frozenset(partition for topic, partition in partitions if topic != self._products_topic)
        self._continuity.assigned()
        self._keeper.profiles.forget()

    async def _take(self) -> Sequence[Window]:
        while not self._stopping:
            window = await asyncio.to_thread(self._reader.read)
            if window is not None:
                return [window]
        return []

    async def _prepare(self, windows: Sequence[Window]) -> tuple[Batch, ProductBatch]:
        ((records, _),) = windows
        for record in records:
            self._continuity.note(record.topic, record.partition, record.offset)
        # The topics are asked for after the window was read, and answer before it is applied.
        products, events, _ = await asyncio.gather(
            self._keeper.prepare_products([record for record in records if record.topic == self._products_topic]),
            self._keeper.prepare_events([record for record in records if record.topic != self._products_topic]),
            self._continuity.check(),
        )
        return events, products

    async def _apply(self, ready: tuple[Batch, ProductBatch]) -> None:
        events, products = ready
        if products.products or products.dead:
            await self._keeper.apply_products(products)
        await self._keeper.apply_events(events)

    async def _acknowledge(self, windows: Sequence[Window]) -> None:
        for window in windows:
            self._reader.applied(window)

    def _committed(self) -> dict[TopicPartition, int]:
        return answered(lambda: self._offsets.of(self._topics), self._settings.kafka)

    async def _count_due(self, moment: int) -> int:
        """Profiles of which something is to be derived: put off until then, or, since, everything."""
        return await self._keeper.profiles.count_due(moment) or await self._keeper.profiles.count_due(UNDERIVED)

    async def _ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """Where these topics end now."""
        read = {name: self._topics[name] for name in topics}
        return await asyncio.to_thread(partial(answered, lambda: end_offsets(self._admin, read), self._settings.kafka))

    async def _left(self, until: Mapping[TopicPartition, int]) -> int:
        """Records before these offsets that the group, all of its processes together, has not folded in."""
        committed = await asyncio.to_thread(self._committed)
        return sum(max(0, end - committed.get(at, self._start[at])) for at, end in until.items())

    def _tell(self, stage: Stage, until: Mapping[TopicPartition, int], left: int) -> None:
        of = sum(max(0, end - self._start[at]) for at, end in until.items())
        self._report(Progress(stage, of - left, of))
