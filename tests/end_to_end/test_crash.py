"""A worker, Qdrant and the encoding worker killed in the middle of a run: every profile is that of a calm one."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from machine import afterglow, afterglow_json, running, until
from stored import differences, profiles_of

pytestmark = pytest.mark.end_to_end

USERS = [f"user-{n}" for n in range(60)]
NOUNS = ["boots", "tent", "stove", "kettle", "lamp", "mug", "rug", "kite", "drum", "chair", "scarf", "clock"]
STYLES = ["red", "blue", "wooden", "small", "vintage", "folding", "ceramic", "striped"]
START = 1_690_000_000_000


def write_events(folder: Path) -> tuple[int, int]:
    """Products, purchases (some twice, by event id) and searches with clicks of a seeded shop."""
    chance = random.Random(11)
    titles = {f"{style[:2]}-{noun}": f"{style} {noun}" for style in STYLES for noun in NOUNS}
    with gzip.open(folder / "products.jsonl.gz", "wt") as file:
        for product_id, title in titles.items():
            file.write(json.dumps({"product_id": product_id, "title": title}) + "\n")
    purchases, ts = [], START
    for n in range(24_000):
        ts += chance.randrange(1000, 60_000)
        purchases.append(
            {
                "event_id": f"e{n}",
                "user_id": chance.choice(USERS),
                "product_id": chance.choice(list(titles)),
                "quantity": 1,
                "order_id": f"o{n // 3}",
                "ts": ts - chance.choice([0, 0, 0, 3_600_000, 86_400_000 * 40]),
            }
        )
        if chance.random() < 0.05:
            purchases.append(purchases[-1])
    with gzip.open(folder / "purchases.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(purchase) + "\n" for purchase in purchases)
    n_searches = 4_000
    with gzip.open(folder / "searches.jsonl.gz", "wt") as file:
        for n in range(n_searches):
            search = {
                "user_id": chance.choice(USERS),
                "query": f"{chance.choice(STYLES)} {chance.choice(NOUNS)}",
                "ts": START + n * 350_000,
            }
            if chance.random() < 0.3:
                search["clicked_product_id"] = chance.choice(list(titles))
            file.write(json.dumps(search) + "\n")
    return 24_000, n_searches


def produce(data_dir: Path, folder: Path, topic: str, *options: str) -> None:
    afterglow(data_dir, "produce", str(folder / f"{topic}.jsonl.gz"), "--topic", topic, *options)


def folded(data_dir: Path) -> tuple[int, int]:
    """Purchases and searches that are in the stored profiles."""
    states = profiles_of(data_dir, USERS).values()
    return sum(state.purchases.events for state in states), sum(state.searches.events for state in states)


def kill(up: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Kills the first process of that name (`worker`, `encoder`, `deploy.qdrant`), and waits until it is back."""
    victims = [
        child
        for child in psutil.Process(up.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and name in child.cmdline()
    ]
    returned = log.read_text().count("is back")
    os.kill(victims[0].pid, signal.SIGKILL)
    until(lambda: log.read_text().count("is back") > returned, 120, log.read_text())


def test_profiles_after_a_kill_are_those_of_the_undisturbed_run(tmp_path: Path) -> None:
    n_purchases, n_searches = write_events(tmp_path)

    calm = tmp_path / "calm"
    with running(calm):
        for topic in ("products", "purchases", "searches"):
            produce(calm, tmp_path, topic, "--wait")
        expected = profiles_of(calm, USERS)
    assert sum(state.purchases.events for state in expected.values()) == n_purchases
    assert sum(state.searches.events for state in expected.values()) == n_searches

    rough = tmp_path / "rough"
    with running(rough, "--workers", "2") as process:
        produce(rough, tmp_path, "products", "--wait")
        produce(rough, tmp_path, "purchases")
        until(lambda: folded(rough)[0] > 500, 120)
        assert folded(rough)[0] < n_purchases, "too late to kill anything in the middle"
        kill(process, "worker", rough.with_suffix(".log"))
        produce(rough, tmp_path, "searches")
        kill(process, "deploy.qdrant", rough.with_suffix(".log"))
        kill(process, "encoder", rough.with_suffix(".log"))
        produce(rough, tmp_path, "products", "--wait")  # sent again, as producers do
        until(lambda: folded(rough) == (n_purchases, n_searches), 300)
        found = profiles_of(rough, USERS)
        verdict = afterglow_json(rough, "verify")
        assert (verdict["users"], verdict["different"]) == (len(USERS), 0)

    for user in USERS:
        assert differences(found[user].purchases, expected[user].purchases) == [], user
        assert differences(found[user].searches, expected[user].searches) == [], user
