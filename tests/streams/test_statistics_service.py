"""`afterglow statistics` as it runs: every event is counted once, whatever becomes of the processes that count."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from machine import ENVIRONMENT, until
from qdrant_client import AsyncQdrantClient
from services import running_qdrant

from sinks.catalogue import Catalogue, Product
from sinks.collections import Generation, Model, Source
from sinks.connection import connect
from sinks.generations import serve
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.products import ProductStore
from sinks.statistics import Statistics
from sinks.statistics_store import Head, StatisticsStore
from streams.generations import statistics_group_of
from streams.kafka import connect_admin
from streams.producer import EventProducer
from streams.settings import Settings
from streams.topics import Topic, committed_offsets, end_offsets, ensure_topics

pytestmark = pytest.mark.end_to_end

IDS = PointIds(bytes(range(32)))
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
Answer = TypeVar("Answer")


class Known(NamedTuple):
    head: Head
    statistics: Statistics

    @property
    def buyers(self) -> dict[str, int]:
        return dict(zip(self.statistics.product_ids, self.statistics.buyers.astype(int).tolist(), strict=True))


@dataclass
class Deployment:
    """Topics and a Qdrant of its own, with as many processes as a test starts."""

    settings: Settings
    qdrant: str
    topics: Mapping[str, Topic]
    folder: Path
    started: int = 0

    @contextmanager
    def keeper(self) -> Iterator[subprocess.Popen[bytes]]:
        """`afterglow statistics`, killed with -9 in the end; it has to run until then."""
        self.started += 1
        with (self.folder / f"statistics-{self.started}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streams", "statistics"],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        try:
            yield process
            assert process.poll() is None, self.log()
        finally:
            process.kill()
            process.wait()

    def command(self, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "streams", *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def log(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def asked(self, question: Callable[[AsyncQdrantClient], Awaitable[Answer]]) -> Answer:
        async def ask() -> Answer:
            client = connect(self.qdrant, timeout_seconds=30)
            try:
                return await question(client)
            finally:
                await client.close()

        return asyncio.run(ask())

    def make_generation(self, name: str, *, served: bool = False) -> None:
        """As a worker makes it, of two products whose texts are alike and one that is like nothing."""
        named = {role: getattr(self.settings.topics, role) for role in ("searches", "purchases", "products")}
        sources = {
            role: Source(topic, self.topics[topic].id, [0] * self.topics[topic].partitions)
            for role, topic in named.items()
        }
        generation = Generation(name, Model("small", "abc", 4), IDS.fingerprint, {}, 1, sources)
        boots = np.array([0.8, 0.6, 0.0, 0.0], np.float32)

        async def make(client: AsyncQdrantClient) -> None:
            await open_generation(client, generation, serve=False)
            products = ProductStore(client, Catalogue(client, f"products--{name}", IDS, cached=0), IDS)
            vectors = {"boots": boots, "shoes": boots[[1, 0, 2, 3]], "tin": np.eye(4, dtype=np.float32)[3]}
            await products.write(
                [Product(one, title=one, vector=vector, available=one != "tin") for one, vector in vectors.items()]
            )
            if served:
                await serve(client, name)

        self.asked(make)

    def known(self, generation: str = "main") -> Known | None:
        async def read(client: AsyncQdrantClient) -> Known | None:
            store = StatisticsStore(client, generation)
            stored = await store.head()
            statistics = None if stored is None else await store.statistics(stored.head)
            return None if stored is None or statistics is None else Known(stored.head, statistics)

        return self.asked(read)

    def after(self, events: int, generation: str = "main") -> Known:
        """What is known when so many events have been counted."""
        found: list[Known] = []

        def come() -> bool:
            known = self.known(generation)
            if known is not None:
                assert known.head.events <= events, f"{known.head.events} of {events}: some were counted twice"
                found[:] = [known]
            return known is not None and known.head.events == events

        until(come, 90, "not all events were counted")
        return found[0]

    def buy(self, users: Iterable[int], *product_ids: str, days_ago: int = 3) -> None:
        """One order of each user. Sent, and acknowledged by Kafka."""
        with EventProducer(self.settings) as events:
            for user in users:
                for product_id in product_ids:
                    events.purchase(f"user-{user}", product_id, order_id=f"o{days_ago}", ts=NOW - days_ago * DAY)

    def _environment(self) -> dict[str, str]:
        names = ("searches", "purchases", "products", "dead_letters")
        return {
            **ENVIRONMENT,
            **{f"AFTERGLOW_TOPICS_{name.upper()}": getattr(self.settings.topics, name) for name in names},
            "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka.bootstrap_servers,
            "AFTERGLOW_QDRANT_ADDRESS": self.qdrant,
            "AFTERGLOW_SECRET_FILE": str(self.folder / "secret"),
            "AFTERGLOW_DATA_DIR": str(self.folder),
        }


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path) -> Iterator[Deployment]:
    (tmp_path / "secret").write_text(bytes(range(32)).hex())
    (tmp_path / "qdrant").mkdir()
    with running_qdrant(tmp_path / "qdrant") as address:
        made = Deployment(settings, address, ensure_topics(settings), tmp_path)
        made.make_generation("main", served=True)
        yield made


def test_what_was_bought_is_known_and_every_offset_is_told(deployment: Deployment) -> None:
    deployment.buy(range(30), "boots", "shoes")
    deployment.buy(range(10), "tin", "boots", days_ago=1)
    with EventProducer(deployment.settings) as events:
        events.search("user-1", "cake", clicked_product_id="tin")
    with deployment.keeper():
        known = deployment.after(30 * 2 + 10 * 2 + 1)
        until(lambda: (known := deployment.known()) is not None and known.head.lists > 0, 30, "no lists were made")
        known = deployment.after(30 * 2 + 10 * 2 + 1)
    assert known.buyers == {"boots": 30, "shoes": 30, "tin": 10}
    assert (known.head.lists, known.head.covered) == (30, 2), "the tin can't be had"
    rows = known.statistics.rows
    assert known.statistics.repeats[rows["boots"]] == 10
    assert known.statistics.clicked[rows["tin"]] > 0
    assert known.head.users == 30
    ends = end_offsets(connect_admin(deployment.settings.kafka), deployment.topics)
    searches, purchases = deployment.settings.topics.searches, deployment.settings.topics.purchases
    assert known.head.offsets == {
        deployment.topics[name].id: {name: [ends[name, partition] for partition in range(8)]}
        for name in (searches, purchases, deployment.settings.topics.products)
    }


def test_a_new_product_is_near_what_its_event_relates_it_to(deployment: Deployment) -> None:
    deployment.buy(range(20), "boots")
    with deployment.keeper():
        deployment.after(20)
        with EventProducer(deployment.settings) as events:
            events.product("laces", "Laces", related=["boots", "unheard-of"])

        def near() -> dict[str, str]:
            known = deployment.known()
            assert known is not None
            assert known.head.events == 20
            ids, (rows, similarity) = known.statistics.product_ids, known.statistics.related
            return {ids[row]: ids[rows[row, 0]] for row in range(len(rows)) if similarity[row].any()}

        until(lambda: near() == {"boots": "laces", "laces": "boots"}, 30, "its relation isn't known")
    with deployment.keeper(), EventProducer(deployment.settings) as events:
        events.delete_product("laces")
        until(lambda: near() == {}, 30, "it is deleted, and still related")


def test_killed_at_any_moment_it_goes_on_with_what_was_written(deployment: Deployment) -> None:
    events = 0
    for round_ in range(4):
        with deployment.keeper():
            deployment.buy(range(round_ * 20, round_ * 20 + 20), "boots", "shoes")
            events += 40
            deployment.after(events)
            deployment.buy(range(10), "tin", days_ago=2)  # read, and maybe not yet written
            events += 10
            time.sleep(0.3 * round_)
    with deployment.keeper():
        known = deployment.after(events)
    assert known.buyers == {"boots": 80, "shoes": 80, "tin": 10}


def test_likeness_is_known_after_a_restart(deployment: Deployment) -> None:
    deployment.buy(range(30), "boots", "shoes", "tin")

    def alike(known: Known) -> tuple[float, float]:
        rows = known.statistics.rows
        near = known.statistics.alike.around(np.array([rows["boots"]]))
        return round(float(near[rows["shoes"]]), 3), float(near[rows["tin"]])

    with deployment.keeper():
        assert alike(deployment.after(90)) == (0.849, 0.0)  # .96⁴
    with deployment.keeper():
        deployment.buy([1], "boots", days_ago=2)
        assert alike(deployment.after(91)) == (0.849, 0.0)


def test_of_two_at_once_one_wins_and_nothing_is_counted_twice(deployment: Deployment) -> None:
    with deployment.keeper(), deployment.keeper():
        for day in range(6):
            deployment.buy(range(day * 5, day * 5 + 20), "boots", days_ago=10 - day)
            time.sleep(0.7)
        known = deployment.after(120)
    assert known.buyers == {"boots": 45}


def test_made_anew_they_are_the_same_again(deployment: Deployment) -> None:
    deployment.buy(range(30), "boots", "shoes")
    deployment.buy(range(30), "boots", days_ago=1)
    with deployment.keeper():
        before = deployment.after(90)
        deployment.command("derive", "--statistics")
        until(lambda: deployment.log().count("event=statistics_running") == 2, 60)
        again = deployment.after(90)
    assert again.head.now.stamp != before.head.now.stamp
    assert (again.buyers, again.head.offsets) == (before.buyers, before.head.offsets)
    assert again.statistics.repeats.tolist() == before.statistics.repeats.tolist()


def test_a_poison_event_and_a_search_without_a_click_are_passed_over_and_waited_for(deployment: Deployment) -> None:
    group = statistics_group_of("main")
    counted = {name: topic for name, topic in deployment.topics.items() if name.startswith(("searches", "purchases"))}

    def everything_is_known() -> bool:
        ends = end_offsets(connect_admin(deployment.settings.kafka), counted)
        told = committed_offsets(deployment.settings.kafka, group, counted)
        return {at: told.get(at, 0) for at in ends} == ends

    with deployment.keeper():
        deployment.buy([1, 2, 3], "boots")
        with EventProducer(deployment.settings) as events:
            for number in range(8):
                events.send(deployment.settings.topics.purchases, f"user-{number}".encode(), b"\xff{")
        deployment.buy([4, 5], "boots")
        assert deployment.after(5).buyers == {"boots": 5}
        until(everything_is_known, 30, "the poison holds them up")
        with EventProducer(deployment.settings) as events:
            events.search("user-1", "walking boots")
        until(everything_is_known, 30, "a search without a click holds up whoever waits for it")


def test_a_topic_made_anew_is_read_from_its_beginning(deployment: Deployment) -> None:
    deployment.buy(range(20), "boots")
    admin = connect_admin(deployment.settings.kafka)
    with deployment.keeper():
        deployment.after(20)
        for future in admin.delete_topics([deployment.settings.topics.purchases]).values():
            future.result()
        time.sleep(1.0)
        ensure_topics(deployment.settings)
        deployment.buy(range(30), "tin")
        assert deployment.after(50).buyers == {"boots": 20, "tin": 30}


def test_a_generation_that_takes_over_goes_on_with_the_statistics_of_the_one_before(deployment: Deployment) -> None:
    deployment.buy(range(20), "boots", "shoes")
    with deployment.keeper():
        deployment.after(40)
        purchases = deployment.settings.topics.purchases
        admin = connect_admin(deployment.settings.kafka)
        ends = end_offsets(admin, {purchases: deployment.topics[purchases]})
        # What Kafka has no longer, only the checkpoint knows.
        for future in admin.delete_records([KafkaPartition(*at, offset) for at, offset in ends.items()]).values():
            future.result()
        deployment.make_generation("g2", served=True)
        deployment.buy(range(10, 25), "tin", days_ago=1)
        known = deployment.after(55, "g2")
    assert known.buyers == {"boots": 20, "shoes": 20, "tin": 15}
