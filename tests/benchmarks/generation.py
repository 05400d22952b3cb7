"""One generation in a Qdrant of its own, and the keeper that writes it: what a worker does, without Kafka."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import orjson
import psutil
import uvloop
from benchmarks.vectors import KnownTexts
from services import running_qdrant

from deploy.qdrant_server import find_binary
from encoders.client import EncoderClient
from sinks.collections import profiles_collection
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.opening import open_generation
from streams.garbage import collect_rarely, keep_freed_memory
from streams.keeper import SWEPT_AT_ONCE, Keeper
from streams.opening import new_generation
from streams.records import Record
from streams.settings import load

T = TypeVar("T")

SECRET: Final = bytes(range(32))
LIVE_BATCH: Final = 2048
WINDOW: Final = 50_000  # events, of a replay


class Cost(NamedTuple):
    """Of some work, seconds."""

    worker: float  # CPU of this process, which does what a worker does
    qdrant: float  # CPU
    wall: float

    def of_each(self, count: int) -> Cost:
        """Microseconds."""
        return Cost(*(1e6 * seconds / count for seconds in self))


class OwnQdrant:
    """A Qdrant process that nobody else uses. `run` is for everything that talks to it: one loop, a worker's."""

    def __init__(self, address: str, process: psutil.Process, runner: asyncio.Runner) -> None:
        self.address = address
        self.kind = "embedded" if find_binary() is None else "server"
        self.run = runner.run
        self._process = process

    async def cost(self, work: Awaitable[T]) -> Cost:
        wall, here, there = time.perf_counter(), time.process_time(), self._cpu()
        await work
        return Cost(time.process_time() - here, self._cpu() - there, time.perf_counter() - wall)

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def own_qdrant() -> Iterator[OwnQdrant]:
    with tempfile.TemporaryDirectory() as folder:
        others = set(psutil.Process().children())
        with running_qdrant(Path(folder)) as address, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            (process,) = set(psutil.Process().children()) - others
            yield OwnQdrant(address, process, runner)


class KeptGeneration:
    """A generation and its keeper, with the settings of a worker but for those given."""

    def __init__(self, qdrant: OwnQdrant, name: str, texts: KnownTexts, settings: Mapping[str, str] = {}) -> None:
        self._qdrant = qdrant
        self.name = name
        self.settings = load(None, Path("nowhere"), {"qdrant.address": qdrant.address, **settings}, {})
        self.client = connect(qdrant.address, timeout_seconds=60)
        self.ids = PointIds(SECRET)
        self._texts = texts
        self._offsets: dict[str, Iterator[int]] = {}

    async def open(self) -> None:
        wanted = new_generation(self.settings, self.name, await self._texts.describe(), self.ids, {})
        generation = await open_generation(self.client, wanted)
        self.keeper = Keeper(
            self.settings, generation, client=self.client, encoder=cast(EncoderClient, self._texts), ids=self.ids
        )
        await self.keeper.start()
        collect_rarely()
        keep_freed_memory()

    async def close(self) -> None:
        await self.client.close()

    def records(self, topic: str, events: Iterable[Mapping[str, Any]]) -> list[Record]:
        """Events of `purchases` or `products`, as they come from that topic; all in partition 0."""
        offsets = self._offsets.setdefault(topic, itertools.count())
        name, now = getattr(self.settings.topics, topic), now_ms()
        key = "product_id" if topic == "products" else "user_id"
        return [
            Record(name, f"id-of-{topic}", 0, next(offsets), now, event[key].encode(), orjson.dumps(event))
            for event in events
        ]

    async def stock(self, products: Iterable[Mapping[str, Any]]) -> None:
        """Stores products."""
        for batch in _batches(self.records("products", products), LIVE_BATCH):
            await self.keeper.apply_products(await self.keeper.prepare_products(batch))

    async def fold(self, records: Sequence[Record], *, batch: int = LIVE_BATCH) -> None:
        """Folds records of purchases in, in batches of so many."""
        for some in _batches(records, batch):
            await self.keeper.apply_events(await self.keeper.prepare_events(some))

    async def fold_history(self, purchases: Iterable[Mapping[str, Any]]) -> None:
        """Folds purchases in as a replay does, in large windows; nothing is derived, and all of it due."""
        self.keeper.derive(at_once=False)
        await self.fold(self.records("purchases", purchases), batch=WINDOW)
        self.keeper.derive(at_once=True)

    async def sweep(self) -> None:
        """Does all that was put off."""
        while await self.keeper.sweep(frozenset({0})) == SWEPT_AT_ONCE:
            pass

    @property
    def profiles(self) -> str:
        """The collection's name."""
        return profiles_collection(self.name)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _batches(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
