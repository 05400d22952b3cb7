"""A small seeded shop: few users, so that they meet in every batch; late events, duplicates, clicks."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from machine import afterglow

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
