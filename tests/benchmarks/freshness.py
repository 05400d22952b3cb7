"""From the moment an event is sent until its user's profile, read from Qdrant, has it.

One in so many events is watched: the profile is read again and again until it counts the event. A ledger is the fold of
a prefix of its topic, so a user's n-th search (or purchase) is in as soon as `n_searches` (`n_purchases`) is n. The
milliseconds between two reads are counted in. The first second of a load isn't watched: half of it takes a
producer that has just started to get an id from Kafka.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from benchmarks.real_data import products, purchases
from benchmarks.rows import Bound, Options, Row
from benchmarks.shop import ACQUAINTED, DISTINCT_USERS, Event, Machine, Shop, Taken, machine, sending
from qdrant_client import grpc as qdrant

from sinks.collections import profiles_collection
from sinks.identity import PointIds
from streams.generations import FIRST, connected
from streams.secret import read_secret

WARMING: Final = 5000
BURST: Final = 15_000  # events, taken in as fast as may be: half load is half of that rate
SECONDS: Final = 20
LIGHT: Final = 40  # events a second

REAL_SHOP: Final = "online-retail"
REAL_BURST: Final = 40_000

_WATCHED_A_SECOND: Final = 10  # reads cost the embedded Qdrant as much as writes do
_PAUSE_SECONDS: Final = 0.01
_STARTING_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 120.0
_COUNTS: Final = {"searches": "n_searches", "purchases": "n_purchases"}
_ONLY_COUNTS: Final = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=list(_COUNTS.values())))


def measure(options: Options) -> Iterator[Row]:
    yield from _real(options)
    with machine() as running:
        running.stock()
        watch = Watch(running)
        both, purchases = Shop(DISTINCT_USERS), Shop(DISTINCT_USERS, searches=0.0, seed=2)
        watch.take(both.events(options.scaled(ACQUAINTED)))
        half = watch.take(both.events(options.scaled(BURST))).per_second / 2
        loads = {
            "half load": (both, half),
            "half load, one topic idle": (purchases, half),
            "light load": (both, LIGHT),
        }
        seen: dict[str, list[tuple[float, float]]] = {load: [] for load in loads}
        for _ in range(options.rounds):
            for load, (shop, per_second) in loads.items():
                running.rest()
                events = shop.events(round(options.scaled(SECONDS) * per_second))
                seen[load].append(_percentiles(watch.freshness(events, per_second)))
        for load, (_, per_second) in loads.items():
            note = f"{running.qdrant}; {per_second:,.0f} events a second of {DISTINCT_USERS:,} users"
            yield from _rows(load, seen[load], note)


def _real(options: Options) -> Iterator[Row]:
    """Purchases of a real shop, in their order."""
    events = purchases(options.data, REAL_SHOP)
    with machine() as running:
        running.sell(products(options.data, REAL_SHOP))
        watch = Watch(running)
        watch.take(list(islice(events, options.scaled(WARMING))))
        half = watch.take(list(islice(events, options.scaled(REAL_BURST)))).per_second / 2
        seen = []
        for _ in range(options.rounds):
            running.rest()
            some = list(islice(events, round(options.scaled(SECONDS) * half)))
            seen.append(_percentiles(watch.freshness(some, half)))
        yield from _rows(f"{REAL_SHOP}, half load", seen, f"{running.qdrant}; {half:,.0f} purchases a second")


class Watch:
    """Sends a machine's events, all of them, and knows how many each user has had."""

    def __init__(self, running: Machine) -> None:
        self._running = running
        self._ids = PointIds(read_secret(running.settings.secret_file))
        self._sent: Counter[tuple[str, str]] = Counter()

    @property
    def sent(self) -> int:
        """How many events, all in all."""
        return self._sent.total()

    def take(self, events: Sequence[Event], per_second: float | None = None) -> Taken:
        """As `Machine.take`."""
        self._sent.update((event.topic, event.user_id) for event in events)
        return self._running.take(events, per_second=per_second)

    def freshness(self, events: Sequence[Event], per_second: float) -> list[float]:
        """Seconds from sent to readable, of some of the events, evenly chosen after the first second, or the first half
        where that is shorter. Returns when these are readable.
        """
        every = max(1, round(per_second / _WATCHED_A_SECOND))
        count = len(events) // every
        unwatched = min(round(per_second * _STARTING_SECONDS / every), count // 2)
        watched: deque[_Watched] = deque()
        number = 0

        def note(event: Event) -> None:
            nonlocal number
            number += 1
            self._sent[event.topic, event.user_id] += 1
            if number % every == 0 and number // every > unwatched:
                nth = self._sent[event.topic, event.user_id]
                watched.append(_Watched(self._ids.user(event.user_id), event.topic, nth, time.perf_counter()))

        with sending(self._running.settings, events, per_second, note):
            return asyncio.run(self._seen(watched, count - unwatched))

    async def _seen(self, watched: deque[_Watched], count: int) -> list[float]:
        client = connected(self._running.settings)
        deadline = time.monotonic() + count / _WATCHED_A_SECOND + _PATIENCE_SECONDS
        seconds: list[float] = []
        while len(seconds) < count:
            assert time.monotonic() < deadline, f"{count - len(seconds)} of {count} events aren't readable"
            ids = {one.point_id for one in watched.copy()}
            request = qdrant.GetPoints(
                collection_name=profiles_collection(FIRST),
                ids=[qdrant.PointId(uuid=id_) for id_ in ids],
                with_payload=_ONLY_COUNTS,
            )
            points = (await client.grpc_points.Get(request)).result if ids else []
            now = time.perf_counter()
            counted = {
                (point.id.uuid, topic): point.payload[name].integer_value
                for point in points
                for topic, name in _COUNTS.items()
                if name in point.payload
            }
            for _ in range(len(watched)):
                one = watched.popleft()
                if counted.get((one.point_id, one.topic), 0) >= one.nth:
                    seconds.append(now - one.sent)
                else:
                    watched.append(one)
            await asyncio.sleep(_PAUSE_SECONDS)
        await client.close()
        return seconds


class _Watched(NamedTuple):
    point_id: str
    topic: str
    nth: int  # of the user's events in that topic
    sent: float  # time.perf_counter


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th, in milliseconds."""
    p50, p99 = 1000 * np.percentile(seconds, (50, 99))
    return float(p50), float(p99)


def _rows(load: str, seen: Sequence[tuple[float, float]], note: str) -> Iterator[Row]:
    """`seen` are the percentiles of the rounds."""
    yield _row(f"freshness, {load}: median", [p50 for p50, _ in seen], Bound(80, 300, "lower"), note)
    yield _row(f"freshness, {load}: p99", [p99 for _, p99 in seen], Bound(300, 1000, "lower"), note)


def _row(name: str, milliseconds: Sequence[float], bound: Bound, note: str) -> Row:
    return Row(
        name=name,
        value=median(milliseconds),
        unit="ms",
        spread=(min(milliseconds), max(milliseconds)),
        bound=bound,
        note=note,
    )
