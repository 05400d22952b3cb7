"""Events of a made shop, and a running `afterglow up` that takes them in: for parts that measure all of it together."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import psutil
from machine import afterglow, running, until

from deploy.ports import kept_ports
from deploy.qdrant_server import find_binary
from encoders.client import EncoderClient, TextKind
from sinks.collections import products_collection, profiles_collection
from sinks.profiles import ProfileStore
from streams.generations import FIRST, connected
from streams.producer import EventProducer
from streams.settings import Settings, load

PRODUCTS: Final = 2000
QUERIES: Final = 2000
WORDS: Final = (
    "oak", "tin", "red", "blue", "lamp", "mug", "rug", "kite", "drum", "chair", "scarf", "clock", "boots", "stove"
)  # fmt: skip

WRITTEN: Final = "profiles_written"
REFRESHED: Final = "profiles_refreshed"

_COMMANDS: Final = {
    "worker": {"worker"},
    "encoder": {"encoder"},
    "Qdrant": {"deploy.qdrant", "qdrant"},
    "Kafka": {"kafka.Kafka"},
}
"""Words that tell the command line of each."""

_START_MS: Final = 1_690_000_000_000
_BETWEEN_EVENTS_MS: Final = 10_000
_SOON_MS: Final = 30_000  # longer than a user's candidates are put off
_LOOK_SECONDS: Final = 0.1  # a look costs the process half a millisecond
_SHORTEST_SLEEP_SECONDS: Final = 0.002
_PATIENCE_SECONDS: Final = 900.0


class Event(NamedTuple):
    topic: str  # `searches` or `purchases`
    user_id: str
    value: bytes


DISTINCT_USERS: Final = 100_000
"""Of a shop whose events are nearly each another's. Statistics learn from 20,000 buyers at most, and from every order
of fewer: of 10,000 who take turns at thousands of events a second that is a thousand times as many as people place.
"""

ACQUAINTED: Final = 50_000
"""So many events of theirs come before anything is measured: by then statistics have more buyers than they keep."""


class Shop:
    """Searches and purchases of so many users, each drawn evenly: a seed draws the same ones every time.

    They are of 2,000 products and 2,000 queries, so that an encoder which was shown these knows every text.
    """

    def __init__(self, users: int, *, searches: float = 0.5, seed: int = 1, prefix: str = "u") -> None:
        """`searches` is their share of the events; the others are purchases."""
        self._users = users
        self._searches = searches
        self._prefix = prefix
        self._chance = random.Random(seed)
        self._made = 0

    @property
    def made(self) -> int:
        """Events so far."""
        return self._made

    def events(self, count: int) -> list[Event]:
        """The next ones."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Event:
        chance, number = self._chance, self._made
        self._made += 1
        user_id = f"{self._prefix}{chance.randrange(self._users)}"
        event: dict[str, str | int] = {"user_id": user_id, "ts": _START_MS + number * _BETWEEN_EVENTS_MS}
        if chance.random() < self._searches:
            event["query"] = _QUERIES[min(chance.randrange(QUERIES), chance.randrange(QUERIES))]
            return Event("searches", user_id, orjson.dumps(event))
        event["product_id"] = f"p{min(chance.randrange(PRODUCTS), chance.randrange(PRODUCTS))}"
        event["quantity"] = 1
        event["order_id"] = f"o{number}"
        return Event("purchases", user_id, orjson.dumps(event))


def search(user_id: str, query: str) -> Event:
    return Event("searches", user_id, orjson.dumps({"user_id": user_id, "query": query, "ts": _START_MS}))


def _texts(count: int, words: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(chance.sample(WORDS, words))] = None
    return list(found)


_TITLES: Final = _texts(PRODUCTS, 4, 1)
_QUERIES: Final = _texts(QUERIES, 3, 2)


class Consumer(NamedTuple):
    """A process that folds events in, and serves its figures."""

    process: psutil.Process
    port: int

    def figure(self, name: str) -> int:
        """`events_folded`, `profiles_refreshed`, …: a counter of `streams.metrics`, since the process started."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith(f"afterglow_{name}_total "))

    def mebibytes(self) -> float:
        return float(self.process.memory_info().rss) / 2**20


class Taken(NamedTuple):
    """What taking events in came to."""

    per_second: float  # from the first one sent to the last one folded in
    steady_per_second: float  # from the first batch folded in to the last, without the first
    cpu_us: float  # an event, of all consumers together
    beside_us: Mapping[str, float]  # CPU an event of the others: Kafka, Qdrant, encoder
    written: float  # profiles, an event
    refreshed: int  # profiles whose candidates were derived meanwhile


class Machine:
    """A running `afterglow up` with one worker, seen from outside. One at a time."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.settings = load(None, self.data, environment={})
        self.worker = Consumer(self.process("worker"), port)
        self._services = {name: self.process(name) for name in ("Qdrant", "Kafka", "encoder")}

    @property
    def qdrant(self) -> str:
        """Which one it is, and how it is written to: for a row's note."""
        kind = "embedded Qdrant" if find_binary() is None else "Qdrant server"
        return f"{kind}, {self.settings.worker.writes_in_flight} writes in flight"

    def process(self, name: str) -> psutil.Process:
        """One of `worker`, `encoder`, `Qdrant` and `Kafka`."""
        words = _COMMANDS[name]
        started = psutil.Process().children(recursive=True)
        return next(child for child in started if words & {Path(word).name for word in child.cmdline()})

    def port(self, name: str) -> int:
        """One that was free when it was first asked for. Not to be asked for while somebody listens there."""
        return kept_ports(self.folder / f"port-of-{name}.json", [name])[name]

    def stock(self) -> None:
        """Makes the shop's products known to the worker, and its queries to the encoder."""
        self.sell({"product_id": f"p{number}", "title": title} for number, title in enumerate(_TITLES))
        asyncio.run(encode(self.settings, _QUERIES))

    def sell(self, products: Iterable[Mapping[str, object]]) -> None:
        """Makes these known to the worker; returns when it has them."""
        file = self.folder / "products.jsonl"
        file.write_bytes(b"".join(orjson.dumps(product) + b"\n" for product in products))
        afterglow(self.data, "produce", str(file), "--topic", "products", "--wait")

    def take(
        self,
        events: Sequence[Event],
        *,
        per_second: float | None = None,
        consumers: Sequence[Consumer] = (),
        settings: Settings | None = None,
    ) -> Taken:
        """Sends events, at most so many a second; returns when the consumers, by default the worker, have all of them.

        `settings` name the topics, where they are others than the machine's.
        """
        consumers = consumers or [self.worker]
        folded, written, refreshed = (_sum(consumers, name) for name in ("events_folded", WRITTEN, REFRESHED))
        cpu, beside = cpu_seconds(consumers), self._beside()
        began = time.perf_counter()
        with sending(settings or self.settings, events, per_second):
            seen = _until_folded(consumers, folded, folded + len(events))
        per_second = len(events) / (seen[-1].at - began)
        return Taken(
            per_second,
            _rate_between(seen[0], seen[-1]) or per_second,
            1e6 * (cpu_seconds(consumers) - cpu) / len(events),
            {name: 1e6 * (seconds - beside[name]) / len(events) for name, seconds in self._beside().items()},
            (_sum(consumers, WRITTEN) - written) / len(events),
            _sum(consumers, REFRESHED) - refreshed,
        )

    def rest(self, generation: str = FIRST) -> None:
        """Until nothing is due of what was put off."""
        until(lambda: asyncio.run(self._due(generation)) == 0, _PATIENCE_SECONDS)

    def knows_products(self, generation: str) -> None:
        """Until the generation has all of the shop's."""
        until(lambda: asyncio.run(self._products(generation)) == PRODUCTS, _PATIENCE_SECONDS)

    def counted(self, generation: str = FIRST) -> int:
        """The events that are in the profiles."""
        return asyncio.run(self._counted(generation))

    def _beside(self) -> dict[str, float]:
        return {name: _seconds(process) for name, process in self._services.items()}

    async def _due(self, generation: str) -> int:
        client = connected(self.settings)
        profiles = ProfileStore(client, profiles_collection(generation), cached_bytes=0)
        due = await profiles.count_due(time.time_ns() // 1_000_000 + _SOON_MS)
        await client.close()
        return due

    async def _counted(self, generation: str) -> int:
        client = connected(self.settings)
        profiles = ProfileStore(client, profiles_collection(generation), cached_bytes=0)
        counted = sum([profile.n_searches + profile.n_purchases async for profile in profiles.counts()])
        await client.close()
        return counted

    async def _products(self, generation: str) -> int:
        client = connected(self.settings)
        found = await client.count(products_collection(generation), exact=True)
        await client.close()
        return found.count


@contextmanager
def machine(*options: str, settings: Mapping[str, Mapping[str, str | int]] | None = None) -> Iterator[Machine]:
    """`afterglow up` with these options and settings (by section), and nothing in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = kept_ports(folder / "ports.json", ["worker"])["worker"]
        sections = {"worker": {}, **(settings or {})}
        config = folder / "settings.toml"
        config.write_text(_toml({**sections, "worker": {"metrics_port": port, **sections["worker"]}}))
        with running(folder / "data", "--config", str(config), *options):
            yield Machine(folder, port)


@contextmanager
def sending(
    settings: Settings,
    events: Sequence[Event],
    per_second: float | None = None,
    before_each: Callable[[Event], object] = lambda _: None,
) -> Iterator[None]:
    """Events on their way to Kafka, from a thread, at most so many a second; all of them are there in the end."""
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(_send, settings, events, per_second, before_each)
        yield
        sent.result()


async def encode(settings: Settings, texts: Sequence[str], kind: TextKind = TextKind.QUERY) -> float:
    """Texts a second, through the encoding worker's socket, all in one call of its client."""
    client = EncoderClient(settings.encoder_address)
    await client.describe()
    began = time.perf_counter()
    await client.encode(texts, kind)
    seconds = time.perf_counter() - began
    await client.close()
    return len(texts) / seconds


class _Seen(NamedTuple):
    at: float  # time.perf_counter
    folded: int


def _until_folded(consumers: Sequence[Consumer], before: int, events: int) -> list[_Seen]:
    """Until the consumers together have folded in so many since they started; when that has grown from `before` on."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    seen = [_Seen(time.perf_counter(), before)]
    while seen[-1].folded < events:
        assert time.monotonic() < deadline, f"{seen[-1].folded:,} of {events:,} events were folded in"
        time.sleep(_LOOK_SECONDS)
        if (folded := _sum(consumers, "events_folded")) > seen[-1].folded:
            seen.append(_Seen(time.perf_counter(), folded))
    return seen[1:]


def _rate_between(first: _Seen, last: _Seen) -> float | None:
    return (last.folded - first.folded) / (last.at - first.at) if last.at > first.at else None


def _send(
    settings: Settings, events: Sequence[Event], per_second: float | None, before_each: Callable[[Event], object]
) -> None:
    began = time.perf_counter()
    with EventProducer(settings) as producer:
        for number, event in enumerate(events):
            if per_second is not None:
                early = began + number / per_second - time.perf_counter()
                if early > _SHORTEST_SLEEP_SECONDS:
                    time.sleep(early)
            before_each(event)
            producer.send(getattr(settings.topics, event.topic), event.user_id.encode(), event.value)


def cpu_seconds(consumers: Sequence[Consumer]) -> float:
    """CPU since they started, all together."""
    return sum(_seconds(consumer.process) for consumer in consumers)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _sum(consumers: Sequence[Consumer], figure: str) -> int:
    return sum(consumer.figure(figure) for consumer in consumers)


def _toml(sections: Mapping[str, Mapping[str, str | int]]) -> str:
    """Texts and whole numbers are written alike in JSON."""
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {orjson.dumps(value).decode()}\n" for name, value in values.items())
        for section, values in sections.items()
    )
