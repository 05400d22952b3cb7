"""One history: topics, a generation and workers of its own, on services that other histories use as well."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaException
from faults.customers import Customers
from faults.proxy import Fault, Kind
from faults.services import TESTS, Process, Services

from sinks.collections import products_collection, profiles_collection, statistics_collection
from sinks.identity import PointIds
from sinks.ledgers import ProfileState
from sinks.profiles import ProfileStore
from streams.dead_letters import DeadLetter, newest
from streams.generations import connected, group_of
from streams.kafka import answered, connect_admin
from streams.producer import EventProducer
from streams.settings import Settings, load
from streams.topics import committed_offsets, end_offsets, ensure_topics, first_offsets
from streams.verification.findings import Verdict
from streams.verification.verification import verify

FOLDED_SECONDS: Final = 120.0
SETTLED_SECONDS: Final = 30.0


class History:
    """`settings` lead to Qdrant past the proxy, for whoever judges; workers go through it."""

    def __init__(self, services: Services, *, seed: int = 0, name: str = "", **settings: str) -> None:
        """`settings` are the workers' own beside, by variable without its prefix: WORKER_LINGER="5ms"."""
        self.services = services
        self.name = name or f"h{uuid.uuid4().hex[:8]}"
        self._own = {
            "AFTERGLOW_GENERATION": self.name,
            **{f"AFTERGLOW_TOPICS_{topic.upper()}": f"{self.name}-{topic}" for topic in _TOPICS},
            "AFTERGLOW_TOPICS_PARTITIONS": "4",
            # Short, so that much happens in a short time.
            "AFTERGLOW_QDRANT_TIMEOUT": "2s",
            "AFTERGLOW_WORKER_SWEEP_INTERVAL": "200ms",
            "AFTERGLOW_DERIVATION_CANDIDATES_INTERVAL": "500ms",
            "AFTERGLOW_WORKER_BATCH_EVENTS": "64",
            "AFTERGLOW_WORKER_CHUNK_USERS": "4",
            **{f"AFTERGLOW_{variable}": value for variable, value in settings.items()},
        }
        self.settings = self.settings_of()
        self.customers = Customers(seed, self.settings.topics)
        self.workers: list[Process] = []
        self._producer: EventProducer | None = None
        ensure_topics(self.settings)

    def settings_of(self, **others: str) -> Settings:
        """The history's settings, some of them changed; past the proxy, and patient."""
        environment = {
            **self.services.environment,
            **self._own,
            "AFTERGLOW_QDRANT_ADDRESS": self.services.qdrant_address,
            "AFTERGLOW_QDRANT_TIMEOUT": "30s",
            **{f"AFTERGLOW_{variable}": value for variable, value in others.items()},
        }
        return load(environment=environment)

    @property
    def producer(self) -> EventProducer:
        if self._producer is None:
            self._producer = EventProducer(self.settings)
        return self._producer

    def forget_producer(self) -> None:
        """The next events go by a new one, which knows nothing of the topics yet."""
        self._producer = None

    def worker(
        self, *, failpoint: str = "", clock_shift_seconds: int = 0, leaves_out: int = 0, **settings: str
    ) -> Process:
        """One more worker, started; it is ready a few seconds later.

        With `failpoint` ("STEP:N:SIGNAL", see `faults.failing_worker`) it gets that signal at the N-th time it comes to
        that step; with `clock_shift_seconds` its clock is wrong by so much; with `leaves_out` the so-manieth record is
        not delivered to it.
        """
        own = {
            **self.services.environment,
            **self._own,
            **{f"AFTERGLOW_{variable}": value for variable, value in settings.items()},
        }
        module = "streams"
        if failpoint or clock_shift_seconds or leaves_out:
            module = "faults.failing_worker"
            own["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
            own["TEST_FAILPOINT"] = failpoint
            own["TEST_CLOCK_SHIFT_SECONDS"] = str(clock_shift_seconds)
            own["TEST_LEAVES_OUT"] = str(leaves_out)
        name = f"{self.name}-worker-{len(self.workers) + 1}"
        process = Process(
            name,
            lambda: [sys.executable, "-P", "-m", module, "worker"],
            log=self.services.folder / f"{name}.log",
            environment=lambda: own,
        )
        process.start()
        self.workers.append(process)
        return process

    @property
    def fault(self) -> Fault | None:
        """What goes wrong between this history's workers and Qdrant."""
        return self.services.proxy.faults.get(self.name)

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        if fault is None:
            self.services.proxy.faults.pop(self.name, None)
        else:
            self.services.proxy.faults[self.name] = fault

    @property
    def hits(self) -> dict[Kind, int]:
        """How many calls each kind of fault has hit."""
        return {kind: self.services.proxy.hits[self.name, kind] for kind in Kind}

    def shop(self, number: int, **shares: float) -> None:
        """Searches and purchases, acknowledged by Kafka."""
        self.customers.shop(self.producer, number, **shares)
        self.producer.flush()

    def announce(self, share: float = 1.0) -> None:
        """Products, acknowledged by Kafka."""
        self.customers.announce(self.producer, share)
        self.producer.flush()

    def revise(self, number: int) -> None:
        self.customers.revise(self.producer, number)
        self.producer.flush()

    def lag(self) -> int:
        """How many records are not committed by the group yet, products included."""
        return sum(self.lags().values())

    def lags(self) -> dict[tuple[str, int], int]:
        admin, kafka = connect_admin(self.settings.kafka), self.settings.kafka
        topics = {name: topic for name, topic in ensure_topics(self.settings).items() if "dead" not in name}
        group = group_of(self.name)
        committed = answered(lambda: committed_offsets(kafka, group, topics), kafka)
        first = answered(lambda: first_offsets(admin, topics), kafka)
        ends = answered(lambda: end_offsets(admin, topics), kafka)
        return {at: end - committed.get(at, first[at]) for at, end in ends.items()}

    def wait_until_folded(self, timeout_seconds: float = FOLDED_SECONDS) -> None:
        """Until everything that was produced is committed. A worker has to run all the time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                lags = self.lags()
            except KafkaException as error:
                lags = {(str(error), 0): -1}
            if not any(lags.values()):
                return
            assert any(worker.runs for worker in self.workers), f"no worker runs:\n{self.told()}"
            waiting = {at: lag for at, lag in lags.items() if lag}
            assert time.monotonic() < deadline, f"still waiting after {timeout_seconds:.0f} s: {waiting}\n{self.told()}"
            time.sleep(0.2)

    def wait_until_some_are_folded(self, number: int = 1, timeout_seconds: float = 60.0) -> None:
        """Until so many profiles are stored."""
        deadline = time.monotonic() + timeout_seconds
        while self.profiles() < number:
            assert time.monotonic() < deadline, f"fewer than {number} profiles\n{self.told()}"
            time.sleep(0.1)

    def profiles(self) -> int:
        async def count() -> int:
            client = connected(self.settings)
            try:
                found = await client.collection_exists(profiles_collection(self.name))
                return (await client.count(profiles_collection(self.name))).count if found else 0
            finally:
                await client.close()

        return asyncio.run(count())

    def verdict(self) -> Verdict:
        """The judge's, of everything."""
        return verify(self.settings)

    def assert_nothing_lost(self) -> None:
        """Everything produced is in the profiles, once, and what nobody understands is in the dead letters."""
        found = problems(self, self.verdict())
        assert found == [], "\n".join([*found, self.told()])

    def dead_letters(self) -> list[DeadLetter]:
        return newest(self.settings, 100_000)

    def states(self) -> Mapping[str, ProfileState]:
        """Every user's profile, by user."""
        ids = PointIds(bytes.fromhex(self.settings.secret_file.read_text()))
        by_point = {ids.user(user): user for user in self.customers.users}

        async def read() -> dict[str, ProfileState]:
            client = connected(self.settings)
            store = ProfileStore(client, profiles_collection(self.name), cached_bytes=0)
            try:
                return {by_point[id_]: held.decoded() for id_, held in (await store.load(list(by_point))).items()}
            finally:
                await client.close()

        return asyncio.run(read())

    def waiting_in_vain(self) -> dict[str, set[str]]:
        """Who waits for products that are known, and goes on waiting: users, and what for."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            known = self.customers.known
            waiting = {user: there for user, state in self.states().items() if (there := state.pending & known)}
            if not waiting or time.monotonic() > deadline:
                return waiting
            time.sleep(0.2)

    def told(self) -> str:
        """The end of every worker's log."""
        return "\n".join(f"--- {worker.name}\n{worker.told()}" for worker in self.workers)

    def close(self) -> None:
        """Ends the workers, and takes what the history has made out of Kafka and Qdrant again."""
        for worker in self.workers:
            worker.kill()
        admin = connect_admin(self.settings.kafka)
        for deleted in admin.delete_topics([getattr(self.settings.topics, topic) for topic in _TOPICS]).values():
            deleted.exception()
        asyncio.run(self._delete_collections())

    async def _delete_collections(self) -> None:
        client = connected(self.settings)
        try:
            for collection in (profiles_collection, products_collection, statistics_collection):
                await client.delete_collection(collection(self.name))
        finally:
            await client.close()


@contextmanager
def running_history(services: Services, *, seed: int = 0, **settings: str) -> Iterator[History]:
    history = History(services, seed=seed, **settings)
    try:
        yield history
    finally:
        history.fault = None
        history.close()


def problems(history: History, verdict: Verdict) -> list[str]:
    """What is wrong once everything should be folded: in words, nothing where all is well."""
    customers = history.customers
    found = [f"user {one.user or one.point}: {'; '.join(one.what)}" for one in verdict.differences]
    if verdict.different > len(verdict.differences):
        found.append(f"and {verdict.different - len(verdict.differences)} users more")
    if verdict.events != customers.events:
        found.append(f"{customers.events} events were produced, and {verdict.events} are in the profiles")
    if verdict.not_understood != customers.poison:
        found.append(f"{customers.poison} records were poison, and {verdict.not_understood} were not understood")
    letters = {(letter.topic, letter.partition, letter.offset) for letter in history.dead_letters()}
    if len(letters) != customers.poison + customers.produced["poisoned products"]:
        found.append(f"{len(letters)} dead letters of {customers.poison} and {customers.produced['poisoned products']}")
    found += [f"user {user} waits in vain for {products}" for user, products in history.waiting_in_vain().items()]
    return found


_TOPICS: Final = ("searches", "purchases", "products", "dead_letters")
