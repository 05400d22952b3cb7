"""One running `afterglow up` through its generations: another half-life, another model, and back, by commands alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from machine import afterglow, afterglow_json, running, until
from stored import differences, profiles_of

from encoders.recipe import locate

pytestmark = pytest.mark.end_to_end

USERS = [f"user-{n}" for n in range(40)]
NOUNS = ["boots", "tent", "stove", "kettle", "lamp", "mug", "rug", "kite"]
STYLES = ["red", "blue", "wooden", "small", "folding"]
TITLES = [f"{style} {noun}" for style in STYLES for noun in NOUNS]
START = 1_690_000_000_000


@pytest.fixture
def shorter(tmp_path: Path) -> Path:
    """The packaged model, but that it reads no more than 16 tokens of a text: its vectors are another model's."""
    folder = tmp_path / "shorter"
    shutil.copytree(locate("")[0], folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    return folder


class Shop:
    """What is produced, and what is asked of one running system."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self._folder = folder
        self._produced = 0

    def produce_products(self) -> None:
        self._produce("products", [{"product_id": f"p{n}", "title": title} for n, title in enumerate(TITLES)])

    def produce(self, events: int) -> None:
        """Purchases and searches; returns when the generation that readers see has folded them in."""
        numbers = range(self._produced, self._produced + events)
        self._produced += events
        purchases = [
            {"user_id": USERS[n * 7 % 40], "product_id": f"p{n * 11 % 40}", "quantity": 1, "ts": START + n * 60_000}
            for n in numbers
        ]
        searches = [
            {"user_id": USERS[n * 3 % 40], "query": TITLES[n * 5 % 40], "ts": START + n * 61_000} for n in numbers
        ]
        self._produce("purchases", purchases)
        self._produce("searches", searches)

    def _produce(self, topic: str, records: list[dict[str, object]]) -> None:
        file = self._folder / f"{topic}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        afterglow(self.data, "produce", str(file), "--topic", topic, "--wait")

    def generations(self) -> dict[str, Any]:
        document: Any = afterglow_json(self.data, "generations")
        return {one["name"]: one for one in document["generations"]}

    def activate(self, name: str) -> dict[str, Any]:
        document: Any = afterglow_json(self.data, "generations", "activate", name)
        return dict(document)

    def served(self) -> str:
        (name,) = [one["name"] for one in self.generations().values() if one["served"]]
        return str(name)

    def until_workers_are_in(self, name: str) -> None:
        until(lambda: self.generations()[name]["who"] == "workers", 120, "no live worker came over")

    def purchases_folded_in(self, name: str) -> int:
        return sum(state.purchases.events for state in profiles_of(self.data, USERS, name).values())

    def recommended(self, user: str) -> list[str]:
        document: Any = afterglow_json(self.data, "recommend", user, "--query", "red boots")
        return [item["product_id"] for item in document["items"]]

    def verdict(self) -> tuple[str, int]:
        document: Any = afterglow_json(self.data, "verify")
        return document["generation"], document["different"]


def processes(of: int) -> Mapping[str, int]:
    """The ids of the encoding worker and the worker that an `up` keeps running."""
    found = {}
    for one in psutil.Process(of).children(recursive=True):
        for name in {"encoder", "worker"} & set(one.cmdline()):
            found[name] = one.pid
    return found


def test_another_half_life_and_back_again_misses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shop = Shop(data, tmp_path)
    with running(data) as process:
        assert "serving  generation main, of all-MiniLM-L6-v2" in data.with_suffix(".log").read_text()
        shop.produce_products()
        shop.produce(300)
        before = processes(process.pid)

        replayed: Any = afterglow_json(data, "replay", "--set", "half_life.long=14d")
        assert (replayed["generation"], replayed["served"]) == ("g2", True)
        shop.until_workers_are_in("g2")
        assert shop.generations()["main"]["differs"] == {"half_life_long": {"here": "30d", "served": "14d"}}
        assert shop.generations()["main"]["who"] == "nobody"
        shop.produce(100)
        assert shop.purchases_folded_in("g2") == 400
        assert shop.purchases_folded_in("main") == 300
        assert shop.verdict() == ("g2", 0)
        assert shop.recommended("user-7")

        activated = shop.activate("main")
        assert (activated["before"], activated["missing"], activated["caught_up"]) == ("g2", 200, True)
        assert shop.purchases_folded_in("main") == 400
        assert shop.verdict() == ("main", 0)
        assert processes(process.pid) == before, "the same processes all along"

        afterglow(data, "generations", "drop", "g2", "--yes")
        assert list(shop.generations()) == ["main"]
        shop.produce(50)
        assert shop.purchases_folded_in("main") == 450
        assert shop.verdict() == ("main", 0)


def test_another_model_and_back_again_takes_the_encoding_worker_along(tmp_path: Path, shorter: Path) -> None:
    data = tmp_path / "data"
    shop = Shop(data, tmp_path)
    with running(data) as process:
        shop.produce_products()
        shop.produce(200)
        before = processes(process.pid)
        first: Any = afterglow_json(data, "status")

        config = tmp_path / "replay.toml"  # which `up` does not know of
        config.write_text('[encoder]\nquery_prefix = "looking for: "\n')
        replayed: Any = afterglow_json(data, "replay", "--config", str(config), "--model", str(shorter))
        assert (replayed["generation"], replayed["served"]) == ("g2", True)
        shop.until_workers_are_in("g2")
        second: Any = afterglow_json(data, "status")
        assert second["encoder"]["model_identity"] == shop.generations()["g2"]["model_identity"]
        assert second["encoder"]["model_identity"] != first["encoder"]["model_identity"]
        shop.produce(100)  # texts that the other model has not seen, among others
        assert shop.verdict() == ("g2", 0)
        afterglow(data, "search", "red boots")
        assert shop.recommended("user-7")

        activated = shop.activate("main")
        assert (activated["missing"], activated["caught_up"]) == (200, True)
        assert shop.verdict() == ("main", 0)
        third: Any = afterglow_json(data, "status")
        assert third["encoder"]["model_identity"] == first["encoder"]["model_identity"]
        assert processes(process.pid) == before, "the same processes all along"

        shop.activate("g2")
        shop.until_workers_are_in("g2")
        folded = profiles_of(data, USERS, "g2")
        assert sum(state.purchases.events for state in folded.values()) == 300

    with running(data):  # all of it stopped, and started again: the encoding worker has the model of g2 at once
        assert "serving  generation g2, of shorter" in data.with_suffix(".log").read_text()
        again = profiles_of(data, USERS, "g2")
        assert not [found for user in USERS for found in differences(folded[user].purchases, again[user].purchases)]
        shop.produce(20)
        assert shop.verdict() == ("g2", 0)


def test_settings_that_do_not_count_are_told_at_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = tmp_path / "afterglow.toml"
    config.write_text("")
    with running(data, "--config", str(config)):
        assert "does not count" not in data.with_suffix(".log").read_text()
    config.write_text('[profiles]\nhalf_life_long = "14d"\n')
    with running(data, "--config", str(config)):
        pass
    said = data.with_suffix(".log").read_text()
    assert "warning: profiles.half_life_long is 14d" in said
    assert "generation main was made with 30d, and keeps that" in said
