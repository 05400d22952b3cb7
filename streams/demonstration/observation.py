"""The running system as its readers see it, from outside: what is stored in Qdrant, and how soon it got there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from qdrant_client import AsyncQdrantClient

from encoders.client import EncoderClient, EncoderStatistics
from sinks.collections import products_collection, profiles_collection
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.profiles import ProfileStore
from sinks.retry import RetryPolicy, until_answered
from streams.events import Purchase, Search
from streams.kafka import connect_admin
from streams.secret import read_secret
from streams.settings import Settings
from streams.topics import describe, end_offsets

PROBE_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.01
_PATIENT: Final = RetryPolicy()


class Counted(NamedTuple):
    """How many events of one kind each are in a profile, or were sent to it."""

    searches: int
    purchases: int


class Look(NamedTuple):
    """What was stored at one moment. `profiles` is by point id."""

    profiles: dict[str, Counted]
    encoder: EncoderStatistics

    @property
    def folded(self) -> int:
        return sum(map(sum, self.profiles.values()))


class Observer:
    """Looks at what is stored. Only reads."""

    def __init__(self, settings: Settings, client: AsyncQdrantClient, encoder: EncoderClient) -> None:
        self.ids = PointIds(read_secret(settings.secret_file))
        self._settings = settings
        self._client = client
        self._encoder = encoder
        self._profiles = ProfileStore(client, profiles_collection(settings.generation), cached_bytes=0)

    async def look(self) -> Look:
        profiles = {
            profile.id: Counted(profile.n_searches, profile.n_purchases) async for profile in self._profiles.counts()
        }
        return Look(profiles, await self._encoder.statistics())

    async def products(self) -> int:
        """How many products are stored."""
        collection = products_collection(self._settings.generation)
        answer = await until_answered(
            lambda: self._client.count(collection, exact=True),
            doing="counting products",
            collection=collection,
            retry=_PATIENT,
        )
        return answer.count

    async def refused(self) -> int:
        """How many records the workers could not understand: the length of the dead-letter topic."""
        return await asyncio.to_thread(self._refused)

    async def newest(self, point_ids: list[str]) -> dict[str, tuple[int, int]]:
        """Time of the newest search and the newest purchase folded in, ms, by point id; 0 where there is none."""
        collection = profiles_collection(self._settings.generation)
        points = await until_answered(
            lambda: self._client.retrieve(collection, point_ids, with_payload=["last_search_ts", "last_purchase_ts"]),
            doing="reading profiles",
            collection=collection,
            retry=_PATIENT,
        )
        return {
            str(point.id): (payload.get("last_search_ts") or 0, payload.get("last_purchase_ts") or 0)
            for point in points
            if (payload := point.payload) is not None
        }

    def _refused(self) -> int:
        admin = connect_admin(self._settings.kafka)
        return sum(end_offsets(admin, describe(admin, [self._settings.topics.dead_letters])).values())


@asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Observer]:
    """Raises NoSecret."""
    client = connect(settings.qdrant.address, timeout_seconds=settings.qdrant.timeout.seconds)
    encoder = EncoderClient(settings.encoder_address)
    try:
        yield Observer(settings, client, encoder)
    finally:
        await client.close()
        await encoder.close()


class _Probe(NamedTuple):
    point_id: str
    is_search: bool
    ts: int
    sent_at: float


class Freshness:
    """From the call that sends an event to the first read of its user's profile that has it, ms.

    A probe starts at most every `PROBE_SECONDS`, whether or not those before it are done, so that slow times don't
    hide themselves. It takes events that come in the order of their `ts`, as those of one act do.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._open: list[_Probe] = []
        self._next_at = 0.0
        self.measured_ms: list[float] = []

    def sent(self, event: Search | Purchase, sent_at: float) -> None:
        """Tell of an event just sent (`sent_at`: time.monotonic); it becomes a probe when one is due."""
        if sent_at >= self._next_at:
            self._next_at = sent_at + PROBE_SECONDS
            point_id = self._observer.ids.user(event.user_id)
            self._open.append(_Probe(point_id, isinstance(event, Search), event.ts, sent_at))

    @property
    def outstanding(self) -> int:
        """Probes whose event has not been read yet."""
        return len(self._open)

    async def watch(self) -> None:
        """Read until cancelled."""
        while True:
            if self._open:
                await self._read()
            await asyncio.sleep(_POLL_SECONDS)

    def quantile(self, share: float) -> float | None:
        if not self.measured_ms:
            return None
        ordered = sorted(self.measured_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    async def _read(self) -> None:
        asked = list(self._open)
        newest = await self._observer.newest(sorted({probe.point_id for probe in asked}))
        now = time.monotonic()
        for probe in asked:
            search, purchase = newest.get(probe.point_id, (0, 0))
            if (search if probe.is_search else purchase) >= probe.ts:
                self.measured_ms.append(1000.0 * (now - probe.sent_at))
                self._open.remove(probe)
