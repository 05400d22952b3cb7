"""A slow Qdrant, an encoder that stands still, a burst: what becomes of a worker's memory, of events, of freshness.

One trouble after the other, in one run, once: each meets a worker at rest, and is over when that has caught up.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.freshness import LIGHT, Watch
from benchmarks.rows import Bound, Options, Row
from benchmarks.shop import Consumer, Event, Machine, Shop, Taken, machine, search
from faults.proxy import Fault, Kind, Proxy
from services import running_qdrant

from streams.generations import FIRST

USERS: Final = 10_000
WARMING: Final = 20_000
ARRIVING: Final = 1000  # events a second, while Qdrant is slow or the encoder stands still
SLOWER: Final = Fault(Kind.SLOW, seconds=0.3)  # every call
SLOW_SECONDS: Final = 10
FROZEN_SECONDS: Final = 5
BURST: Final = 200_000
FRESHNESS_SECONDS: Final = 10

_LOOK_SECONDS: Final = 0.05


def measure(options: Options) -> Iterator[Row]:
    shop = Shop(USERS)
    with _proxied_machine() as (running, proxy):
        running.stock()
        watch = Watch(running)
        watch.take(shop.events(options.scaled(WARMING)))
        running.rest()

        def slow_qdrant() -> Taken:
            proxy.faults[FIRST] = SLOWER
            threading.Timer(SLOW_SECONDS, proxy.faults.clear).start()
            return watch.take(shop.events(ARRIVING * SLOW_SECONDS), ARRIVING)

        def frozen_encoder() -> Taken:
            encoder = running.process("encoder")
            encoder.suspend()
            threading.Timer(FROZEN_SECONDS, encoder.resume).start()
            return watch.take(_new_searches(ARRIVING * FROZEN_SECONDS), ARRIVING)

        def burst() -> Taken:
            return watch.take(shop.events(options.scaled(BURST)))

        troubles = {
            f"Qdrant {SLOWER.seconds:g} s slower a call for {SLOW_SECONDS} s": slow_qdrant,
            f"encoder frozen for {FROZEN_SECONDS} s": frozen_encoder,
            f"a burst of {options.scaled(BURST):,} events": burst,
        }
        for trouble, meet in troubles.items():
            yield from _rows(running, watch, trouble, meet)
            running.rest()
            events = shop.events(LIGHT * options.scaled(FRESHNESS_SECONDS))
            yield Row(
                name=f"pressure, {trouble}: freshness afterwards",
                value=1000 * median(watch.freshness(events, LIGHT)),
                unit="ms",
                bound=Bound(80, 300, "lower"),
                note=f"median, {LIGHT} events a second",
            )


def _rows(running: Machine, watch: Watch, trouble: str, meet: Callable[[], Taken]) -> Iterator[Row]:
    before = running.worker.mebibytes()
    with _looked_at(running.worker) as mebibytes:
        taken = meet()
    yield Row(
        name=f"pressure, {trouble}: most memory of the worker",
        value=max(mebibytes),
        unit="MiB",
        against=f"before: {before:,.0f} MiB",
        ratio=max(mebibytes) / before,
        note=f"{taken.per_second:,.0f} events a second until all were folded in; {running.qdrant}",
    )
    yield Row(
        name=f"pressure, {trouble}: events lost, or counted twice",
        value=abs(running.counted() - watch.sent),
        unit="events",
        bound=Bound(0, 0, "lower"),
    )


def _new_searches(count: int) -> list[Event]:
    """Of texts that no encoder was shown yet."""
    return [search(f"u{number % USERS}", f"never seen before {number}") for number in range(count)]


@contextmanager
def _looked_at(worker: Consumer) -> Iterator[list[float]]:
    """The worker's resident memory again and again, MiB, until the context is left."""
    mebibytes = [worker.mebibytes()]
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            mebibytes.append(worker.mebibytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield mebibytes
    finally:
        done.set()
        looking.join()


@contextmanager
def _proxied_machine() -> Iterator[tuple[Machine, Proxy]]:
    """A machine whose workers reach Qdrant through a proxy."""
    proxy = Proxy()
    with tempfile.TemporaryDirectory() as folder, running_qdrant(Path(folder)) as address:
        proxy.start(address)
        try:
            with machine("--qdrant", proxy.address) as running:
                yield running, proxy
        finally:
            proxy.stop()
