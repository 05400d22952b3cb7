"""Texts and events of real shops, from the folder of `Options.data`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from benchmarks.rows import NotHere
from benchmarks.shop import Event

from encoders.text import clean


def lines(data: Path, file: str) -> Iterator[dict[str, Any]]:
    """The objects of `file`.jsonl.gz, in their order."""
    path = data / f"{file}.jsonl.gz"
    if not path.is_file():
        raise NotHere(f"there is no {path}: give the folder of real data, by --data or AFTERGLOW_DATA")
    with gzip.open(path) as opened:
        yield from map(json.loads, opened)


def unique_texts(data: Path, file: str, field: str) -> list[str]:
    """Cleaned, in the order of their first appearance."""
    return [text for text in dict.fromkeys(clean(line[field]) for line in lines(data, file)) if text]


def products(data: Path, shop: str) -> list[dict[str, Any]]:
    """Those of `shop` whose title says something, as events of the topic `products`."""
    return [line for line in lines(data, f"{shop}/products") if clean(line["title"])]


def purchases(data: Path, shop: str) -> Iterator[Event]:
    """Those of `shop`, in their order: an order's lines come one after the other."""
    for purchase in lines(data, f"{shop}/purchases"):
        yield Event("purchases", purchase["user_id"], orjson.dumps(purchase))


def text_of(product: dict[str, Any]) -> str:
    """What is encoded of a product."""
    return " ".join(part for part in (product["title"], product.get("brand"), product.get("category")) if part)
