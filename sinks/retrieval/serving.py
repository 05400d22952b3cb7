"""Which generation is read, and what goes with it: looked up now and then, and when it turns out to be dropped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final, NamedTuple

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient

from sinks.catalogue import Catalogue
from sinks.changes import CatalogueChanges
from sinks.collections import Generation, products_collection, read_generation
from sinks.derivation import DerivationRules, Vector
from sinks.generations import served_generation
from sinks.identity import PointIds
from sinks.mean import read_mean
from sinks.retrieval.answers import MismatchedReader, NothingServed
from sinks.retry import PermanentSinkError, RetryPolicy
from sinks.snapshot import RecentSnapshot
from sinks.statistics_store import RecentStatistics, StatisticsStore
from sinks.support import UNKNOWN_CATALOGUE, Support
from sinks.vocabulary import RecentVocabulary, VocabularyStore

SERVING_SECONDS: Final = 30.0
"""How long an answer may go on using a generation and a μ that have been replaced."""


class Serving(NamedTuple):
    """The generation that is read, and what goes with it."""

    generation: Generation
    rules: DerivationRules
    catalogue: Catalogue
    snapshots: RecentSnapshot
    statistics: RecentStatistics
    vocabulary: RecentVocabulary
    changes: CatalogueChanges
    mean: Vector
    support: Support
    mean_version: int  # of `mean` and `support`; 0 where there is no mean yet
    as_of: float


class Served:
    """The generation of that name; without one, what the aliases lead to."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        address: str,
        ids: PointIds,
        rules: DerivationRules,
        *,
        name: str | None,
        cached_products: int,
        retry: RetryPolicy,
    ) -> None:
        """`address` is what errors name Qdrant by."""
        self._client = client
        self._address = address
        self._ids = ids
        self._rules = rules
        self._name = name
        self._cached_products = cached_products
        self._retry = retry
        self._served: Serving | None = None
        self._lock = asyncio.Lock()

    async def now(self) -> Serving:
        """Raises NothingServed, MismatchedReader, PermanentSinkError, and what Qdrant's client raises."""
        return await self._now(None)

    async def instead_of(self, dropped: Serving, refusal: PermanentSinkError) -> Serving:
        """What is served where a read of this one was refused. Raises the refusal where that is no better."""
        if self._name is not None or not _is_missing(refusal):
            raise refusal
        serving = await self._now(dropped)
        if serving.generation == dropped.generation:
            raise refusal
        return serving

    async def _now(self, dropped: Serving | None) -> Serving:
        async with self._lock:
            served = self._served
            if (
                served is None
                or time.monotonic() - served.as_of > SERVING_SECONDS
                or (dropped is not None and served.generation == dropped.generation)
            ):
                served = self._served = await self._look_up(served)
            return served

    async def _look_up(self, before: Serving | None) -> Serving:
        if self._name is not None:
            return await self._open(self._name, before)
        name = await self._alias_target()
        while True:
            try:
                return await self._open(name, before)
            except (NothingServed, PermanentSinkError) as refusal:
                if isinstance(refusal, PermanentSinkError) and not _is_missing(refusal):
                    raise
                asked, name = name, await self._alias_target()
                if name == asked:
                    raise

    async def _open(self, name: str, before: Serving | None) -> Serving:
        generation = await read_generation(self._client, name, retry=self._retry)
        if generation is None:
            raise NothingServed(
                f"Qdrant at {self._address} has no generation {name!r}: a worker makes it when it starts"
            )
        if generation.secret_fingerprint != self._ids.fingerprint:
            raise MismatchedReader(
                f"the point ids of generation {name!r} were made with the secret of fingerprint "
                f"{generation.secret_fingerprint}, and this one's is {self._ids.fingerprint}: nobody would be found. "
                "Give the secret file of the workers (secret_file)"
            )
        mean = await read_mean(self._client, name, retry=self._retry)
        vector = np.zeros(generation.model.dimension, np.float32) if mean is None else mean.vector
        version = 0 if mean is None else mean.version
        if before is not None and before.generation == generation and before.mean_version == version:
            return before._replace(as_of=time.monotonic())
        support = UNKNOWN_CATALOGUE if mean is None else Support(mean.landmarks, vector)
        if before is not None and before.generation == generation:
            return before._replace(mean=vector, support=support, mean_version=version, as_of=time.monotonic())
        collection = products_collection(name)
        return Serving(
            generation,
            _as_folded(self._rules, generation),
            Catalogue(self._client, collection, self._ids, cached=self._cached_products, retry=self._retry),
            RecentSnapshot(self._client, collection, retry=self._retry),
            RecentStatistics(StatisticsStore(self._client, name, retry=self._retry)),
            RecentVocabulary(VocabularyStore(self._client, name, retry=self._retry)),
            CatalogueChanges(self._client, name, retry=self._retry),
            vector,
            support,
            version,
            time.monotonic(),
        )

    async def _alias_target(self) -> str:
        name = await served_generation(self._client, retry=self._retry)
        if name is None:
            raise NothingServed(
                f"Qdrant at {self._address} serves no profiles yet (no alias `profiles`): a worker makes it when it "
                "starts"
            )
        return name


def _is_missing(refusal: PermanentSinkError) -> bool:
    """Whether a collection was read that does not exist: of a generation that was dropped."""
    cause = refusal.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() == grpc.StatusCode.NOT_FOUND


def _as_folded(rules: DerivationRules, generation: Generation) -> DerivationRules:
    """With the half-lives that the sums were decayed by: reading them by others would be wrong for every user."""
    long, short = generation.fold.get("half_life_long_ms"), generation.fold.get("half_life_short_ms")
    if isinstance(long, int | float) and isinstance(short, int | float):
        return replace(rules, half_life_long_ms=float(long), half_life_short_ms=float(short))
    return rules
