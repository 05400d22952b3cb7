"""A replay beside the live worker that has folded the same log in, by the size of the log and by events a profile.

Purchases only, of products that are known. There are so many users that a window of the replay holds the given number
of events a profile. A log is folded in live once, and can't be once more; it is replayed in every round, into a
generation of its own, beside the same worker at rest. Neither side counts the candidates that it puts off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import median
from typing import Final, NamedTuple

import psutil
from benchmarks.rows import Bound, Options, Row
from benchmarks.shop import Machine, Shop, machine
from machine import ENVIRONMENT, afterglow

from streams.windows import WINDOW_RECORDS

SIZES: Final = {4: (100_000,), 12: (50_000, 100_000, 200_000), 40: (200_000,)}
"""Of the logs, by events a profile and window."""

HELD_FROM: Final = 12
"""Events a profile and window, from which on a replay is to be so many times as fast."""

TIMES: Final = Bound(10, 8.6)

_LOOK_SECONDS: Final = 0.05


def measure(options: Options) -> Iterator[Row]:
    for per_profile, sizes in SIZES.items():
        yield from _measured(options, [options.scaled(size) for size in sizes], per_profile)


def _measured(options: Options, sizes: list[int], per_profile: int) -> Iterator[Row]:
    """One log that grows from size to size."""
    users = options.scaled(WINDOW_RECORDS) // per_profile
    shop = Shop(users, searches=0.0)
    made, seconds_live = 0, 0.0
    microseconds = []
    with machine() as running:
        running.stock()
        for size in sizes:
            taken = running.take(shop.events(size - made))
            seconds_live += (size - made) / taken.per_second
            made = size
            running.rest()
            replays = [_replayed(running, f"of-{size}-{number}") for number in range(options.rounds)]
            row = _row(running, size, users, per_profile, size / seconds_live, replays)
            microseconds.append(1e6 / row.value)
            yield row
            yield Row(
                name=f"replay, {size:,} events, {per_profile} a profile and window: its memory",
                value=max(replay.mebibytes for replay in replays),
                unit="MiB",
                note="the most that was resident",
            )
    if len(sizes) > 1:
        yield Row(
            name=f"replay: time an event, {sizes[-1]:,} events",
            value=microseconds[-1],
            unit="µs",
            against=f"{sizes[0]:,} events: {microseconds[0]:.1f} µs",
            ratio=microseconds[-1] / microseconds[0],
            note="1 where it is linear; less where what comes before the first window weighs more in the short log",
        )


def _row(running: Machine, size: int, users: int, per_profile: int, live: float, replays: list[_Replay]) -> Row:
    rates = [replay.per_second for replay in replays]
    return Row(
        name=f"replay, {size:,} events, {per_profile} a profile and window",
        value=median(rates),
        unit="events/s",
        against=f"live: {live:,.0f}/s",
        ratio=median(rates) / live,
        spread=(min(rates) / live, max(rates) / live),
        bound=TIMES if per_profile >= HELD_FROM else None,
        note=f"{1e6 / median(rates):.1f} µs an event; {users:,} users; {running.qdrant}",
    )


class _Replay(NamedTuple):
    per_second: float  # events, while they were folded in
    mebibytes: float  # the most that was resident


def _replayed(running: Machine, generation: str) -> _Replay:
    command = ["replay", "--no-activate", "--json", "--generation", generation]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "streams", *command],
        env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(running.data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        most = 0
        while process.poll() is None:  # not `ru_maxrss`: that counts what this process held when it forked
            with suppress(psutil.Error):
                most = max(most, psutil.Process(process.pid).memory_info().rss)
            time.sleep(_LOOK_SECONDS)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    afterglow(running.data, "generations", "drop", generation, "--yes")
    return _Replay(told["events"] / told["seconds_folding"], most / 2**20)
