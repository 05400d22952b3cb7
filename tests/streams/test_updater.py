"""The updater against a real Qdrant protocol: whatever the batches, redeliveries and rivals, states are the fold."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import grpc
import numpy as np
import orjson
import pytest
from conditional_store import error

from encoders.client import TextKind
from encoders.testing import WordHashEncoder
from sinks.catalogue import Catalogue
from sinks.changes import CatalogueChanges
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.derivation import DerivationRules
from sinks.identity import PointIds
from sinks.ledgers import NOTHING, Ledger, ProfileState
from sinks.opening import open_generation
from sinks.products import ProductStore
from sinks.profiles import Held, ProfileStore
from sinks.ranking import RankingRules
from sinks.retry import PermanentWriteError
from sinks.writes import Write
from streams.batches import Weights
from streams.pipeline import first_failure
from streams.products import CatalogueUpdater
from streams.profiles import FoldRules, Rules
from streams.records import Record
from streams.turns import BatchFailed
from streams.updater import RefreshRules, Updater

pytestmark = pytest.mark.end_to_end

DIMENSION = 64
DAY = 86_400_000
NOW = 1_700_000_000_000
RULES = Rules(
    searches=FoldRules(30.0 * DAY, 3_600_000.0, history=16, event_id_memory=8, pending=64, allowance=8.0),
    purchases=FoldRules(30.0 * DAY, 3_600_000.0, history=32, event_id_memory=8, pending=64),
)
DERIVATION = DerivationRules(30.0 * DAY, 3_600_000.0, regularisation=1.0, interests=4, interest_similarity=0.4)
TITLES = {
    "boots": "leather walking boots",
    "tent": "two person tent",
    "stove": "camping gas stove",
    "oven": "electric baking oven",
    "tin": "round baking tin",
    "mixer": "kitchen stand mixer",
}


class Worker(NamedTuple):
    profiles: ProfileStore
    updater: Updater
    products: CatalogueUpdater


class Shop:
    """One generation in Qdrant, and as many workers on it as a test wants."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.client = connect(address)
        self.name = name
        self.ids = PointIds(b"a secret of at least sixteen bytes")
        self.encoder = WordHashEncoder(DIMENSION)

    async def open(self) -> None:
        model = await self.encoder.describe()
        await open_generation(
            self.client,
            Generation(self.name, Model(model.name, model.identity, DIMENSION), self.ids.fingerprint, {}, 0),
        )

    def worker(self, *, cached_bytes: int = 1_000_000, inline_users: int = 1000) -> Worker:
        profiles = ProfileStore(self.client, f"profiles--{self.name}", cached_bytes=cached_bytes)
        catalogue = Catalogue(self.client, f"products--{self.name}", self.ids, cached=100)
        products = ProductStore(self.client, catalogue, self.ids)
        updater = Updater(
            searches_topic="searches",
            profiles=profiles,
            catalogue=catalogue,
            products=products,
            encoder=self.encoder,
            ids=self.ids,
            rules=RULES,
            weights=Weights(search=1.0, click=2.0, purchase=4.0, noise_rules=1),
            derivation=DERIVATION,
            ranking=RankingRules(limit=5),
            refresh=RefreshRules(move=0.05, interval_ms=0, inline_users=inline_users),
            chunk_users=4,
            writes_in_flight=3,
            clock=lambda: NOW,
        )
        updater.mean = np.zeros(DIMENSION, np.float32)
        changes = CatalogueChanges(self.client, self.name)
        catalogue_updater = CatalogueUpdater(
            products=products,
            profiles=profiles,
            encoder=self.encoder,
            settle=updater.settle,
            changing=lambda: changes.note(NOW),
        )
        return Worker(profiles, updater, catalogue_updater)

    async def state_of(self, user: str) -> ProfileState:
        held = await ProfileStore(self.client, f"profiles--{self.name}", cached_bytes=0).load([self.ids.user(user)])
        return held[self.ids.user(user)].decoded()

    async def vector(self, title: str) -> np.ndarray:
        (vector,) = await self.encoder.encode([title], TextKind.PRODUCT)
        return vector


@pytest.fixture
async def shop(qdrant: str) -> AsyncIterator[Shop]:
    shop = Shop(qdrant, f"t{uuid.uuid4().hex[:8]}")
    await shop.open()
    yield shop
    await shop.client.close()


OFFSETS = {"searches": itertools.count(), "purchases": itertools.count(), "products": itertools.count()}


def record(topic: str, key: str, value: dict | bytes | None) -> Record:
    data = orjson.dumps(value) if isinstance(value, dict) else value
    return Record(topic, f"id-{topic}", 0, next(OFFSETS[topic]), NOW, key.encode(), data)


def purchase(user: str, product: str, ts: int = NOW, **more: object) -> Record:
    return record("purchases", user, {"user_id": user, "product_id": product, "quantity": 1, "ts": ts, **more})


def search(user: str, query: str, ts: int = NOW, **more: object) -> Record:
    return record("searches", user, {"user_id": user, "query": query, "ts": ts, **more})


def product(product_id: str, title: str, **more: object) -> Record:
    return record("products", product_id, {"product_id": product_id, "title": title, **more})


async def fold(worker: Worker, *records: Record) -> None:
    await worker.updater.apply(await worker.updater.prepare(records))


async def stock(worker: Worker, *records: Record) -> None:
    await worker.products.apply(await worker.products.prepare(records))


async def all_products(worker: Worker) -> None:
    await stock(worker, *(product(product_id, title) for product_id, title in TITLES.items()))


def same(a: Ledger, b: Ledger) -> bool:
    def close(x: np.ndarray | None, y: np.ndarray | None) -> bool:
        x = np.zeros(DIMENSION) if x is None else x
        y = np.zeros(DIMENSION) if y is None else y
        return bool(np.linalg.norm(x - y) <= 1e-5 * max(np.linalg.norm(x), 1e-30))

    return (
        (a.applied, a.events, a.keys, a.weight_long, a.evicted, a.pending, a.noise) == (
            b.applied, b.events, b.keys, b.weight_long, b.evicted, b.pending, b.noise
        )
        and a.history.tobytes() == b.history.tobytes()
        and close(a.long, b.long)
        and close(a.short, b.short)
    )  # fmt: skip


async def test_purchases_and_searches_become_a_profile_with_candidates(shop: Shop):
    worker = shop.worker()
    await all_products(worker)
    await fold(worker, purchase("ada", "boots"), search("ada", "camping tent", clicked_product_id="tent"))
    state = await shop.state_of("ada")
    assert (state.searches.events, state.purchases.events) == (1, 1)
    assert sorted(state.searches.keys) == ["ptent", "qcamping tent"]
    expected = 4.0 * await shop.vector("leather walking boots")
    np.testing.assert_allclose(state.purchases.long, expected, atol=1e-5)
    held = (await worker.profiles.load([shop.ids.user("ada")]))[shop.ids.user("ada")]
    assert {item["product_id"] for item in held.candidates.decoded()} >= {"boots", "tent", "stove"}
    assert held.due is None


@pytest.mark.parametrize("seed", range(5))
async def test_rival_workers_batches_and_redeliveries_leave_the_fold_of_the_topics(shop: Shop, seed: int):
    """Two workers get overlapping, redelivered parts of both topics, at once; each keeps a cache that goes stale."""
    chance = random.Random(seed)
    users = [f"user-{n}" for n in range(6)]
    calm, first, second = shop.worker(cached_bytes=0), shop.worker(), shop.worker()
    await all_products(calm)
    queries = [*TITLES.values(), "SummerSale_Boots_20110826"]
    events = [
        purchase(chance.choice(users), chance.choice(list(TITLES)), NOW - chance.randrange(40 * DAY), order_id="a")
        if chance.random() < 0.6
        else search(chance.choice(users), chance.choice(queries), NOW - chance.randrange(40 * DAY))
        for _ in range(80)
    ]

    async def run(worker: Worker, choice: random.Random) -> None:
        """Each topic in order from wherever this worker believes the group to be, in batches of any size."""
        for topic in ("purchases", "searches"):
            mine = [event for event in events if event.topic == topic]
            at = 0
            while at < len(mine):
                size = choice.randrange(1, 12)
                await fold(worker, *mine[max(at - choice.randrange(4), 0) : at + size])
                at += size

    await asyncio.gather(run(first, random.Random(seed + 100)), run(second, random.Random(seed + 200)))
    twin = Shop(shop.address, f"{shop.name}-calm")
    await twin.open()
    alone = twin.worker()
    await all_products(alone)
    await fold(alone, *events)
    for user in users:
        rivals, expected = await shop.state_of(user), await twin.state_of(user)
        assert same(rivals.searches, expected.searches), user
        assert same(rivals.purchases, expected.purchases), user
    await twin.client.close()
    assert first.updater.figures.writes_redone + second.updater.figures.writes_redone > 0


@pytest.mark.parametrize("seed", range(3))
async def test_batches_begun_before_the_one_before_is_stored_leave_the_fold_of_the_topics(shop: Shop, seed: int):
    """Whichever write takes long: no event of a user is folded in before an earlier one of theirs."""
    chance = random.Random(seed)
    worker = shop.worker()
    await all_products(worker)
    users = [f"user-{n}" for n in range(9)]
    events = [purchase(chance.choice(users), chance.choice(list(TITLES)), order_id="a") for _ in range(60)]
    write = worker.profiles.write

    async def slow(writes: Sequence[tuple[Write, Held]]) -> list[bool]:
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.05)))
        return await write(writes)

    worker.profiles.write = slow  # type: ignore[method-assign]
    batches = [await worker.updater.prepare(events[at : at + 4]) for at in range(0, len(events), 4)]
    async with asyncio.TaskGroup() as tasks:
        for batch in batches:
            tasks.create_task(worker.updater.apply(batch))
    twin = Shop(shop.address, f"{shop.name}-in-turn")
    await twin.open()
    alone = twin.worker()
    await all_products(alone)
    await fold(alone, *events)
    for user in users:
        assert same((await shop.state_of(user)).purchases, (await twin.state_of(user)).purchases), user
    await twin.client.close()


async def test_nothing_of_a_user_is_folded_in_after_a_batch_of_theirs_failed(shop: Shop):
    worker = shop.worker()
    first, second = [await worker.updater.prepare([purchase(user, "tent")]) for user in ("amy", "amy")]
    write, failed = worker.profiles.write, asyncio.Event()

    async def refused(writes: Sequence[tuple[Write, Held]]) -> list[bool]:
        worker.profiles.write = write  # type: ignore[method-assign]
        await failed.wait()
        raise PermanentWriteError("profiles", "an upsert", error(grpc.StatusCode.INVALID_ARGUMENT, "for good"), "")

    worker.profiles.write = refused  # type: ignore[method-assign]
    both = [asyncio.ensure_future(worker.updater.apply(batch)) for batch in (first, second)]
    await asyncio.sleep(0.05)
    failed.set()
    refusals = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first_failure(refusals[0]), PermanentWriteError)
    assert isinstance(first_failure(refusals[1]), BatchFailed)
    assert (await shop.state_of("amy")).purchases.events == 0
    await worker.updater.apply(second)  # what is read again begins anew
    assert (await shop.state_of("amy")).purchases.events == 1


async def test_a_purchase_of_an_unknown_product_waits_and_is_folded_in_when_the_product_comes(shop: Shop):
    worker = shop.worker()
    await fold(worker, purchase("bob", "tent"))
    assert (await shop.state_of("bob")).pending == {"tent"}
    assert await worker.profiles.waiting_for(["tent"]) == [shop.ids.user("bob")]
    await stock(worker, product("tent", "two person tent"))
    state = await shop.state_of("bob")
    assert state.pending == set()
    np.testing.assert_allclose(state.purchases.long, 4.0 * await shop.vector("two person tent"), atol=1e-5)


async def test_a_product_that_comes_between_look_up_and_write_is_found_by_the_sweep(shop: Shop):
    """Written as pending after the products agent looked for who waits: `due` makes a worker look again."""
    worker, other = shop.worker(), shop.worker()
    batch = await worker.updater.prepare([purchase("eve", "tent")])
    write = worker.profiles.write

    async def product_comes_first(writes):
        worker.profiles.write = write
        await stock(other, product("tent", "two person tent"))
        return await write(writes)

    worker.profiles.write = product_comes_first
    await worker.updater.apply(batch)
    assert (await shop.state_of("eve")).pending == {"tent"}
    due = await other.profiles.due([0], NOW, 10)
    assert due == [shop.ids.user("eve")]
    await other.updater.refresh(due)
    assert (await shop.state_of("eve")).pending == set()
    assert await other.profiles.due([0], NOW, 10) == []


async def test_whoever_waits_gets_the_product_from_a_worker_that_knows_an_older_profile_of_theirs(shop: Shop):
    """What a worker has in its cache may be from before anything was pending, when there was nothing to settle."""
    worker, other = shop.worker(), shop.worker()
    await fold(other, purchase("eve", "boots", title="leather walking boots"))
    await fold(worker, purchase("eve", "tent"))
    assert (await shop.state_of("eve")).pending == {"tent"}
    await stock(other, product("tent", "two person tent"))
    assert (await shop.state_of("eve")).pending == set()


async def test_the_sweep_does_what_a_rival_put_off(shop: Shop):
    """What a worker has in its cache may be from before anything was due."""
    worker, rival = shop.worker(), shop.worker(inline_users=0)
    await all_products(worker)
    await fold(worker, purchase("eve", "boots"))
    await fold(rival, purchase("eve", "oven"))
    due = await worker.profiles.due([0], NOW, 10)
    assert due == [shop.ids.user("eve")]
    await worker.updater.refresh(due)
    assert await worker.profiles.due([0], NOW, 10) == []


async def test_a_purchase_with_a_title_makes_the_product_known_but_not_shown(shop: Shop):
    worker = shop.worker()
    await fold(worker, purchase("cy", "kite", title="stunt kite"))
    state = await shop.state_of("cy")
    assert state.pending == set()
    np.testing.assert_allclose(state.purchases.long, 4.0 * await shop.vector("stunt kite"), atol=1e-5)
    held = await worker.profiles.load([shop.ids.user("cy")])
    assert held[shop.ids.user("cy")].candidates.decoded() == []
    await stock(worker, product("kite", "stunt kite, large"))
    catalogue = Catalogue(shop.client, f"products--{shop.name}", shop.ids, cached=0)
    known = await catalogue.get(["kite"])
    assert (known["kite"].title, known["kite"].available) == ("stunt kite, large", True)


async def test_a_title_lets_those_count_the_product_who_waited_for_it(shop: Shop):
    worker = shop.worker()
    await fold(worker, purchase("eve", "tent"))
    assert (await shop.state_of("eve")).pending == {"tent"}
    await fold(worker, purchase("ann", "tent", title="two person tent"))
    assert (await shop.state_of("eve")).pending == set()


async def test_a_title_that_is_read_again_after_a_crash_is_found_by_those_who_still_wait(shop: Shop):
    worker, next_worker = shop.worker(), shop.worker()
    await fold(worker, purchase("eve", "tent"))
    titled = purchase("ann", "tent", title="two person tent")

    async def crash(_: object) -> None:
        raise ConnectionAbortedError

    worker.updater.settle = crash
    with pytest.raises(ConnectionAbortedError):
        await fold(worker, titled)
    assert (await shop.state_of("eve")).pending == {"tent"}
    await fold(next_worker, titled)
    assert (await shop.state_of("eve")).pending == set()


async def test_what_cannot_be_understood_is_a_dead_letter_and_the_rest_is_folded(shop: Shop):
    worker = shop.worker()
    records = [
        purchase("dee", "boots"),
        record("purchases", "dee", b"{not json"),
        record("purchases", "other", {"user_id": "dee", "product_id": "boots", "quantity": 1, "ts": NOW}),
        record("searches", "dee", {"user_id": "dee", "query": "boots", "ts": 1_700_000_000}),
        purchase("dee", "tent"),
    ]
    batch = await worker.updater.prepare(records)
    assert [(letter.topic, letter.offset, letter.field) for letter in batch.dead] == [
        ("purchases", records[1].offset, "value"),
        ("purchases", records[2].offset, "key"),
        ("searches", records[3].offset, "ts"),
    ]
    await worker.updater.apply(batch)
    state = await shop.state_of("dee")
    assert (state.purchases.events, state.purchases.applied.offset) == (2, records[4].offset)


async def test_noise_weighs_nothing_its_click_counts_in_full_and_both_are_counted_once(shop: Shop):
    worker = shop.worker()
    await all_products(worker)
    noise = search("ned", "OnlineSale_Outdoor_20261120", clicked_product_id="tent")
    await fold(worker, noise, search("ned", "red kite"), search("ned", "Red  Kite"))
    await fold(shop.worker(), noise, search("ned", "1196523 1196499"))
    ledger = (await shop.state_of("ned")).searches
    assert sorted(ledger.keys) == ["ptent", "qred kite"]
    assert ledger.noise == {"campaign_code": 1, "repetition": 1, "product_numbers": 1}
    assert ledger.events == 4
    in_full = 2.0 + 1.0 + 1.0 / 1.8
    assert 2.0 ** (ledger.weight_long - ledger.newest_ts / (30.0 * DAY)) == pytest.approx(in_full)
    assert worker.updater.figures.noise == {"campaign_code": 1}
    (stored,) = [found async for found in worker.profiles.counts() if found.noise]
    assert stored.noise == ledger.noise


async def test_a_first_search_of_blanks_counts_weighs_nothing_and_stops_nobody(shop: Shop):
    worker = shop.worker()
    await fold(worker, search("eve", "   "))
    nothing = await shop.state_of("eve")
    assert (nothing.searches.events, nothing.searches.keys, nothing.searches.weight_long) == (1, [], NOTHING)
    assert not await worker.profiles.due([0], NOW, 10)

    await all_products(worker)
    await fold(worker, purchase("eve", "boots"))
    held = (await shop.worker().profiles.load([shop.ids.user("eve")]))[shop.ids.user("eve")]
    assert [item["product_id"] for item in held.candidates.decoded()] != [], "it is known what she likes by now"


async def test_an_event_in_another_partition_than_its_users_is_a_dead_letter_and_loses_nothing(shop: Shop):
    worker = shop.worker()
    await fold(worker, purchase("hal", "boots"))
    stray = purchase("hal", "tent")._replace(partition=3, offset=0)
    batch = await worker.updater.prepare([stray, purchase("hal", "stove")])
    await worker.updater.apply(batch)
    (letter,) = batch.dead
    assert (letter.partition, letter.offset, letter.field) == (3, 0, "key")
    assert "partition 3, and this user's earlier events in 0" in letter.reason
    state = await shop.state_of("hal")
    assert sorted(state.purchases.keys) == ["pboots", "pstove"]
    assert state.purchases.applied.partition == 0


async def test_a_large_batch_puts_candidates_off_and_the_sweep_makes_them(shop: Shop):
    worker = shop.worker(inline_users=0)
    await all_products(worker)
    await fold(worker, purchase("fay", "oven"))
    id_ = shop.ids.user("fay")
    held = (await worker.profiles.load([id_]))[id_]
    assert (held.made_at, held.due) == (None, NOW)
    await worker.updater.refresh(await worker.profiles.due([0], NOW, 10))
    held = (await worker.profiles.load([id_]))[id_]
    assert (held.made_at, held.due) == (NOW, None)
    assert held.candidates.decoded()[0]["product_id"] == "oven"
    assert await worker.profiles.due([0], NOW, 10) == []


async def test_events_do_not_queue_behind_what_was_put_off(shop: Shop):
    worker = shop.worker(inline_users=0)
    await all_products(worker)
    await fold(worker, *(purchase(f"user {number}", "oven") for number in range(80)))
    catching_up = asyncio.create_task(worker.updater.refresh(await worker.profiles.due([0], NOW, 100)))
    await asyncio.sleep(0)
    await fold(worker, purchase("gil", "tin"))
    written = worker.updater.figures.profiles_written
    assert written < 80 + 1 + 40
    await catching_up
    assert worker.updater.figures.profiles_written == 80 + 1 + 80


async def test_what_a_replay_puts_off_is_derived_by_the_sweep_from_the_same_ledger(shop: Shop):
    worker = shop.worker(inline_users=0)
    await all_products(worker)
    worker.updater.derives = False
    await fold(worker, purchase("ivy", "oven"), purchase("ivy", "tin", ts=NOW - DAY))
    id_ = shop.ids.user("ivy")
    bare = (await worker.profiles.load([id_]))[id_]
    assert (bare.made_at, bare.due, bare.candidates.decoded()) == (None, 0, [])
    (stored,) = await shop.client.retrieve(f"profiles--{shop.name}", [id_], with_vectors=True)
    assert stored.vector == {}

    worker.updater.derives = True
    await worker.updater.refresh(await worker.profiles.due([0], NOW, 10))
    ready = (await worker.profiles.load([id_]))[id_]
    assert (ready.made_at, ready.due, ready.state) == (NOW, None, bare.state)
    assert {item["product_id"] for item in ready.candidates.decoded()} >= {"oven", "tin"}


async def test_older_news_of_a_product_changes_nothing(shop: Shop):
    worker = shop.worker()
    old, new = product("tent", "tent"), product("tent", "better tent", price=99.0)
    await stock(worker, new)
    await stock(worker, old)
    catalogue = Catalogue(shop.client, f"products--{shop.name}", shop.ids, cached=0)
    assert (await catalogue.get(["tent"]))["tent"].title == "better tent"


async def test_a_product_is_marked_once_its_text_was_another_for_good(shop: Shop):
    worker = shop.worker()

    async def is_revised() -> bool:
        catalogue = Catalogue(shop.client, f"products--{shop.name}", shop.ids, cached=0)
        return (await catalogue.get(["tent"]))["tent"].revised

    await stock(worker, product("tent", "two person tent"))
    await stock(worker, product("tent", "two person tent", price=99.0))
    await stock(worker, record("products", "tent", None))
    await stock(worker, product("tent", "two person tent"))
    assert not await is_revised(), "another price, or gone for a while, is the same text"
    await stock(worker, product("tent", "tent for two"))
    assert await is_revised()
    await stock(worker, product("tent", "two person tent"))
    assert await is_revised(), "somebody may have bought it under the other text"
    await stock(worker, record("products", "tent", None))
    assert await is_revised()


async def test_a_product_that_a_purchase_called_otherwise_is_marked(shop: Shop):
    """But not for a text that a newer one of the same batch replaced: nobody could ever see that."""
    worker = shop.worker()
    await fold(worker, purchase("ada", "kite", title="red kite"), purchase("ada", "drum", title="snare drum"))
    await stock(worker, product("kite", "stunt kite"), product("drum", "snare drum"))
    await stock(worker, product("rug", "wool rug"), product("rug", "red wool rug"))
    catalogue = Catalogue(shop.client, f"products--{shop.name}", shop.ids, cached=0)
    found = await catalogue.get(["kite", "drum", "rug"])
    assert {id_: product.revised for id_, product in found.items()} == {"kite": True, "drum": False, "rug": False}


async def test_a_deleted_product_is_no_longer_shown_but_its_buyers_keep_their_taste(shop: Shop):
    worker = shop.worker()
    await all_products(worker)
    await fold(worker, purchase("gus", "tent"))
    await stock(worker, record("products", "tent", None))
    await fold(worker, purchase("gus", "tent", ts=NOW + 1))
    id_ = shop.ids.user("gus")
    held = (await worker.profiles.load([id_]))[id_]
    assert "tent" not in {item["product_id"] for item in held.candidates.decoded()}
    assert held.decoded().pending == set()
    np.testing.assert_allclose(held.decoded().purchases.long, 8.0 * await shop.vector("two person tent"), atol=1e-4)
