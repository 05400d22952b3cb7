"""Keeps the statistics of the generation in force: reads the topics, folds, and puts the result into Qdrant.

Offsets are kept with the statistics, in one conditional write, so that a crash neither loses nor repeats anything of
what is in force. Two services at once do no harm: of two writes one wins, and whoever loses goes on from that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from sinks.catalogue import Catalogue
from sinks.collections import Generation, RefusedGeneration, products_collection, read_generation
from sinks.derivation import Vector
from sinks.generations import list_generations, served_generation
from sinks.identity import PointIds
from sinks.mean import read_mean
from sinks.statistics_store import Head, Stamped, StatisticsStore, StoredHead
from streams.generations import generation_in_force, statistics_group_of
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.settings import Settings
from streams.statistics.checkpoint import decode_fold, encode_fold
from streams.statistics.coverage import coverage_of
from streams.statistics.fold import Bounds, StatisticsFold
from streams.statistics.likeness import COMPARED, LikenessOfTexts
from streams.statistics.reader import Bought, EventReader, Related, Seen
from streams.topics import Topic, TopicPartition, describe, first_offsets

logger = logging.getLogger("afterglow.statistics")

_WAIT_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 2.0  # how often it is looked whether readers see another generation
_PAUSES: Final = 10  # as long as writing took, so many times
_MISSING_SECONDS: Final = 10.0  # how often vectors that weren't there are asked for again
_LEAST_SECONDS: Final = 1.0  # between two results while nothing more is to be read


class StatisticsService:
    """Runs until it is stopped. Waits for a Kafka or Qdrant that is away."""

    def __init__(self, settings: Settings, client: AsyncQdrantClient, ids: PointIds) -> None:
        self._settings = settings
        self._client = client
        self._ids = ids
        self._admin: AdminClient = connect_admin(settings.kafka)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """What is known by then is put in force first."""
        self._stopping.set()

    async def run(self) -> None:
        """Raises PermanentSinkError, and KafkaException where Kafka refuses for good."""
        while not self._stopping.is_set():
            generation = await self._generation()
            if generation is None:
                continue
            try:
                await self._keep(generation)
            except KafkaUnreachable as error:
                logger.warning("event=kafka_unreachable reason=%r retrying=yes", str(error))

    async def _generation(self) -> Generation | None:
        """The one in force, when a worker has made it."""
        name = await generation_in_force(self._settings, self._client)
        generation = await read_generation(self._client, name)
        if generation is None or not generation.sources:
            await self._pause(_WAIT_SECONDS)
            return None
        return generation

    async def _keep(self, generation: Generation) -> None:
        """Until readers see another generation, somebody else has written statistics, or a topic is made anew."""
        name = generation.name
        store = StatisticsStore(self._client, name, replicated=self._settings.qdrant.replication_factor > 1)
        vectors = _Vectors(self._client, generation, self._ids)
        head = await store.head()
        fold, offsets, events = await self._begin(generation, store, head, vectors)
        topics = await asyncio.to_thread(self._topics)
        reader = EventReader(
            self._settings.kafka,
            statistics_group_of(name),
            self._settings.topics,
            topics,
            await asyncio.to_thread(self._starts, topics, offsets),
            self._ids.pseudonym,
        )
        logger.info("event=statistics_running generation=%s events=%d", name, events)
        keeping = _Keeping(store, head, fold, events, reader, vectors, self._settings)
        looked_at = time.monotonic()
        try:
            while await keeping.step(stopping=self._stopping.is_set()):
                if time.monotonic() - looked_at > _LOOK_SECONDS:
                    looked_at = time.monotonic()
                    if not self._settings.generation and await served_generation(self._client) not in (None, name):
                        return
                    if await keeping.overruled() or await asyncio.to_thread(self._topics) != topics:
                        return
        finally:
            await asyncio.to_thread(reader.close)

    async def _begin(
        self, generation: Generation, store: StatisticsStore, head: StoredHead | None, vectors: _Vectors
    ) -> tuple[StatisticsFold, dict[str, dict[str, list[int]]], int]:
        """From the last checkpoint; of a generation that has none yet, from that of another one of the same topics.

        Returns the fold, the offsets that it has come to, and how many events it is made of.
        """
        settings = self._settings.statistics
        bounds = Bounds(settings.users, settings.products)
        found = None if head is None else head.head
        if found is None:
            found, store = await self._of_another(generation, store)
        data = None if found is None else await store.checkpoint(found)
        if found is not None and data is not None:
            await vectors.start()
            fold = await asyncio.to_thread(decode_fold, data, bounds)
            if fold is not None:
                await vectors.fetch(fold.product_ids)
                fold.likeness = vectors.likeness
                await asyncio.to_thread(fold.refresh)
                return fold, found.offsets, found.events
        await vectors.start()
        return StatisticsFold(vectors.likeness, bounds), {}, 0

    async def _of_another(self, generation: Generation, own: StatisticsStore) -> tuple[Head | None, StatisticsStore]:
        topics = {source.id for source in generation.sources.values()}
        best: tuple[Head | None, StatisticsStore] = (None, own)
        try:
            others = await list_generations(self._client)
        except RefusedGeneration:  # of another version: everything is read anew
            return best
        for other in others:
            store = StatisticsStore(self._client, other.name)
            stored = await store.head() if other.name != generation.name else None
            if stored is None or not stored.head.offsets.keys() <= topics:
                continue
            if best[0] is None or stored.head.events > best[0].events:
                best = (stored.head, store)
        return best

    def _topics(self) -> dict[str, Topic]:
        named = self._settings.topics
        names = (named.searches, named.purchases, named.products)
        return answered(lambda: describe(self._admin, names), self._settings.kafka)

    def _starts(
        self, topics: Mapping[str, Topic], offsets: Mapping[str, Mapping[str, list[int]]]
    ) -> dict[TopicPartition, int]:
        """Where each partition goes on: a topic made anew, and one never read, at its first record."""
        first = answered(lambda: first_offsets(self._admin, topics), self._settings.kafka)
        for name, topic in topics.items():
            for partition, offset in enumerate(offsets.get(topic.id, {}).get(name, ())):
                if (name, partition) in first:
                    first[name, partition] = max(first[name, partition], offset)
        return first

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


class _Covered(NamedTuple):
    """How many available products are in any of so many lists."""

    products: int
    lists: int


class _Keeping:
    """One generation's statistics being kept."""

    def __init__(
        self,
        store: StatisticsStore,
        head: StoredHead | None,
        fold: StatisticsFold,
        events: int,
        reader: EventReader,
        vectors: _Vectors,
        settings: Settings,
    ) -> None:
        self._store = store
        self._head = head
        self._fold = fold
        self._reader = reader
        self._vectors = vectors
        self._interval = settings.statistics.interval.seconds
        self._rules = settings.derivation
        self._covered = _Covered(0, 0)
        self._covered_of: tuple[int, int] | None = None  # the refresh that this is of
        self._events = events
        self._unwritten = head is None  # that there are none yet is worth a word: it can be waited for
        self._unsettled = False  # whether more was there to be read when they were written
        self._settled_at = time.monotonic()
        self._pause = _LEAST_SECONDS  # writing takes at most a tenth of the time, however much there is

    async def step(self, *, stopping: bool) -> bool:
        """Reads what has come, and now and then puts what is known in force. False: begin anew, or end."""
        seen = await asyncio.to_thread(lambda: list(self._reader.read()))
        if seen:
            events = [one for _, one in seen if not isinstance(one, Related)]
            await self._vectors.fetch([one.product_id for one in events])
            changed = await asyncio.to_thread(self._take, seen)
            self._events += len(events)
            self._unwritten = self._unwritten or changed
        since = time.monotonic() - self._settled_at
        idle = self._reader.caught_up and since > self._pause
        if stopping or idle or since > max(self._interval, self._pause):
            if (self._unwritten or (idle and self._unsettled)) and not await self._write():
                return False
            await self._commit()
        return not stopping

    async def overruled(self) -> bool:
        """Whether somebody else has put statistics in force, or asked for new ones."""
        stored = await self._store.head()
        return stored is not None and (self._head is None or stored.version != self._head.version)

    def _take(self, seen: list[tuple[int, Seen]]) -> bool:
        """Whether anything is other than before."""
        changed = False
        for ts, one in seen:
            if isinstance(one, Related):
                changed |= self._fold.relate(one.product_id, one.related, one.announced, one.kinds)
                continue
            changed = True
            if isinstance(one, Bought):
                self._fold.purchase(one.user, one.product_id, one.order, ts)
            else:
                self._fold.click(one.user, one.query, one.product_id, ts)
        return changed

    async def _write(self) -> bool:
        began = time.monotonic()
        settled = self._reader.caught_up
        if settled:
            self._fold.close_orders()
        statistics = await asyncio.to_thread(self._fold.statistics)
        checkpoint = await asyncio.to_thread(encode_fold, self._fold)
        if settled:
            await self._see_what_is_covered()
        describe_ = partial(_described, self._fold, self._reader.offsets, self._events, self._covered)
        head = await self._store.write(statistics, checkpoint, self._head, describe_)
        if head is None:
            logger.warning("event=statistics_replaced reason='somebody else has written them, or asked for new ones'")
            return False
        self._head, self._unwritten, self._unsettled = head, False, not settled
        self._pause = max(_LEAST_SECONDS, _PAUSES * (time.monotonic() - began))
        return True

    async def _see_what_is_covered(self) -> None:
        """Anew when similarities are: a thousand lists take a second or so."""
        fold, rules = self._fold, self._rules
        if self._covered_of != (of := (fold.refreshed_at, fold.refreshed_lines)):
            coverage = await asyncio.to_thread(
                coverage_of, fold, rules.candidates, exposure=rules.exposure, exclude_bought=rules.exclude_bought
            )
            available = await self._vectors.count_available([fold.product_ids[row] for row in coverage.rows.tolist()])
            self._covered, self._covered_of = _Covered(available, coverage.lists), of

    async def _commit(self) -> None:
        """What came since the last result changes nothing of it: whoever waits for these events needn't."""
        self._settled_at = time.monotonic()
        try:
            await asyncio.to_thread(self._reader.commit)
        except KafkaException as error:  # done again in a moment
            logger.warning("event=not_committed reason=%r", error.args[0].str())


def _described(
    fold: StatisticsFold,
    offsets: dict[str, dict[str, list[int]]],
    events: int,
    covered: _Covered,
    now: Stamped,
    before: Stamped | None,
) -> Head:
    return Head(
        now=now,
        before=before,
        made_at=time.time_ns() // 1_000_000,
        as_of=fold.now,
        offsets=offsets,
        events=events,
        users=len(fold.users),
        products=len(fold.product_ids),
        covered=covered.products,
        lists=covered.lists,
    )


class _Vectors:
    """The vectors of the products that statistics know, for their likeness."""

    def __init__(self, client: AsyncQdrantClient, generation: Generation, ids: PointIds) -> None:
        self._client = client
        self._generation = generation
        self._catalogue = Catalogue(client, products_collection(generation.name), ids, cached=0)
        self._known: dict[str, Vector] = {}
        self._missing: set[str] = set()
        self._asked_at = time.monotonic()  # for those
        self._likeness = LikenessOfTexts(np.zeros(generation.model.dimension, np.float32), self._known.get)
        self._mean_of = 0  # products that the mean is of

    @property
    def likeness(self) -> LikenessOfTexts:
        return self._likeness

    async def count_available(self, product_ids: list[str]) -> int:
        return await self._catalogue.count_available(product_ids)

    async def start(self) -> None:
        """Takes the mean that vectors are centred by, which moves while the catalogue grows."""
        mean = await read_mean(self._client, self._generation.name)
        if mean is not None and mean.n != self._mean_of:
            self._mean_of = mean.n
            self._likeness.begin_anew(mean.vector.astype(np.float32))

    async def fetch(self, product_ids: list[str]) -> None:
        """Reads the vectors of products that are new here, and now and then of those that weren't known.

        Of as many as are compared, and no more.
        """
        room = COMPARED - len(self._known) - len(self._missing)
        new = dict.fromkeys(one for one in product_ids if one not in self._known and one not in self._missing)
        wanted = set(islice(new, max(room, 0)))
        again = self._missing if time.monotonic() - self._asked_at > _MISSING_SECONDS else set()
        if not wanted and not again:
            return
        if again:
            self._asked_at = time.monotonic()
        found = await self._catalogue.read([*wanted, *again])
        vectors = {one: product.vector for one, product in found.items() if product.vector is not None}
        self._missing = (self._missing | wanted) - vectors.keys()
        self._known.update(vectors)
        await self.start()
        if vectors.keys() & again:
            self._likeness.begin_anew()
