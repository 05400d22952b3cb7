"""A live worker beside the encoder alone and beside a plain consumer; where its CPU goes; two workers beside one.

All of it on the cores that Kafka, Qdrant, the encoder and whoever produces share. Events arrive while they are folded
in, faster than that, until all of them are there; candidates are put off and swept as ever.

What an event costs depends on how many profiles it writes, so each row says that. The bounds of a worker are asked of a
real shop's purchases, as the spike had that they come from, and of events that are nearly each another user's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import click
import psutil
from benchmarks.real_data import products, purchases, unique_texts
from benchmarks.rows import Bound, Options, Row, side_by_side
from benchmarks.shop import (
    ACQUAINTED,
    DISTINCT_USERS,
    Consumer,
    Machine,
    Shop,
    Taken,
    cpu_seconds,
    encode,
    machine,
    search,
)
from benchmarks.stages import sampled, sampler
from machine import ENVIRONMENT, until

from encoders.text import normalise
from streams.generations import FIRST, group_of
from streams.groups import members_of
from streams.kafka import connect_admin
from streams.settings import changed, variable

EVENTS: Final = 24_000
WARMING: Final = 5000  # events before each measurement but the first: no cache is empty then, nor full
ARRIVING: Final = 15_000  # events a second

REAL_SHOP: Final = "online-retail"
REAL_EVENTS: Final = 60_000

UNIQUE_TEXTS: Final = 8000
SEARCHERS: Final = 2000

_TESTS: Final = Path(__file__).parents[1]
_TYPED: Final = ("hardware-search-relevance/judgements", "game-searches/searches")
_PLAIN: Final = "plain"
_PLAIN_TOPICS: Final = {"topics.searches": "plain-searches", "topics.purchases": "plain-purchases"}
_START_SECONDS: Final = 120


def measure(options: Options) -> Iterator[Row]:
    yield from _real(options)
    with machine() as running:
        running.stock()
        sides = _sides(running, options)
        yield from _rows(running, options, sides)
        yield from _stages(running, options, sides)
    yield _unique(options)


def _real(options: Options) -> Iterator[Row]:
    in_all = WARMING + options.rounds * options.scaled(REAL_EVENTS)
    events = list(islice(purchases(options.data, REAL_SHOP), in_all))
    with machine() as running:
        running.sell(products(options.data, REAL_SHOP))
        running.take(events[:WARMING])
        each = options.scaled(REAL_EVENTS)
        taken = [
            running.take(events[start : start + each], per_second=ARRIVING)
            for start in range(WARMING, len(events), each)
        ]
        note = f"{running.qdrant}; {each:,} purchases a round, {ARRIVING:,} arriving a second; {_written(taken)}"
    cpu, rates = [one.cpu_us for one in taken], [one.per_second for one in taken]
    yield Row(
        name=f"worker live, {REAL_SHOP}: CPU an event",
        value=median(cpu),
        unit="µs",
        spread=(min(cpu), max(cpu)),
        bound=Bound(90, 150, "lower"),
        note=f"{note}; {median(one.refreshed for one in taken):,.0f} profiles' candidates among it",
    )
    yield Row(
        name=f"worker live, {REAL_SHOP}: rate",
        value=median(rates),
        unit="events/s",
        spread=(min(rates), max(rates)),
        bound=Bound(7500, 4500),
        note=f"on the cores that Kafka and Qdrant share; {note}",
    )


class _Sides(NamedTuple):
    """What each side has taken in, round by round."""

    one: list[Taken]  # the worker of `afterglow up`
    plain: list[Taken]
    two: list[Taken]  # that worker and another one
    idle: list[float]  # the part of a core that the worker took beside the plain consumer


def _sides(running: Machine, options: Options) -> _Sides:
    sides = _Sides([], [], [], [])
    shop, same_shop = Shop(DISTINCT_USERS), Shop(DISTINCT_USERS)
    another_shop = Shop(DISTINCT_USERS, seed=2, prefix="of-two-")
    for _ in range(options.rounds):
        sides.one.append(_taken(running, options, shop, [running.worker]))
        running.rest()
        with _plain_consumer(running) as plain:
            began, cpu = time.perf_counter(), cpu_seconds([running.worker])
            sides.plain.append(_taken(running, options, same_shop, [plain], _PLAIN_TOPICS))
            sides.idle.append((cpu_seconds([running.worker]) - cpu) / (time.perf_counter() - began))
        with _second_worker(running) as second:
            sides.two.append(_taken(running, options, another_shop, [running.worker, second]))
    return sides


def _taken(
    running: Machine,
    options: Options,
    shop: Shop,
    consumers: Sequence[Consumer],
    topics: Mapping[str, str] | None = None,
) -> Taken:
    settings = changed(running.settings, topics or {})
    before = options.scaled(WARMING if shop.made else ACQUAINTED)
    running.take(shop.events(before), consumers=consumers, settings=settings)
    events = shop.events(options.scaled(EVENTS))
    return running.take(events, per_second=ARRIVING, consumers=consumers, settings=settings)


def _rows(running: Machine, options: Options, sides: _Sides) -> Iterator[Row]:
    one, plain = sides.one, sides.plain
    rates, cpu = [taken.per_second for taken in one], [taken.cpu_us for taken in one]
    note = (
        f"{running.qdrant}; {options.scaled(EVENTS):,} events a round, half of them searches, of {DISTINCT_USERS:,} "
        f"users, {ARRIVING:,} arriving a second; {_written(one)}"
    )
    yield Row(
        name="worker live, mostly distinct users: CPU an event",
        value=median(cpu),
        unit="µs",
        spread=(min(cpu), max(cpu)),
        bound=Bound(90, 150, "lower"),
        note=f"{note}; {median(taken.refreshed for taken in one):,.0f} profiles' candidates among it",
    )
    yield Row(
        name="worker live, mostly distinct users: rate",
        value=median(rates),
        unit="events/s",
        spread=(min(rates), max(rates)),
        bound=Bound(7500, 4500),
        note=f"on the cores that Kafka and Qdrant share; {note}",
    )
    for name in one[0].beside_us:
        beside = [taken.beside_us[name] for taken in one]
        yield Row(
            name=f"beside a live worker, mostly distinct users: {name}'s CPU an event",
            value=median(beside),
            unit="µs",
            spread=(min(beside), max(beside)),
        )
    plain_rates = [taken.per_second for taken in plain]
    ratio, spread = side_by_side(rates, plain_rates)
    yield Row(
        name="worker live, mostly distinct users: beside a plain consumer",
        value=median(rates),
        unit="events/s",
        against=f"confluent-kafka with the same steps: {median(plain_rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=Bound(0.70, 0.50),
        note=(
            f"its CPU: {median(taken.cpu_us for taken in plain):.0f} µs an event; the same events, in turn; the worker "
            f"took {median(sides.idle):.1%} of a core meanwhile"
        ),
    )
    yield from _rows_of_two(one, sides.two, note)


def _rows_of_two(one: Sequence[Taken], two: Sequence[Taken], note: str) -> Iterator[Row]:
    cpu, rates = [taken.cpu_us for taken in one], [taken.per_second for taken in one]
    ratio, spread = side_by_side([taken.cpu_us for taken in two], cpu)
    yield Row(
        name="two workers on one group: CPU an event",
        value=median(taken.cpu_us for taken in two),
        unit="µs",
        against=f"one worker: {median(cpu):.0f} µs",
        ratio=ratio,
        spread=spread,
        bound=Bound(1.1, 1.3, "lower"),
        note=note,
    )
    two_rates = [taken.per_second for taken in two]
    ratio, spread = side_by_side(two_rates, rates)
    yield Row(
        name="two workers on one group: rate",
        value=median(two_rates),
        unit="events/s",
        against=f"one worker: {median(rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=Bound(1.4, 1.2),
        note=note,
    )


def _written(taken: Sequence[Taken]) -> str:
    return f"{median(one.written for one in taken):.2f} profiles written an event"


def _stages(running: Machine, options: Options, sides: _Sides) -> Iterator[Row]:
    """Where the worker's CPU goes: the shares of one more run, of the CPU of those that nobody looked into."""
    program = sampler()
    if program is None:
        click.echo("worker: no py-spy on the PATH: the rows of where its CPU goes are left out", err=True)
        return
    shop, cpu = Shop(DISTINCT_USERS, seed=3), median(taken.cpu_us for taken in sides.one)
    running.take(shop.events(options.scaled(WARMING)))
    with sampled(program, running.worker.process) as shares:
        running.take(shop.events(options.scaled(EVENTS)), per_second=ARRIVING)
    for stage, share in sorted(shares.items(), key=lambda each: -each[1]):
        yield Row(
            name=f"worker live, mostly distinct users: {stage}",
            value=share * cpu,
            unit="µs an event",
        )


def _unique(options: Options) -> Row:
    """Both sides with an encoder that keeps nothing, so that every text is one it has never seen."""
    typed = [query for file in _TYPED for query in unique_texts(options.data, file, "query")]
    texts = list(dict.fromkeys(normalise(query) for query in typed))[: options.scaled(UNIQUE_TEXTS)]
    events = [search(f"u{number % SEARCHERS}", text) for number, text in enumerate(texts)]
    with machine(settings={"encoder": {"cache_entries": 0}}) as running:
        running.take(events[: len(events) // 10])
        worker_rates, encoder_rates = [], []
        for _ in range(options.rounds):
            worker_rates.append(running.take(events).steady_per_second)
            running.rest()
            encoder_rates.append(asyncio.run(encode(running.settings, texts)))
        note = f"from the first batch to the last; {len(texts):,} searches of {SEARCHERS:,} users; {running.qdrant}"
    ratio, spread = side_by_side(worker_rates, encoder_rates)
    return Row(
        name="worker live, unique texts",
        value=median(worker_rates),
        unit="events/s",
        against=f"the encoder alone, through its socket: {median(encoder_rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=Bound(0.90, 0.75),
        note=note,
    )


@contextmanager
def _second_worker(running: Machine) -> Iterator[Consumer]:
    """In the same group as the worker of `up`, while the context lasts."""
    port = running.port("second")
    with _started(running, ["streams", "worker"], {"worker.metrics_port": str(port)}) as process:
        _until_members(running, 2)
        yield Consumer(process, port)
    _until_members(running, 1)


@contextmanager
def _plain_consumer(running: Machine) -> Iterator[Consumer]:
    """It folds searches and purchases of its own topics, into a generation of its own, of the same products."""
    port = running.port("plain")
    settings = {**_PLAIN_TOPICS, "generation": _PLAIN, "worker.metrics_port": str(port)}
    with _started(running, ["benchmarks.plain_consumer"], settings) as process:
        consumer = Consumer(process, port)
        until(lambda: _answers(consumer), _START_SECONDS, f"see {running.folder}")
        running.knows_products(_PLAIN)
        yield consumer


@contextmanager
def _started(running: Machine, module: Sequence[str], settings: Mapping[str, str]) -> Iterator[psutil.Process]:
    """A process that finds the machine by its data directory; drained in the end."""
    environment = {
        **ENVIRONMENT,
        **{variable(name): value for name, value in settings.items()},
        "AFTERGLOW_DATA_DIR": str(running.data),
        "PYTHONPATH": f"{_TESTS.parent}:{_TESTS}",
    }
    log = running.folder / f"{module[0]}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *module], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield psutil.Process(process.pid)
        process.terminate()
        assert process.wait(_START_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _until_members(running: Machine, count: int) -> None:
    """Until the group has so many, and they have shared the partitions among themselves."""
    admin = connect_admin(running.settings.kafka)

    def there() -> bool:
        members = members_of(admin, group_of(FIRST))
        return members.number == count and not members.agreeing

    until(there, _START_SECONDS)


def _answers(consumer: Consumer) -> bool:
    try:
        consumer.figure("events_folded")
    except urllib.error.URLError:
        return False
    return True
