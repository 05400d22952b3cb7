"""Profiles and recommendations read back from a Qdrant over its own protocol, derived at the time of asking."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest
from qdrant_client import models

import sinks.retrieval.serving
from encoders.protocol import TextKind
from encoders.testing import WordHashEncoder
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.derivation import DerivationRules, Vector
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState, encode_state
from sinks.mean import Mean, write_mean
from sinks.opening import open_generation
from sinks.points import product_point, profile_point
from sinks.retrieval import (
    AsyncRecommender,
    MismatchedReader,
    NothingServed,
    QdrantUnreachable,
    Recommender,
    UnknownUser,
)
from sinks.spelling import Vocabulary
from sinks.vocabulary import VocabularyStore
from sinks.words import product_words
from sinks.writes import Write, new_version, write
from streams.profiles import Contribution, FoldEvent, FoldRules, fold

pytestmark = pytest.mark.end_to_end

DAY, HOUR = 86_400_000, 3_600_000
NOW = 1_700_000_000_000
SECRET = bytes(range(32))
RULES = DerivationRules(30.0 * DAY, float(HOUR), regularisation=1.0, interests=4, interest_similarity=0.4)
FOLD = FoldRules(30.0 * DAY, float(HOUR), history=3, event_id_memory=0, pending=8)
ENCODER = WordHashEncoder(64)
TITLES = {
    "boots": "leather walking boots",
    "shoes": "leather walking shoes",
    "socks": "walking socks",
    "sold": "leather walking sandals",
    "oven": "electric baking oven",
    "tin": "round baking tin",
    "mixer": "electric kitchen mixer",
    "guide": "a guide to walking boots",
}


async def encode_query(text: str, _: Model) -> Vector:
    vector: Vector = (await ENCODER.encode([text], TextKind.QUERY))[0]
    return vector


class Shop:
    """A generation of one's own, and what is written into it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.name = f"reading-{uuid.uuid4().hex[:8]}"
        self.client = connect(address)
        self.ids = PointIds(SECRET)
        self.vectors: dict[str, Vector] = {}

    async def open(self) -> None:
        model = await ENCODER.describe()
        fold_settings: dict[str, object] = {"half_life_long_ms": 30 * DAY, "half_life_short_ms": HOUR}
        await open_generation(
            self.client,
            Generation(
                self.name, Model(model.name, model.identity, 64), self.ids.fingerprint, fold_settings, created_at_ms=5
            ),
        )
        vectors = await ENCODER.encode(list(TITLES.values()), TextKind.PRODUCT)
        self.vectors = dict(zip(TITLES, vectors, strict=True))
        writes = []
        for product_id, title in TITLES.items():
            id_, version = self.ids.product(product_id), new_version()
            payload = {
                "product_id": product_id,
                "title": title,
                "kind": "content" if product_id == "guide" else "product",
                "available": product_id != "sold",
            }
            writes.append(
                Write(
                    id_,
                    version,
                    None,
                    product_point(id_, version, self.vectors[product_id], payload, product_words(title)),
                )
            )
        await write(self.client, f"products--{self.name}", writes)
        await write_mean(self.client, self.name, Mean(new_version(), 8, vectors.mean(axis=0) / 2), replaces=None)

    async def store(self, user_id: str, state: ProfileState, **payload: object) -> None:
        id_, version = self.ids.user(user_id), new_version()
        total = state.purchases.long
        long = None if total is None else total.astype(np.float32)
        fields = {"state": encode_state(state), "known": 0.5, **payload}
        point = profile_point(id_, version, long, None, None, fields)  # type: ignore[arg-type]
        await write(self.client, f"profiles--{self.name}", [Write(id_, version, None, point)])

    def bought(self, *orders: str, at: int = NOW) -> Ledger:
        """One purchase a day, the newest at `at`."""
        ledger = Ledger()
        newest = len(orders) - 1
        events = [
            FoldEvent(n, at - (newest - n) * DAY, n + 1, 0, (Contribution(f"p{one}", 4.0, self.vectors.get(one)),))
            for n, one in enumerate(orders)
        ]
        fold(ledger, "purchases", 3, events, FOLD)
        return ledger

    async def searched(self, query: str, at: int = NOW) -> Ledger:
        ledger = Ledger()
        (vector,) = await ENCODER.encode([query], TextKind.QUERY)
        event = FoldEvent(0, at, 1, 0, (Contribution(f"q{query}", 1.0, vector),))
        fold(ledger, "searches", 3, [event], FOLD)
        return ledger

    def reader(self, **options: object) -> AsyncRecommender:
        given: dict[str, object] = {"generation": self.name, "encode_query": encode_query, **options}
        return AsyncRecommender(self.address, SECRET, RULES, **given)  # type: ignore[arg-type]


@pytest.fixture
async def shop(qdrant: str) -> AsyncIterator[Shop]:
    shop = Shop(qdrant)
    await shop.open()
    await shop.store("walker", ProfileState(Ledger(), shop.bought("boots")))
    await shop.store("baker", ProfileState(Ledger(), shop.bought("tin", "oven")))
    yield shop
    await shop.client.close()


async def test_a_list_is_derived_from_the_stored_state_with_its_reasons(shop: Shop) -> None:
    async with shop.reader() as reader:
        found = await reader.recommend("walker", limit=3, at=NOW + HOUR)
    assert [item.product_id for item in found.items] == ["boots", "shoes", "guide"]
    assert [item.title for item in found.items][:2] == ["leather walking boots", "leather walking shoes"]
    assert (found.at, found.note) == (NOW + HOUR, None)
    assert 0.7 < found.known < 0.8  # 4 / (4 + 1), an hour old
    shoes = found.items[1]
    assert {reason.kind for reason in shoes.because} == {"interest", "recent"}
    assert sum(reason.share for reason in shoes.because) == pytest.approx(1.0)
    assert shoes.because[0].texts == ("leather walking boots",)


async def test_a_list_can_be_restricted(shop: Shop) -> None:
    async with shop.reader() as reader:
        new = await reader.recommend("walker", limit=2, at=NOW, new_only=True)
        content = await reader.recommend("walker", at=NOW, kind="content")
        asked = await reader.recommend("walker", limit=2, at=NOW, query="electric oven")
    assert [item.product_id for item in new.items] == ["shoes", "guide"]
    assert [item.product_id for item in content.items] == ["guide"]
    assert [item.product_id for item in asked.items] == ["oven", "mixer"]
    assert asked.items[0].because[0].kind == "query"


async def test_new_products_are_found_beyond_what_was_bought(shop: Shop) -> None:
    """All that lies nearest was bought: the one product that was not is still recommended."""
    await shop.store("collector", ProfileState(Ledger(), shop.bought("boots", "shoes", "guide")))
    async with shop.reader(exclude_bought=True) as reader:
        found = await reader.recommend("collector", limit=1, at=NOW)
    assert [item.product_id for item in found.items] == ["socks"]


async def test_what_is_near_a_query_is_looked_for_beyond_what_was_bought(shop: Shop) -> None:
    await shop.store("collector", ProfileState(Ledger(), shop.bought("boots", "shoes", "guide")))
    async with shop.reader(exclude_bought=True) as reader:
        found = await reader.recommend("collector", limit=1, at=NOW, query="leather walking boots")
    assert [item.product_id for item in found.items] == ["socks"]


async def test_users_without_a_profile_are_unknown(shop: Shop) -> None:
    async with shop.reader() as reader:
        with pytest.raises(UnknownUser, match="there is no profile of user 'nobody'"):
            await reader.recommend("nobody")
        with pytest.raises(UnknownUser, match="'nobody'"):
            await reader.profile("nobody")
        with pytest.raises(UnknownUser, match="'nobody'"):
            await reader.similar("nobody")


async def test_many_users_get_their_lists_in_order(shop: Shop) -> None:
    asked = ["baker", "nobody", "walker", "baker"]
    async with shop.reader() as reader:
        found = await reader.recommend_many(asked, limit=2, at=NOW)
    assert [one.user_id for one in found] == asked
    assert [[item.product_id for item in one.items] for one in found] == [
        ["oven", "tin"],
        [],
        ["boots", "shoes"],
        ["oven", "tin"],
    ]
    assert (found[1].known, found[1].note) == (0.0, "there is no profile of this user")


async def test_lists_for_a_crowd_are_those_for_one(shop: Shop) -> None:
    """From a snapshot of the catalogue in memory, instead of asking Qdrant what is near."""
    crowd = ["walker", "baker"] * 150
    async with shop.reader() as reader:
        for restriction in ({}, {"kind": "product"}, {"new_only": True}, {"query": "electric"}):
            lists = await reader.recommend_many(crowd, limit=3, at=NOW, **restriction)  # type: ignore[arg-type]
            for user, found in zip(crowd[-2:], lists[-2:], strict=True):
                alone = await reader.recommend(user, limit=3, at=NOW, **restriction)  # type: ignore[arg-type]
                assert [item.product_id for item in found.items] == [item.product_id for item in alone.items]
                np.testing.assert_allclose(
                    [item.score for item in found.items], [item.score for item in alone.items], atol=1e-4
                )


async def test_a_time_before_the_newest_event_is_answered_as_of_that_event_and_says_so(shop: Shop) -> None:
    async with shop.reader() as reader:
        found = await reader.recommend("walker", at=NOW - 5 * DAY)
        profile = await reader.profile("walker", at=NOW - 5 * DAY)
    assert found.at == profile.at == NOW
    note = "the user's newest event is of 2023-11-14T22:13:20+00:00; events aren't undone, so this is as of then"
    assert found.note == profile.note == note


async def test_a_profile_that_is_years_old_still_recommends_and_says_as_of_when(shop: Shop) -> None:
    async with shop.reader() as reader:
        found = await reader.recommend("walker", limit=2, at=NOW + 4000 * DAY)
    assert [item.product_id for item in found.items] == ["boots", "shoes"]
    assert found.at == NOW
    assert (
        found.note
        == "everything has faded since the user's newest event; this is as of then, 2023-11-14T22:13:20+00:00"
    )


async def test_a_profile_explains_itself(shop: Shop) -> None:
    searches = await shop.searched("leather shoes")
    purchases = shop.bought("tin", "oven", "boots", "shoes", "unheard-of")  # a history of 3 keys
    stored = [{"product_id": "socks", "title": "walking socks", "score": -4.5, "because": []}]
    await shop.store(
        "ada", ProfileState(searches, purchases), candidates=stored, made_at=NOW + 1, made_from=[1.0, 2.0], due=NOW + 2
    )
    async with shop.reader() as reader:
        profile = await reader.profile("ada", at=NOW)
    assert profile.generation == shop.name
    assert profile.point_id == shop.ids.user("ada")
    assert (profile.n_searches, profile.n_purchases) == (1, 5)
    assert (profile.last_search_ts, profile.last_purchase_ts) == (NOW, NOW)
    assert [(key.kind, key.id, key.text, key.times) for key in profile.keys] == [
        ("product", "unheard-of", "unheard-of", 1),
        ("product", "shoes", "leather walking shoes", 1),
        ("product", "boots", "leather walking boots", 1),
        ("query", "leather shoes", "leather shoes", 1),
    ]
    assert sum(key.share for key in profile.keys) + profile.evicted == pytest.approx(1.0)
    assert profile.evicted == pytest.approx(7.4 / 20.1, abs=0.01)  # two of five purchases, and a search beside
    assert profile.pending == ("unheard-of",)
    assert profile.interests[0].texts[0] == "leather walking shoes"
    assert sum(interest.share for interest in profile.interests) < 1.0
    assert profile.candidates == stored
    assert (profile.made_at, profile.due) == (NOW + 1, NOW + 2)


async def test_products_are_found_by_a_text(shop: Shop) -> None:
    async with shop.reader() as reader:
        found, read_as = await reader.search("walking boots", limit=2)
        (only,), _ = await reader.search("walking boots", kind="content")
    assert read_as is None
    assert [product.product_id for product in found] == ["boots", "guide"]
    assert 1.0 > found[0].similarity > found[1].similarity > 0.0
    assert (only.product_id, only.kind) == ("guide", "content")


async def test_a_misspelt_text_finds_what_the_right_one_finds_and_the_answer_says_what_was_read(shop: Shop) -> None:
    store = VocabularyStore(shop.client, shop.name)
    assert await store.write(Vocabulary.of(TITLES.values()), len(TITLES), replaces=None)
    async with shop.reader() as reader:
        found = await reader.search("roundd bakng tni", limit=1)
        listed = await reader.recommend("walker", query="roundd bakng tni", limit=1)
        (stranger,) = await reader.recommend_many(["stranger"], query="roundd bakng tni", limit=1)
        unrestricted = await reader.recommend("walker", limit=1, at=NOW)
    assert [product.product_id for product in found.items] == ["tin"]
    assert [item.product_id for item in listed.items] == ["tin"]
    assert {found.read_as, listed.read_as, stranger.read_as} == {"round baking tni"}, "three letters stay"
    assert unrestricted.read_as is None


async def test_similar_users_are_found_and_stay_pseudonyms(shop: Shop) -> None:
    interests = [{"share": 1.0, "texts": ["walking socks"]}]
    await shop.store("hiker", ProfileState(Ledger(), shop.bought("shoes", "boots")), interests=interests)
    async with shop.reader() as reader:
        found = await reader.similar("walker")
    assert [user.point_id for user in found] == [shop.ids.user("hiker"), shop.ids.user("baker")]
    assert found[0].similarity > 0.7 > found[1].similarity
    assert found[0].interests == ((1.0, ("walking socks",)),)


async def test_profiles_are_read_by_the_half_lives_they_were_folded_with(shop: Shop) -> None:
    other = DerivationRules(1.0 * DAY, 60_000.0, regularisation=1.0, interests=4, interest_similarity=0.4)
    async with AsyncRecommender(shop.address, SECRET, other, generation=shop.name) as reader:
        profile = await reader.profile("walker", at=NOW + 30 * DAY)
    assert profile.known == pytest.approx(2.0 / 3.0, abs=1e-3)


async def test_what_does_not_fit_is_refused_by_name(shop: Shop) -> None:
    async with AsyncRecommender(shop.address, b"another secret, as long", RULES, generation=shop.name) as reader:
        with pytest.raises(MismatchedReader, match=r"made with the secret of fingerprint .* nobody would be found"):
            await reader.recommend("walker")

    async def other_model(_: str, __: Model) -> Vector:
        return np.ones(3, np.float32)

    async with shop.reader(encode_query=other_model) as reader:
        with pytest.raises(MismatchedReader, match=r"has shape \(3,\), and the profiles are of word-hash"):
            await reader.search("boots")
    async with shop.reader(encode_query=None) as reader:
        with pytest.raises(ValueError, match="needs a Recommender with `encode_query`"):
            await reader.recommend("walker", query="boots")


async def test_a_qdrant_that_is_away_or_empty_is_told(shop: Shop) -> None:
    async with shop.reader(generation="never-made") as reader:
        with pytest.raises(NothingServed, match="has no generation 'never-made'"):
            await reader.recommend("walker")
    async with AsyncRecommender("127.0.0.1:1", SECRET, RULES, attempts=1) as reader:
        with pytest.raises(QdrantUnreachable, match=r"Qdrant at 127\.0\.0\.1:1 can't be reached"):
            await reader.recommend("walker")


async def test_aliases_are_followed_when_they_are_repointed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(name: str) -> None:
        create = models.CreateAlias(collection_name=f"profiles--{name}", alias_name="profiles")
        await shop.client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])

    newer = Shop(shop.address)
    await newer.open()
    await newer.store("newcomer", ProfileState(Ledger(), newer.bought("tin")))
    await serve(shop.name)
    async with shop.reader(generation=None) as reader:
        assert (await reader.generation()).name == shop.name
        await serve(newer.name)
        assert (await reader.generation()).name == shop.name, "for a while"
        monkeypatch.setattr(sinks.retrieval.serving, "SERVING_SECONDS", -1.0)
        found = await reader.recommend("newcomer", limit=1, at=NOW)
    assert [item.product_id for item in found.items] == ["tin"]
    await newer.client.close()


async def test_code_without_asyncio_gets_the_same_even_inside_a_running_loop(shop: Shop) -> None:
    with Recommender(shop.address, SECRET, RULES, generation=shop.name, encode_query=encode_query) as reader:
        one = reader.recommend("walker", limit=2, at=NOW)
        assert [item.product_id for item in one.items] == ["boots", "shoes"]
        assert reader.recommend_many(["walker"], limit=2, at=NOW) == [one]
        assert reader.profile("walker", at=NOW).n_purchases == 1
        assert reader.search("baking tin", limit=1).items[0].product_id == "tin"
        assert reader.similar("walker")[0].point_id == shop.ids.user("baker")
        assert reader.generation().name == shop.name
        with pytest.raises(UnknownUser):
            reader.recommend("nobody")
    reader.close()
