"""A worker's resident memory while a million events of 100,000 users come in, in waves that it keeps up with."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from benchmarks.rows import Bound, Options, Row
from benchmarks.shop import Shop, machine

EVENTS: Final = 1_000_000
USERS: Final = 100_000
QUICK_EVENTS: Final = 5000
WAVES: Final = 100

_MOMENT: Final = 5  # waves, whose median is what a moment has


def measure(options: Options) -> Iterator[Row]:
    """Once, whatever the rounds: it takes some minutes."""
    events = QUICK_EVENTS if options.quick else EVENTS
    shop = Shop(options.scaled(USERS))
    mebibytes = []
    with machine() as running:
        running.stock()
        for _ in range(WAVES):
            running.take(shop.events(events // WAVES))
            mebibytes.append(running.worker.mebibytes())
        note = f"{events:,} events, half of them searches, of {options.scaled(USERS):,} users; {running.qdrant}"
    middle, end = median(mebibytes[WAVES // 2 - _MOMENT : WAVES // 2]), median(mebibytes[-_MOMENT:])
    yield Row(
        name="memory of a worker: growth in the second half",
        value=100 * (end / middle - 1),
        unit="%",
        bound=Bound(5, 10, "lower"),
        note=f"from {middle:,.0f} to {end:,.0f} MiB resident; {note}",
    )
    yield Row(name="memory of a worker: the most", value=max(mebibytes), unit="MiB", note=note)
