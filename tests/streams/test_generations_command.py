"""`afterglow generations`: what it lists, what it lets readers see, what it refuses to, and what it deletes."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from machine import until
from qdrant_client import AsyncQdrantClient
from services import running_qdrant

from sinks.collections import Built, Generation, Model, Source, read_generation
from sinks.connection import connect
from sinks.generations import serve, served_generation
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.points import product_point, profile_point
from sinks.writes import Write, new_version, write
from streams.commands import main
from streams.groups import REPLAY, set_offsets
from streams.inventory import Reached, reached
from streams.kafka import connect_admin
from streams.rules import recorded_fold
from streams.settings import Settings, load
from streams.succession import CatchingUp, NobodyCame, catch_up
from streams.topics import committed_offsets, describe, ensure_topics

pytestmark = pytest.mark.end_to_end

SECRET = bytes(range(32))
IDS = PointIds(SECRET)
X = np.eye(4, dtype=np.float32)[0]
MADE = 1_700_000_000_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def own_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_qdrant(Path(tmp_path_factory.mktemp("qdrant"))) as address:
        yield address


class Shop:
    """Topics, generations and groups that nobody else has; and readers, who are everybody's in this file."""

    def __init__(self, kafka: str, qdrant: str, directory: Path) -> None:
        own = uuid.uuid4().hex[:8]
        self.qdrant = qdrant
        self.environment = {
            "AFTERGLOW_DATA_DIR": str(directory),
            "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "AFTERGLOW_QDRANT_ADDRESS": qdrant,
            "AFTERGLOW_TOPICS_SEARCHES": f"searches-{own}",
            "AFTERGLOW_TOPICS_PURCHASES": f"purchases-{own}",
            "AFTERGLOW_TOPICS_PRODUCTS": f"products-{own}",
            "AFTERGLOW_TOPICS_DEAD_LETTERS": f"dead-letters-{own}",
            "AFTERGLOW_TOPICS_PARTITIONS": "2",
        }
        (directory / "secret").write_text(SECRET.hex())
        self.settings: Settings = load(environment=self.environment)
        self.names = [f"{own}-{letter}" for letter in "abc"]
        self.topics = ensure_topics(self.settings)
        producer = Producer({"bootstrap.servers": kafka})
        for n in range(10):
            producer.produce(self.settings.topics.searches, b"{}", partition=n % 2)
            producer.produce(self.settings.topics.purchases, b"{}", partition=0)
        producer.flush()

    def sources(self, *, searches: Sequence[int] = (0, 0)) -> dict[str, Source]:
        topics = self.settings.topics
        starts = {"searches": list(searches), "purchases": [0, 0], "products": [0, 0]}
        return {
            role: Source(name := getattr(topics, role), self.topics[name].id, start) for role, start in starts.items()
        }

    def make(self, name: str, *, users: int = 0, serve_it: bool = False, **fields: Any) -> None:
        fold = {**recorded_fold(self.settings.profiles), **fields.pop("fold", {})}
        record: dict[str, Any] = {
            "created_at_ms": MADE,
            "secret_fingerprint": IDS.fingerprint,
            "sources": self.sources(),
            **fields,
        }
        self.ask(
            lambda client: self._make(client, Generation(name, Model("small", "abc", 4), fold=fold, **record), users)
        )
        if serve_it:
            self.ask(lambda client: serve(client, name))

    async def _make(self, client: AsyncQdrantClient, generation: Generation, users: int) -> None:
        await open_generation(client, generation, serve=False)
        writes = []
        for n in range(users):
            id_, version = IDS.user(f"user-{n}"), new_version()
            writes.append(Write(id_, version, None, profile_point(id_, version, X, None, None, {})))
        if writes:
            await write(client, f"profiles--{generation.name}", writes)
        id_, version = IDS.product("tent"), new_version()
        point = product_point(id_, version, X, {"product_id": "tent", "available": True})
        await write(client, f"products--{generation.name}", [Write(id_, version, None, point)])

    def ask(self, asking: Callable[[AsyncQdrantClient], Any]) -> Any:
        async def ask() -> Any:
            client = connect(self.qdrant, timeout_seconds=30)
            try:
                return await asking(client)
            finally:
                await client.close()

        return asyncio.run(ask())

    def served(self) -> str | None:
        name: str | None = self.ask(served_generation)
        return name

    def has(self, name: str) -> bool:
        there: bool = self.ask(lambda client: client.collection_exists(f"profiles--{name}"))
        return there

    def commit(self, name: str, offsets: dict[tuple[str, int], int]) -> None:
        set_offsets(self.settings.kafka, f"afterglow-{name}", offsets)

    def committed(self, name: str) -> dict[tuple[str, int], int]:
        topics = describe(connect_admin(self.settings.kafka), [self.settings.topics.searches])
        return committed_offsets(self.settings.kafka, f"afterglow-{name}", topics)

    @contextmanager
    def member(self, name: str) -> Iterator[None]:
        """Somebody in the generation's group, as a replay is."""
        config = {
            "bootstrap.servers": self.settings.kafka.bootstrap_servers,
            "group.id": f"afterglow-{name}",
            "partition.assignment.strategy": REPLAY,
            "enable.auto.commit": False,
        }
        with closing(Consumer(config)) as consumer:
            consumer.subscribe([self.settings.topics.products])

            def joined() -> bool:
                consumer.poll(0.1)
                return bool(consumer.assignment())

            until(joined, 60)
            yield


@pytest.fixture
def shop(kafka: str, own_qdrant: str, tmp_path: Path) -> Shop:
    return Shop(kafka, own_qdrant, tmp_path)


@pytest.fixture
def afterglow(shop: Shop, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capfdbinary.readouterr()
        return int(exit_.value.code or 0), out.decode(), " ".join(err.decode().split())

    return run


def listed(document: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(document)["generations"]}


def test_it_lists_every_generation_and_what_is_different_about_it(shop: Shop, afterglow: Run) -> None:
    live, building, built = shop.names
    shop.make(live, users=3, serve_it=True)
    shop.commit(live, {(shop.settings.topics.purchases, 0): 7})
    shop.make(
        building,
        replayed=True,
        fold={"half_life_long_ms": 14 * 86_400_000, "weight_click": 3.0},
        created_at_ms=MADE + 1,
    )
    shop.make(
        built,
        users=1,
        replayed=True,
        built=Built(MADE + 9, {}),
        from_ms=MADE - 5,
        sources=shop.sources(searches=[4, 5]),
        created_at_ms=MADE + 2,
    )
    with shop.member(building):
        code, out, err = afterglow("generations", "--json")
    assert (code, err) == (0, "")
    found = listed(out)
    assert [one for one in found if one in shop.names] == [live, building, built]
    assert found[live] == {
        "name": live,
        "served": True,
        "model": "small",
        "model_identity": "abc",
        "created_at": MADE,
        "replayed": False,
        "built_at": None,
        "from_ms": None,
        "profiles": 3,
        "products": 1,
        "group": f"afterglow-{live}",
        "lag": 13,  # ten searches, and three purchases
        "members": 0,
        "who": "nobody",
        "differs": {},
    }
    assert (found[building]["replayed"], found[building]["built_at"], found[building]["lag"]) == (True, None, 20)
    assert (found[building]["members"], found[building]["who"]) == (1, "replay")
    assert found[building]["differs"] == {
        "half_life_long": {"here": "14d", "served": "30d"},
        "weight_click": {"here": "3.0", "served": "2.0"},
    }
    assert (found[built]["built_at"], found[built]["from_ms"], found[built]["lag"]) == (MADE + 9, MADE - 5, 11)

    code, out, _ = afterglow("generations", "list")
    lines = {line.split()[0 if line[0] != "*" else 1]: line.split() for line in out.splitlines()}
    assert code == 0
    assert lines[live][:4] == ["*", live, "live", "small"]
    assert lines[building][:2] == [building, "building"]
    assert lines[built][:2] == [built, "replayed"]
    assert f"{building}: half_life_long = 14d ({live}: 30d)" in out


def test_readers_are_led_to_another_generation_and_back(shop: Shop, afterglow: Run) -> None:
    first, second, _ = shop.names
    shop.make(first, serve_it=True)
    shop.make(second, replayed=True, built=Built(MADE, {}))
    shop.commit(second, {(shop.settings.topics.searches, 0): 5, (shop.settings.topics.searches, 1): 5})
    code, out, _ = afterglow("generations", "activate", second)
    assert code == 0
    assert shop.served() == second
    assert out.splitlines() == [
        f"readers see generation {second} now (before: {first})",
        "it misses 10 events, and no live worker is there to catch them up: start one",
    ]
    shop.commit(first, {(shop.settings.topics.purchases, 0): 10})
    code, out, _ = afterglow("generations", "activate", first, "--json")
    assert code == 0
    assert shop.served() == first
    assert json.loads(out) == {
        "generation": first,
        "before": second,
        "missing": 10,
        "workers": False,
        "caught_up": False,
    }


def test_what_readers_must_not_see_is_refused_by_name(shop: Shop, afterglow: Run) -> None:
    first, unfinished, other = shop.names
    shop.make(first, serve_it=True)
    shop.make(unfinished, replayed=True)
    shop.make(other, secret_fingerprint="00000000")

    code, _, err = afterglow("generations", "activate", "never-made")
    assert code == 1
    assert "there is no generation 'never-made': there are" in err
    assert first in err

    code, _, err = afterglow("generations", "activate", other, "--force")
    assert code == 1
    assert "made with the secret of fingerprint 00000000" in err

    code, _, err = afterglow("generations", "activate", unfinished)
    assert code == 1
    assert "was begun by a replay that has not completed it" in err
    assert f"afterglow replay --generation {unfinished}" in err
    assert shop.served() == first

    assert afterglow("generations", "activate", unfinished, "--force")[0] == 0
    assert shop.served() == unfinished


def test_a_generation_is_dropped_with_its_groups_and_only_where_nobody_needs_it(shop: Shop, afterglow: Run) -> None:
    first, second, _ = shop.names
    shop.make(first, serve_it=True)
    shop.make(second, users=2)
    read = {(shop.settings.topics.searches, 0): 5}
    shop.commit(second, read)
    set_offsets(shop.settings.kafka, f"afterglow-{second}-statistics", read)
    admin = AdminClient({"bootstrap.servers": shop.settings.kafka.bootstrap_servers})

    def groups() -> set[str]:
        """Of the second generation."""
        return {one.group_id for one in admin.list_consumer_groups().result().valid if second in one.group_id}

    assert groups() == {f"afterglow-{second}", f"afterglow-{second}-statistics"}

    code, _, err = afterglow("generations", "drop", first, "--yes")
    assert code == 1
    assert f"readers see generation '{first}'" in err

    with shop.member(second):
        code, _, err = afterglow("generations", "drop", second, "--yes")
    assert code == 1
    assert f"the consumer group afterglow-{second} of generation '{second}' has members (there is 1 (replay))" in err

    code, _, err = afterglow("generations", "drop", second)
    assert code == 2
    assert "nobody can be asked here: give --yes" in err
    assert shop.has(second)
    assert shop.committed(second) == {(shop.settings.topics.searches, 0): 5}

    assert afterglow("generations", "drop", second, "--yes")[:2] == (0, f"generation {second} is dropped\n")
    assert not shop.has(second)
    assert shop.committed(second) == {}
    assert groups() == set()

    code, _, err = afterglow("generations", "drop", second, "--yes")
    assert code == 1
    assert f"there is no generation '{second}'" in err


def test_a_drop_that_was_cut_off_hides_no_generation_and_is_repeated(shop: Shop, afterglow: Run) -> None:
    first, second, _ = shop.names
    shop.make(first, users=1, serve_it=True)
    shop.make(second, users=2)
    shop.ask(lambda client: client.delete_collection(f"profiles--{second}"))
    code, out, err = afterglow("generations", "--json")
    assert code == 0, err
    assert {name: one["profiles"] for name, one in listed(out).items() if name in shop.names} == {first: 1, second: 0}
    assert afterglow("generations", "drop", second, "--yes")[0] == 0
    assert second not in listed(afterglow("generations", "--json")[1])


def test_without_kafka_it_lists_and_rolls_back_all_the_same_and_drops_nothing(shop: Shop, afterglow: Run) -> None:
    first, second, _ = shop.names
    shop.make(first, serve_it=True)
    shop.make(second)
    away = ("--kafka", "127.0.0.1:1")
    code, out, _ = afterglow("generations", *away, "--json", "list")
    assert code == 0
    assert (listed(out)[first]["lag"], listed(out)[first]["members"], listed(out)[first]["who"]) == (None, None, None)
    assert "127.0.0.1:1 can't be reached" in json.loads(out)["kafka"]

    code, out, _ = afterglow("generations", "activate", second, *away)
    assert code == 0
    assert "Kafka does not answer" in out
    assert shop.served() == second

    code, _, err = afterglow("generations", "drop", first, "--yes", *away)
    assert code == 1
    assert "Kafka at 127.0.0.1:1 can't be reached" in err
    assert shop.has(first)


def test_readers_do_not_wait_for_a_kafka_that_is_slow(
    shop: Shop, afterglow: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = shop.names
    shop.make(first, serve_it=True)
    shop.make(second)

    def answers_late(settings: Settings, admin: AdminClient, generation: Generation) -> Reached:
        until(lambda: shop.served() == second, 20, "readers waited for Kafka")
        return reached(settings, admin, generation)

    monkeypatch.setattr("streams.succession.reached", answers_late)
    code, out, _ = afterglow("generations", "activate", second, "--json")
    assert code == 0
    assert json.loads(out)["missing"] == 20


class Terminal(io.StringIO):
    """A person at a keyboard, who has typed this."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_asks_before_it_deletes(shop: Shop, afterglow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = shop.names
    shop.make(first, serve_it=True)
    shop.make(second)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    code, _, err = afterglow("generations", "drop", second)
    assert code == 130
    assert f"Delete all profiles and products of generation {second}, for good?" in err
    assert shop.has(second)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert afterglow("generations", "drop", second)[0] == 0
    assert not shop.has(second)


def test_catching_up_ends_with_the_last_event_though_a_transaction_s_mark_comes_after_it(shop: Shop) -> None:
    name, purchases = shop.names[0], shop.settings.topics.purchases
    shop.make(name)
    generation = shop.ask(lambda client: read_generation(client, name))
    producer = Producer(
        {"bootstrap.servers": shop.settings.kafka.bootstrap_servers, "transactional.id": f"transactions-{name}"}
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(purchases, b"{}", partition=1)
    producer.commit_transaction(60)
    searches = shop.settings.topics.searches
    shop.commit(name, {(searches, 0): 5, (searches, 1): 5, (purchases, 0): 10})
    told: list[CatchingUp] = []

    def report(now: CatchingUp) -> None:
        if not told:
            shop.commit(name, {(purchases, 1): 1})  # the one event is folded in
        told.append(now)

    assert catch_up(shop.settings, generation, report) == 2
    assert told == [CatchingUp(2, 2, 0), CatchingUp(0, 2, 0)]


def test_where_no_live_worker_comes_waiting_ends_and_says_so(shop: Shop) -> None:
    name = shop.names[0]
    shop.make(name)
    generation = shop.ask(lambda client: read_generation(client, name))
    with pytest.raises(NobodyCame, match=f"no live worker has come to the group afterglow-{name}"):
        catch_up(shop.settings, generation, patience_seconds=0.5)
