"""What an evaluation scores is what the running system shows, as far as statistics are the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from machine import afterglow, running
from seeded_shop import START, produce, write_events

pytestmark = pytest.mark.end_to_end

CUT = START + 500_000_000
"""Most of the seeded shop's purchases come before it, and all of its users are known by then."""


_SHARED = 0.95
"""Of a list. Topics are sent one after the other, so that statistics know of clicks only after all purchases, which an
evaluation by time learns from before; in a shop where everything is bought by chance, so much nearly ties.
"""


def test_its_lists_are_nearly_those_that_recommend_prints_at_the_cut(tmp_path: Path) -> None:
    write_events(tmp_path)
    _in_order_of_time(tmp_path)
    dump = tmp_path / "lists.jsonl"
    files = [f"--{kind}={tmp_path / kind}.jsonl.gz" for kind in ("products", "purchases", "searches")]
    asked = ["--cut", str(CUT), "--dump", str(dump)]
    afterglow(tmp_path / "nothing-runs", "evaluate", *files, *asked)
    orders = [line for line in map(json.loads, dump.read_text().splitlines()) if line["task"] == "next_order"]
    users = [line["user_id"] for line in orders]
    assert len(users) == 60

    data, before = tmp_path / "data", tmp_path / "before"
    before.mkdir()
    (before / "products.jsonl.gz").write_bytes((tmp_path / "products.jsonl.gz").read_bytes())
    for topic in ("purchases", "searches"):
        history = [line for line in _lines(tmp_path / f"{topic}.jsonl.gz") if json.loads(line)["ts"] < CUT]
        _write(before / f"{topic}.jsonl.gz", history)
    with running(data):
        for topic in ("products", "purchases", "searches"):
            produce(data, before, topic, "--wait")
        (tmp_path / "users.txt").write_text("\n".join(users))
        many = ["recommend", "--users-from", str(tmp_path / "users.txt"), "--at", str(CUT), "--json"]
        served = [json.loads(line) for line in afterglow(data, *many).splitlines()]
    assert [one["user_id"] for one in served] == users
    shared = [len(_ids(line["items"]) & _ids(one["items"])) / 20 for line, one in zip(orders, served, strict=True)]
    assert sum(shared) / len(shared) >= _SHARED


def _in_order_of_time(folder: Path) -> None:
    """The seeded shop's purchases come late at times, which a stream folds as they come and an evaluation by time.

    Each line is an order of its own, so that none is cut in two.
    """
    file = folder / "purchases.jsonl.gz"
    purchases = [{**json.loads(line), "order_id": None} for line in _lines(file)]
    _write(file, [json.dumps(purchase) + "\n" for purchase in sorted(purchases, key=lambda one: one["ts"])])


def _lines(file: Path) -> list[str]:
    with gzip.open(file, "rt") as opened:
        return opened.readlines()


def _write(file: Path, lines: list[str]) -> None:
    with gzip.open(file, "wt") as opened:
        opened.writelines(lines)


def _ids(items: list[dict[str, str]]) -> set[str]:
    return {item["product_id"] for item in items}
