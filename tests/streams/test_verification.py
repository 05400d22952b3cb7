"""`afterglow verify` finds no difference where there is none, and every kind of damage."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import afterglow, afterglow_json, running
from msgspec.structs import replace as replace_field
from qdrant_client import models
from recomputation import judged

from sinks.collections import Generation
from sinks.connection import connect
from sinks.derivation import DerivationRules, Taste, derive
from sinks.generations import change_generation
from sinks.identity import PointIds
from sinks.ledgers import Debt, Ledger, ProfileState, add_log_weights, decode_state, encode_state
from sinks.stored import StoredProfile
from sinks.wire import NO_ITEMS, WireValue, wire_value
from streams.addresses import read_addresses
from streams.profile_writes import UNDERIVED
from streams.profiles import Contribution, FoldEvent, FoldRules, fold, settle
from streams.updater import RefreshRules
from streams.verification.comparison import (
    Comparison,
    compare_continued,
    compare_ledger,
    compare_readers_view,
    has_these_interests,
    is_derived,
)
from streams.verification.recomputation import recompute

DAY, HOUR = 86_400_000, 3_600_000
RULES = FoldRules(30.0 * DAY, 1.0 * HOUR, history=4, event_id_memory=3, pending=8)
START = 1_700_000_000_000
KEYS = ["pA", "pB", "pC", "pD", "pE", "qtent"]
VECTORS = {
    key: (vector / np.linalg.norm(vector)).astype(np.float32)
    for key, vector in zip(KEYS, np.random.default_rng(3).normal(size=(len(KEYS), 8)), strict=True)
}


def event(offset: int, key: str, ts: int, *, order: int | None = None, event_id: int = 0, known: bool = True):
    vector = VECTORS[key] if known else None
    return FoldEvent(offset, ts, order or offset + 1, event_id, (Contribution(key, 4.0, vector),))


EVENTS = [event(2 * n, KEYS[(n * 5 + n // 3) % 6], START + (n * 7 % 5) * DAY, event_id=n % 11 + 1) for n in range(24)]


def folded(events: list[FoldEvent]) -> Ledger:
    ledger = Ledger()
    fold(ledger, "id", 0, events, RULES)
    return decode_state(encode_state(ProfileState(Ledger(), ledger))).purchases


def compared(ledger: Ledger, events: list[FoldEvent] = EVENTS, vectors=VECTORS) -> Comparison:
    return compare_ledger(ledger, recompute([judged(one) for one in events], RULES), vectors, RULES, "purchases")


def what(told: Comparison) -> str:
    return "; ".join([*told.differences, *(one.text for one in told.unexplained)])


@st.composite
def histories(draw: st.DrawFn) -> list[FoldEvent]:
    """Late, repeated and duplicated events, some of products that aren't known at first."""
    events, offset, ts = [], 0, START
    for _ in range(draw(st.integers(1, 30))):
        offset += draw(st.integers(1, 3))
        ts += draw(st.integers(-20 * DAY, 40 * DAY) | st.just(0))
        key = draw(st.sampled_from(KEYS))
        known = key in ("pA", "pB", "qtent") or draw(st.booleans())
        events.append(
            event(offset, key, ts, order=draw(st.integers(1, 4)), event_id=draw(st.integers(0, 5)), known=known)
        )
    return events


@given(histories(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_it_finds_nothing_where_there_is_nothing(events: list[FoldEvent], settled: bool):
    unknown = {one.contributions[0].key for one in events if one.contributions[0].vector is None}
    events = [one._replace(contributions=_forgotten(one, unknown)) for one in events]
    ledger = folded(events)
    if settled:
        settle(ledger, {key[1:]: vector for key, vector in VECTORS.items()}, RULES)
    known = VECTORS if settled else {key: vector for key, vector in VECTORS.items() if key not in unknown}
    told = compared(ledger, events, known)
    assert (what(told), told.events) == ("", 0)


def _forgotten(one: FoldEvent, unknown: set[str]) -> tuple[Contribution, ...]:
    (only,) = one.contributions
    return (only._replace(vector=None),) if only.key in unknown else (only,)


@given(st.integers(0, len(EVENTS) - 1))
@settings(max_examples=24, deadline=None)
def test_it_finds_any_event_lost_or_doubled(at: int):
    plain = [one._replace(event_id=0) for one in EVENTS]
    lost = compared(folded(plain[:at] + plain[at + 1 :]), plain)
    assert lost.events == 1
    assert "events is 23, not 24" in what(lost)
    again = plain[at]._replace(offset=plain[at].offset + 1)
    doubled = compared(folded([*plain[: at + 1], again, *plain[at + 1 :]]), plain)
    assert doubled.events == 1
    assert "events is 25, not 24" in what(doubled)


def heavier(ledger: Ledger) -> None:
    ledger.rows["weight"][1] += 0.001


def without_a_key(ledger: Ledger) -> None:
    ledger.keys.pop()


def without_what_was_evicted(ledger: Ledger) -> None:
    ledger.evicted -= 0.01


def with_other_total(ledger: Ledger) -> None:
    ledger.weight_long += 0.001


def turned(ledger: Ledger) -> None:
    ledger.long = ledger.long + 0.01 * np.linalg.norm(ledger.long) * VECTORS["qtent"]


def longer(ledger: Ledger) -> None:
    ledger.short = ledger.short * 1.0001


def counted_twice(ledger: Ledger) -> None:
    ledger.rows["count"][0] += 1


def later(ledger: Ledger) -> None:
    ledger.rows["last"][0] += 1


def in_another_order(ledger: Ledger) -> None:
    ledger.orders += 1


def forgetting_ids(ledger: Ledger) -> None:
    ledger.event_ids = ledger.event_ids[1:]


def waiting(ledger: Ledger) -> None:
    ledger.pending["A"] = Debt(-1.0, -1.0)


def moved_on(ledger: Ledger) -> None:
    ledger.newest_ts += 1


def counted_as_noise(ledger: Ledger) -> None:
    ledger.noise["campaign_code"] = 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (counted_as_noise, "noise"),
        (heavier, "weight of"),
        (without_a_key, "history misses 1 keys"),
        (without_what_was_evicted, "Σ w + evicted"),
        (with_other_total, "W long"),
        (turned, "S long"),
        (longer, "S short"),
        (counted_twice, "count"),
        (later, "last"),
        (in_another_order, "orders"),
        (forgetting_ids, "event_ids"),
        (waiting, "debt of pending 'A'"),
        (moved_on, "newest_ts"),
    ],
)
def test_it_finds_damage_to_a_ledger(damage, told: str):
    ledger = folded(EVENTS)
    assert what(compared(ledger)) == ""
    damage(ledger)
    assert told in what(compared(ledger))


def test_a_product_that_is_neither_known_nor_pending_is_found():
    vectors = {key: vector for key, vector in VECTORS.items() if key != "pB"}
    assert "'B' is unknown, and not pending" in what(compared(folded(EVENTS), vectors=vectors))


def test_a_product_whose_text_changed_moves_a_sum_by_no_more_than_its_part():
    (sum_, _) = compared(folded(EVENTS), vectors={**VECTORS, "pA": VECTORS["pC"]}).unexplained
    assert 0.0 < sum_.residual <= 2.0 * sum_.coefficients["A"]
    assert "qtent" not in sum_.coefficients
    ledger = folded(EVENTS)
    ledger.long = -ledger.long
    (sum_,) = compared(ledger).unexplained
    assert sum_.residual > 2.0 * sum_.coefficients["A"], "more than that product can explain"


DERIVATION = DerivationRules(30.0 * DAY, 1.0 * HOUR)
REFRESH = RefreshRules(move=0.05, interval_ms=10_000, inline_users=1000)


def view_of(state: ProfileState) -> tuple[StoredProfile, Taste]:
    products = {key[1:]: vector for key, vector in VECTORS.items()}
    (taste,) = derive([state], products, np.zeros(8, np.float32), START, DERIVATION)
    weight = add_log_weights(state.searches.weight_long, state.purchases.weight_long)
    profile = StoredProfile(
        id="point",
        version=1,
        state=b"",
        due=None,
        pending=(),
        partition=0,
        known=taste.known,
        n_searches=0,
        n_purchases=state.purchases.events,
        last_search_ts=None,
        last_purchase_ts=state.purchases.newest_ts,
        made_at=START,
        made_from=(weight, state.purchases.weight_short),
        interests_value=wire_value([{"share": one.share, "texts": []} for one in taste.interests]),
        candidates_value=WireValue(NO_ITEMS),
        vectors={
            "long": taste.long / np.linalg.norm(taste.long),
            "short": taste.short / np.linalg.norm(taste.short),
            "interests": np.stack([one.vector for one in taste.interests]),
        },
    )
    return profile, taste


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_purchases": 23}, "n_purchases"),
        ({"n_searches": 1}, "n_searches"),
        ({"last_purchase_ts": START}, "last_purchase_ts"),
        ({"partition": 1}, "partition"),
        ({"pending": ("A",)}, "pending"),
        ({"vectors": {}}, "long is absent"),
        ({"made_from": None}, "candidates: 100.0%"),
        ({"made_from": (0.0, 0.0)}, "candidates: 100.0% of the weight is newer than they are, and nothing is due"),
        ({"made_from": (1e6, 1e6)}, "candidates: they are of more weight than the ledgers have"),
        ({"interests_value": wire_value([])}, "interests: vectors"),
    ],
)
def test_it_finds_what_readers_would_see_stale(changes: dict, told: str):
    state = ProfileState(Ledger(), folded(EVENTS))
    profile, taste = view_of(state)
    assert compare_readers_view(profile, state, taste, taste, REFRESH, DERIVATION) == []
    assert has_these_interests(profile, taste)
    found = compare_readers_view(replace(profile, **changes), state, taste, taste, REFRESH, DERIVATION)
    assert told in "; ".join(found)


@pytest.mark.parametrize("newer", [0, 1])
def test_candidates_may_be_older_than_their_profile_only_where_they_are_due(newer: int):
    """By half a part in twenty they may, which is the rule; and by float64's noise they are of more weight."""
    state = ProfileState(Ledger(), folded(EVENTS))
    profile, taste = view_of(state)

    def with_weights_off_by(part: float) -> StoredProfile:
        off = [0.0, 0.0]
        off[newer] = math.log2(1.0 - part)
        return replace(profile, made_from=tuple(map(sum, zip(profile.made_from, off, strict=True))))

    def told(candidates_of: StoredProfile) -> str:
        return "; ".join(compare_readers_view(candidates_of, state, taste, taste, REFRESH, DERIVATION))

    assert told(with_weights_off_by(0.049)) == ""
    assert "5.1% of the weight is newer than they are, and nothing is due" in told(with_weights_off_by(0.051))
    assert told(replace(with_weights_off_by(0.051), due=START)) == ""
    assert told(with_weights_off_by(-1e-9)) == ""
    assert "of more weight than the ledgers have" in told(with_weights_off_by(-1e-5))


def test_a_profile_of_which_nothing_is_derived_yet_is_judged_by_its_ledgers_and_counts():
    state = ProfileState(Ledger(), folded(EVENTS))
    profile, taste = view_of(state)
    put_off = replace(profile, due=UNDERIVED, vectors={}, made_from=None, interests_value=wire_value([]))
    assert not is_derived(put_off)
    assert compare_readers_view(put_off, state, taste, taste, REFRESH, DERIVATION) == []
    assert "n_purchases is 3, not 24" in compare_readers_view(
        replace(put_off, n_purchases=3), state, taste, taste, REFRESH, DERIVATION
    )


def test_a_ledger_that_goes_on_with_a_topic_made_anew_has_no_less_than_that_topic():
    anew = EVENTS[10:]
    expected = recompute([judged(one) for one in anew], RULES)
    whole = folded(EVENTS)
    assert what(compare_continued(whole, expected, RULES, "purchases")) == ""

    short_of_one = compare_continued(folded(anew[:-1]), expected, RULES, "purchases")
    assert short_of_one.events == 1
    assert "events is 13, less than 14 by the topic as it is now" in what(short_of_one)

    whole.weight_long -= 5.0
    assert "W long is" in what(compare_continued(whole, expected, RULES, "purchases"))
    whole.weight_long += 5.0
    whole.evicted += 1.0
    assert "Σ w + evicted" in what(compare_continued(whole, expected, RULES, "purchases"))


def test_it_finds_vectors_of_an_earlier_state():
    """Those of before the last purchase, which all else of the profile counts."""
    earlier, _ = view_of(ProfileState(Ledger(), folded(EVENTS[:-4])))
    state = ProfileState(Ledger(), folded(EVENTS))
    profile, taste = view_of(state)
    found = compare_readers_view(replace(profile, vectors=earlier.vectors), state, taste, taste, REFRESH, DERIVATION)
    assert "long is not what the ledgers give" in "; ".join(found)


USERS = [f"user-{n}" for n in range(24)]


def write_shop(folder: Path) -> None:
    """A seeded shop: purchases and searches of products of which a third comes late; titles, clicks, duplicates."""
    chance = random.Random(5)
    products = {f"p{n}": f"{style} {noun}" for n, (style, noun) in enumerate(_names())}
    lines = [json.dumps({"product_id": id_, "title": title}) + "\n" for id_, title in products.items()]
    (folder / "products.jsonl").write_text("".join(lines[:-10]))
    (folder / "late.jsonl").write_text("".join(lines[-10:]))
    (folder / "renamed.jsonl").write_text(json.dumps({"product_id": "p0", "title": "an iron anvil"}) + "\n")
    purchases, searches = [], []
    for n in range(400):
        id_ = chance.choice(list(products))
        purchase = {"user_id": chance.choice(USERS), "product_id": id_, "quantity": 1, "order_id": f"o{n // 2}"}
        purchase |= {"ts": START - chance.randrange(400 * DAY), "event_id": f"e{n}"}
        if chance.random() < 0.1:
            purchase["title"] = products[id_]
        purchases += [purchase] * (2 if chance.random() < 0.1 else 1)
    for n in range(200):
        search = {"user_id": chance.choice(USERS), "query": chance.choice(list(products.values())), "ts": START + n}
        if chance.random() < 0.4:
            search["clicked_product_id"] = chance.choice(list(products))
        searches.append(search)
    for n in range(150):  # faster than anybody types, and of a link
        machine = {"user_id": "user-5", "query": chance.choice(["red boots", f"mug {n}", "SummerSale_Mugs_20110826"])}
        searches.append(machine | {"ts": START + 10 * n, "clicked_product_id": chance.choice(list(products))})
    for name, events in (("purchases", purchases), ("searches", searches)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))


def _names() -> list[tuple[str, str]]:
    return [(style, noun) for style in ("red", "wooden", "old", "striped", "tiny") for noun in _NOUNS]


_NOUNS = ("boots", "tent", "stove", "kettle", "lamp", "mug")


STRANGE = "00000000-0000-0000-0000-00000000abcd"


async def do_damage(qdrant: str, points: list[str]) -> None:
    """The first profile loses a purchase of its first product, the second says that it ends a record earlier and
    the third beyond the log, the fourth is gone; and somebody whom nobody knows has a profile.
    """
    client = connect(qdrant)
    try:
        point, behind, beyond, gone = points
        (found,) = await client.retrieve("profiles--main", [point], with_payload=True)
        stranger = models.PointStruct(id=STRANGE, vector={}, payload=found.payload)
        await client.upsert("profiles--main", [stranger])
        await client.delete("profiles--main", [gone])
        for moved, by in ((behind, -1), (beyond, 1000)):
            (found,) = await client.retrieve("profiles--main", [moved], with_payload=True)
            state = decode_state(base64.b64decode(found.payload["state"]))
            applied = state.purchases.applied
            state.purchases.applied = applied._replace(offset=applied.offset + by)
            stored = base64.b64encode(encode_state(state)).decode()
            await client.set_payload("profiles--main", {"state": stored}, [moved])
        (found,) = await client.retrieve("profiles--main", [point], with_payload=True)
        state = decode_state(base64.b64decode(found.payload["state"]))
        state.purchases.events -= 1
        state.purchases.rows["weight"][0] -= 0.5
        await client.set_payload("profiles--main", {"state": base64.b64encode(encode_state(state)).decode()}, [point])
    finally:
        await client.close()


async def begin_later(qdrant: str, *, by: int) -> None:
    """Has the record say that the generation begins so many purchases later in each partition."""

    def change(record: Generation) -> Generation:
        purchases = record.sources["purchases"]
        moved = replace_field(purchases, start=[offset + by for offset in purchases.start])
        return replace_field(record, sources={**record.sources, "purchases": moved})

    client = connect(qdrant)
    try:
        await change_generation(client, "main", change)
    finally:
        await client.close()


@pytest.mark.end_to_end
def test_a_shop_is_verified_and_a_damaged_profile_is_named(tmp_path: Path):
    data = tmp_path / "data"
    write_shop(tmp_path)

    def send(name: str, topic: str) -> None:
        afterglow(data, "produce", str(tmp_path / f"{name}.jsonl"), "--topic", topic, "--wait")

    with running(data):
        for topic in ("products", "purchases", "searches"):
            send(topic, topic)
        first = afterglow_json(data, "verify")
        assert (first["users"], first["different"], first["not_understood"]) == (24, 0, 0)
        assert first["events"] > 600, "duplicates are read as well"

        addresses = read_addresses(data)
        asyncio.run(begin_later(addresses.qdrant, by=1))
        later = afterglow_json(data, "verify", code=1)
        assert later["events"] == first["events"] - 8, "one a partition is older than the generation"
        assert later["different"] > 0, "and is in profiles all the same"
        assert all("purchases: " in difference["what"][0] for difference in later["differences"])
        asyncio.run(begin_later(addresses.qdrant, by=-1))

        send("late", "products")
        settled = afterglow_json(data, "verify")
        assert settled["different"] == 0
        assert not [reason for reason in settled["not_comparable"] if "sum" in reason]
        sampled = afterglow_json(data, "verify", "--sample", "5")
        assert (sampled["users"], sampled["different"]) == (5, 0)

        send("renamed", "products")
        renamed = afterglow_json(data, "verify")
        assert renamed["different"] == 0, "what a product was called when it was bought is no loss"
        assert renamed["not_comparable"]["a sum with a product whose text has changed"] > 0

        ids = PointIds(bytes.fromhex(Path(addresses.secret_file).read_text()))
        points = [ids.user(user) for user in ("user-7", "user-8", "user-9", "user-10")]
        asyncio.run(do_damage(addresses.qdrant, points))
        damaged = afterglow_json(data, "verify", code=1)
        assert damaged["different"] == 5
        differences = {difference["point"]: difference for difference in damaged["differences"]}
        assert differences.keys() == {*points, STRANGE}
        told = ["; ".join(differences[point]["what"]) for point in (*points, STRANGE)]
        assert "purchases: events is" in told[0]
        assert "1 events beyond `applied` are below the committed offset" in told[1]
        assert "which is no event of the user" in told[2]
        assert "purchases: no profile, but " in told[3]
        assert "a profile that the log knows nothing of" in told[4]
        assert not any("user" in difference for difference in damaged["differences"])
        worst = damaged["differences"][0]
        assert worst["point"] == points[3], "it misses the most events"
        assert "(user user-10)" in afterglow(data, "verify", "--show-users", code=1)

        kafka = AdminClient({"bootstrap.servers": addresses.kafka})
        cut = TopicPartition("purchases", 0, 1)
        kafka.delete_records([cut])[cut].result()
        assert afterglow(data, "verify", code=1) == "", "it judges nothing by a log whose beginning is gone"
