"""Everything that changes one generation: its stores, the updaters that write them, and the work they put off.

A live worker and a replay drive the same keeper. They bring records and acknowledge them; what happens in between
is here, and is the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from qdrant_client import AsyncQdrantClient

from encoders.client import EncoderClient
from sinks.catalogue import Catalogue
from sinks.changes import CatalogueChanges
from sinks.collections import Generation, RefusedGeneration, products_collection, profiles_collection
from sinks.generations import list_generations
from sinks.identity import PointIds
from sinks.mean import Mean, read_mean, write_mean
from sinks.products import ProductStore
from sinks.profiles import ProfileStore
from sinks.retry import RetryPolicy
from sinks.snapshot import RecentSnapshot
from sinks.spelling import Vocabulary
from sinks.statistics_store import RecentStatistics, StatisticsStore
from sinks.support import Support
from sinks.vocabulary import VocabularyStore
from streams.batches import Batch
from streams.dead_letters import DeadLetter
from streams.generations import group_of
from streams.kafka import answered
from streams.producer import DeliveryFailed, EventProducer
from streams.products import GROWTH, TEXTS_SAMPLED, CatalogueUpdater, ProductBatch, catalogue_mean
from streams.records import Record
from streams.rules import derivation_rules, fold_rules, ranking_rules, refresh_rules, weights
from streams.settings import Settings
from streams.topics import Topic, TopicPartition, committed_offsets
from streams.updater import Updater

logger = logging.getLogger("afterglow.keeper")

SWEPT_AT_ONCE: Final = 512
_REST: Final = 4  # while events come, times as long as it took to refresh some: a fifth of the time is for candidates
_REFRESHED_AT_ONCE: Final = 128  # then it is looked again whether events have come
_REFRESHED_AMONG_EVENTS: Final = 8
_SEEN_TO_SECONDS: Final = 30.0  # for how long it is taken for known what other generations have seen to
_WORTH_A_SNAPSHOT: Final = 64  # users whose candidates are due


class Keeper:
    """Of a generation that is recorded and whose collections exist. `start` it before anything else.

    Every method raises PermanentSinkError, StateError or EncoderError where no retry can help.
    """

    def __init__(
        self,
        settings: Settings,
        generation: Generation,
        *,
        client: AsyncQdrantClient,
        encoder: EncoderClient,
        ids: PointIds,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`settings.profiles` are those of the generation: `streams.generations.as_folded`.

        `retry` waits for a Qdrant that is away, without end.
        """
        name = generation.name
        self.generation = generation
        self._settings = settings
        self._client = client
        self._replicated = settings.qdrant.replication_factor > 1
        self._mean: Mean | None = None
        self._seen_to: Mapping[TopicPartition, list[range]] = {}
        self._seen_to_as_of = -_SEEN_TO_SECONDS
        self._producer: EventProducer | None = None
        self.profiles = ProfileStore(
            client,
            profiles_collection(name),
            cached_bytes=settings.worker.profile_cache,
            replicated=self._replicated,
            retry=retry,
        )
        catalogue = Catalogue(
            client,
            products_collection(name),
            ids,
            cached=settings.worker.cached_products,
            replicated=self._replicated,
            retry=retry,
        )
        self._snapshots = RecentSnapshot(client, products_collection(name), retry=retry)
        self._statistics = RecentStatistics(StatisticsStore(client, name, replicated=self._replicated, retry=retry))
        self._vocabulary = VocabularyStore(client, name, replicated=self._replicated, retry=retry)
        self._words_of = 0  # products that there were when the vocabulary was made
        self._products = ProductStore(client, catalogue, ids, replicated=self._replicated, retry=retry)
        self._updater = Updater(
            searches_topic=settings.topics.searches,
            profiles=self.profiles,
            catalogue=catalogue,
            products=self._products,
            encoder=encoder,
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
        changes = CatalogueChanges(client, name, replicated=self._replicated, retry=retry)
        self._catalogue_updater = CatalogueUpdater(
            products=self._products,
            profiles=self.profiles,
            encoder=encoder,
            settle=self._updater.settle,
            changing=lambda: changes.note(_now_ms()),
        )
        self.figures = self._updater.figures

    async def start(self) -> None:
        """Reads what the generation has beside profiles and products."""
        self._updater.mean = np.zeros(self.generation.model.dimension, np.float32)
        await self.read_shared()
        count = await self._products.count()  # of what generations made before have none
        if self._mean is not None:
            await self._renew_mean(count)
        await self._renew_vocabulary(count)

    def derive(self, *, at_once: bool) -> None:
        """Whether what is written from now on is ready for readers, or is so after a `sweep`."""
        self._updater.derives = at_once

    async def prepare_events(self, records: Sequence[Record]) -> Batch:
        return await self._updater.prepare(records)

    async def apply_events(self, batch: Batch) -> None:
        """Returns when the batch may be acknowledged: all of it is stored, or is a dead letter that Kafka has."""
        await self._updater.apply(batch)
        await self._bury(batch.dead)

    async def prepare_products(self, records: Sequence[Record]) -> ProductBatch:
        return await self._catalogue_updater.prepare(records)

    async def apply_products(self, batch: ProductBatch) -> None:
        """Like `apply_events`; and follows the catalogue's growth with a new mean and vocabulary."""
        await self._bury(batch.dead)
        await self._catalogue_updater.apply(batch)
        count = await self._products.count()
        await self._renew_mean(count)
        await self._renew_vocabulary(count)

    async def sweep(self, partitions: frozenset[int], *, busy: Callable[[], bool] = lambda: False) -> int:
        """Does what was put off for profiles of these partitions; returns how many.

        At most `SWEPT_AT_ONCE`: fewer mean that nothing more is due. While `busy` it takes a few at a time, and a fifth
        of the time only.
        """
        ids = await self.profiles.due(partitions, _now_ms(), SWEPT_AT_ONCE) if partitions else []
        snapshot = await self._snapshots.get() if len(ids) >= _WORTH_A_SNAPSHOT else self._snapshots.at_hand
        left = ids
        if ids:
            self._updater.statistics = await self._statistics.get()
        while left:
            began = time.monotonic()
            some = _REFRESHED_AMONG_EVENTS if busy() else _REFRESHED_AT_ONCE
            await self._updater.refresh(left[:some], snapshot)
            left = left[some:]
            if busy():
                await asyncio.sleep(_REST * (time.monotonic() - began))
        return len(ids)

    async def rederive(self, ids: Sequence[str]) -> None:
        """Derives everything anew of these profiles, due or not."""
        self._updater.statistics = await self._statistics.get()
        await self._updater.rederive(ids, await self._snapshots.get())

    async def read_shared(self) -> None:
        """Takes over the mean and the statistics that are stored now."""
        await self.read_mean()
        self._updater.statistics = await self._statistics.get()

    async def read_mean(self) -> None:
        """Takes over the mean that is stored now."""
        mean = await read_mean(self._client, self.generation.name, replicated=self._replicated)
        if mean is not None and (self._mean is None or mean.version != self._mean.version):
            self._mean = mean
            self._updater.mean = mean.vector.astype(np.float32)
            self._updater.support = Support(mean.landmarks, self._updater.mean)

    async def _renew_mean(self, count: int) -> None:
        """Takes μ anew when the catalogue has grown enough. Of two that do, one wins; both are right."""
        if self._mean is not None and count < GROWTH * self._mean.n and len(self._mean.landmarks):
            return
        mean = await catalogue_mean(self._products, len(self._updater.mean))
        replaces = None if self._mean is None else self._mean.version
        await write_mean(self._client, self.generation.name, mean, replaces=replaces, replicated=self._replicated)
        await self.read_mean()

    async def _renew_vocabulary(self, count: int) -> None:
        """As μ."""
        if not count or count < GROWTH * self._words_of:
            return
        stored = await self._vocabulary.read()
        if stored is None or count >= GROWTH * stored.n:
            words = await asyncio.to_thread(Vocabulary.of, await self._products.sample_texts(TEXTS_SAMPLED))
            await self._vocabulary.write(words, count, replaces=None if stored is None else stored.version)
            self._words_of = count
        else:
            self._words_of = stored.n

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Sends what could not be understood to the dead-letter topic, before its offset may be committed.

        Once, whatever the number of generations: whichever gets to a record first sends it. Two that get there at the
        same moment both do.
        """
        if not letters:
            return
        if time.monotonic() - self._seen_to_as_of > _SEEN_TO_SECONDS:
            self._seen_to = await self._seen_to_by_others()
            self._seen_to_as_of = time.monotonic()
        news = [
            letter
            for letter in letters
            if not any(letter.offset in seen for seen in self._seen_to.get((letter.topic, letter.partition), ()))
        ]
        if news:
            await asyncio.to_thread(self._send_letters, news)

    async def _seen_to_by_others(self) -> dict[TopicPartition, list[range]]:
        """For each partition, the offsets whose dead letters other generations have seen to."""
        ids = {source.id for source in self.generation.sources.values()}
        try:
            others = [one for one in await list_generations(self._client) if one.name != self.generation.name]
        except RefusedGeneration:  # of another version: letters sent twice are better than none
            return {}
        seen: dict[TopicPartition, list[range]] = defaultdict(list)
        for other in others:
            same = [source for source in other.sources.values() if source.id in ids]
            topics = {source.topic: Topic(source.id, len(source.start)) for source in same}
            committed = await asyncio.to_thread(self._committed, group_of(other.name), topics)
            for source in same:
                for partition, start in enumerate(source.start):
                    at = (source.topic, partition)
                    seen[at].append(range(start, committed.get(at, start)))
        return seen

    def _committed(self, group: str, topics: Mapping[str, Topic]) -> dict[TopicPartition, int]:
        kafka = self._settings.kafka
        return answered(lambda: committed_offsets(kafka, group, topics), kafka)

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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
