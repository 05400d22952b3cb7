"""Events folded in per second by a replay, beside a live worker on the same log, in one run.

    python tests/benchmarks/replay.py [--events 50000 100000 200000] [--per-profile 4 12 40]

A machine of its own (`afterglow up`): Kafka, the embedded Qdrant, the encoding worker and one worker share the cores.
Purchases of 2,000 products, whose texts are cached; so many users that a window of the replay holds the given number
of events a profile. Live is measured from the first event produced to the last one committed, the replay while it folds
in; neither counts candidates, which both put off. Memory is the replay's largest resident set.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import ENVIRONMENT, afterglow, running, until

from streams.kafka import connect_admin
from streams.settings import load
from streams.topics import committed_offsets, describe
from streams.windows import WINDOW_RECORDS

PRODUCTS = 2000
WORDS = ("oak", "tin", "red", "blue", "lamp", "mug", "rug", "kite", "drum", "chair", "scarf", "clock", "boots", "stove")


def write_products(file: Path) -> None:
    chance = random.Random(1)
    with file.open("w") as lines:
        for n in range(PRODUCTS):
            title = " ".join(chance.sample(WORDS, 4))
            lines.write(json.dumps({"product_id": f"p{n}", "title": f"{title} {n % 97}"}) + "\n")


def write_purchases(file: Path, events: int, users: int) -> None:
    chance = random.Random(2)
    with file.open("w") as lines:
        for n in range(events):
            purchase = {
                "user_id": f"u{chance.randrange(users)}",
                "product_id": f"p{min(chance.randrange(PRODUCTS), chance.randrange(PRODUCTS))}",
                "quantity": 1,
                "order_id": f"o{n // 6}",
                "ts": 1_690_000_000_000 + n * 10_000,
            }
            lines.write(json.dumps(purchase) + "\n")


def committed(data: Path, group: str) -> int:
    settings = load(None, data)
    topics = describe(connect_admin(settings.kafka), [settings.topics.purchases])
    return sum(committed_offsets(settings.kafka, group, topics).values())


def live(data: Path, file: Path, events: int) -> float:
    """Events a second."""
    began = time.monotonic()
    afterglow(data, "produce", str(file), "--topic", "purchases")
    until(lambda: committed(data, "afterglow-main") == events, 3600)
    return events / (time.monotonic() - began)


def replayed(data: Path) -> tuple[float, float]:
    """Events a second, and the process's largest resident set (MiB)."""
    with subprocess.Popen(
        [sys.executable, "-m", "streams", "replay", "--no-activate", "--json"],
        env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    kilobytes = usage.ru_maxrss if sys.platform == "linux" else usage.ru_maxrss // 1024
    return told["events"] / told["seconds_folding"], kilobytes / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--events", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--per-profile", type=int, nargs="+", default=[4, 12, 40])
    options = parser.parse_args()
    sys.stdout.write("events    users   a window  live/s  replay/s  ratio  replay us/event  MiB\n")
    for events in options.events:
        for per_profile in options.per_profile:
            users = max(1, min(events, WINDOW_RECORDS) // per_profile)
            with tempfile.TemporaryDirectory() as folder:
                data, file = Path(folder) / "data", Path(folder) / "purchases.jsonl"
                write_products(Path(folder) / "products.jsonl")
                write_purchases(file, events, users)
                with running(data):
                    afterglow(data, "produce", str(Path(folder) / "products.jsonl"), "--topic", "products", "--wait")
                    before = live(data, file, events)
                    rate, memory = replayed(data)
            sys.stdout.write(
                f"{events:7,}  {users:6,}  {per_profile:8}  {before:6,.0f}  {rate:8,.0f}  x{rate / before:<4.1f}"
                f"  {1e6 / rate:15.1f}  {memory:3.0f}\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
