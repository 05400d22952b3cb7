"""A year of a real shop, and another's searches, through `up`, `produce` and `recommend`: nothing lost or added."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from machine import afterglow, afterglow_json, running
from stored import exact_differences, profiles_of

from encoders.client import EncoderClient, TextKind
from streams.addresses import read_addresses

DATA = Path(os.environ.get("AFTERGLOW_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (DATA / "online-retail").is_dir(), reason=f"needs the real data, which is not at {DATA}"),
]

HALF_LIFE_MS = 30 * 86_400_000.0
RETAIL_PRODUCTS = DATA / "online-retail" / "products.jsonl.gz"
RETAIL_PURCHASES = DATA / "online-retail" / "purchases.jsonl.gz"


def lines(file: Path) -> Iterator[dict]:
    with gzip.open(file) as opened:
        yield from map(json.loads, opened)


def recomputed(data_dir: Path) -> dict[str, tuple[int, np.ndarray]]:
    """Purchases and long sum of every customer, from the files alone, with vectors of the running encoding worker."""
    products = list(lines(RETAIL_PRODUCTS))
    row_of = {product["product_id"]: row for row, product in enumerate(products)}
    addresses = read_addresses(data_dir)
    assert addresses is not None

    async def encode() -> np.ndarray:
        encoder = EncoderClient(addresses.encoder)
        try:
            return await encoder.encode([product["title"] for product in products], TextKind.PRODUCT)
        finally:
            await encoder.close()

    vectors = asyncio.run(encode()).astype(np.float64)
    bought = defaultdict(list)
    for purchase in lines(RETAIL_PURCHASES):
        bought[purchase["user_id"]].append((purchase["ts"], row_of[purchase["product_id"]]))
    sums = {}
    for user, events in bought.items():
        times, rows = np.array(events).T
        sums[user] = len(events), (4.0 * 2.0 ** (-(times.max() - times) / HALF_LIFE_MS)) @ vectors[rows]
    return sums


def assert_every_purchase_is_there(data_dir: Path) -> None:
    expected = recomputed(data_dir)
    profiles = afterglow_json(data_dir, "status")["qdrant"]["profiles"]
    assert profiles["purchases"] == sum(n for n, _ in expected.values()) == 265_427
    assert (profiles["count"], profiles["waiting"], profiles["due"]) == (len(expected), 0, 0)
    found = profiles_of(data_dir, expected)
    for user, (n, long) in expected.items():
        ledger = found[user].purchases
        assert ledger.events == n, user
        cosine = ledger.long @ long / np.linalg.norm(ledger.long) / np.linalg.norm(long)
        assert cosine >= 0.99999, user
        assert np.linalg.norm(ledger.long) == pytest.approx(np.linalg.norm(long), rel=1e-5), user


def assert_a_replay_gives_the_same_profiles(data_dir: Path, users: list[str]) -> None:
    """To the last bit, but for the sums: they are added up in float64 and stored in float32 at every write, and a
    replay writes less often.
    """
    replayed = afterglow_json(data_dir, "replay", "--generation", "again", "--no-activate")
    assert (replayed["events"], replayed["served"], replayed["behind"]) == (265_427, False, 0)
    streamed, again = profiles_of(data_dir, users), profiles_of(data_dir, users, "again")
    for user in users:
        assert exact_differences(again[user].purchases, streamed[user].purchases) == [], user
    verdict = afterglow_json(data_dir, "verify", "--generation", "again")
    assert (verdict["users"], verdict["events"], verdict["different"]) == (len(users), 265_427, 0)


def recommendations(data_dir: Path, users: list[str], folder: Path) -> dict[str, list[dict]]:
    asked = folder / "users.txt"
    asked.write_text("".join(f"{user}\n" for user in users))
    printed = afterglow(data_dir, "recommend", "--users-from", str(asked), "--json")
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer["user_id"] for answer in answers] == users
    return {answer["user_id"]: answer["items"] for answer in answers}


def test_products_then_purchases_and_another_shops_searches(tmp_path: Path) -> None:
    data = tmp_path / "data"
    games = DATA / "game-searches"
    with running(data):
        afterglow(data, "produce", str(RETAIL_PRODUCTS), "--topic", "products", "--wait")
        afterglow(data, "produce", str(RETAIL_PURCHASES), "--topic", "purchases", "--wait")
        assert_every_purchase_is_there(data)
        customers = sorted({purchase["user_id"] for purchase in lines(RETAIL_PURCHASES)})
        for user, items in recommendations(data, customers, tmp_path).items():
            assert len(items) == 20, user
            for item in items:
                assert sum(reason["share"] for reason in item["because"]) == pytest.approx(1.0, abs=0.001)
        assert_a_replay_gives_the_same_profiles(data, customers)

        afterglow(data, "produce", str(games / "products.jsonl.gz"), "--topic", "products", "--wait")
        afterglow(data, "produce", str(games / "searches.jsonl.gz"), "--topic", "searches", "--wait")
        searches = list(lines(games / "searches.jsonl.gz"))
        profiles = afterglow_json(data, "status")["qdrant"]["profiles"]
        assert profiles["searches"] == len(searches) == 21_592
        searchers = sorted({search["user_id"] for search in searches})
        lists = recommendations(data, searchers, tmp_path)
        assert all(lists[user] for user in searchers)


def test_purchases_before_the_products_they_are_of(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        afterglow(data, "produce", str(RETAIL_PURCHASES), "--topic", "purchases", "--wait")
        before = afterglow_json(data, "status")["qdrant"]["profiles"]
        bought = {purchase["product_id"] for purchase in lines(RETAIL_PURCHASES)}
        assert (before["purchases"], before["waiting"], before["pending_products"]) == (265_427, 3_613, len(bought))
        afterglow(data, "produce", str(RETAIL_PRODUCTS), "--topic", "products", "--wait")
        assert_every_purchase_is_there(data)
