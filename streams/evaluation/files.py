"""The events that an evaluation is made of, read whole: a line that can't be understood ends it, named."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from streams.event_files import MAX_LINE, lines, opened
from streams.events import InvalidEvent, Product, Purchase, Search, decode_product, decode_purchase, decode_search
from streams.products import stored_product

_E = TypeVar("_E", Search, Purchase, Product)


class UnfitFile(ValueError):
    """A file that is not there, or has a line that is no such event: which file and line, and what is wrong."""


class Shop(NamedTuple):
    """What there is to buy, and what happened, each in the order of its file."""

    products: list[Product]
    purchases: list[Purchase]
    searches: list[Search]


def read_shop(products: str, purchases: str | None, searches: str | None) -> Shop:
    """From files of JSON lines, plain, .gz or .zst. Raises UnfitFile and `streams.event_files.UnreadableFile`."""
    return Shop(
        _read(products, _product),
        _read(purchases, decode_purchase) if purchases else [],
        _read(searches, decode_search) if searches else [],
    )


def _read(name: str, decode: Callable[[bytes, int], _E]) -> list[_E]:
    if not Path(name).is_file():
        raise UnfitFile(f"there is no file {name}")
    now_ms = time.time_ns() // 1_000_000
    events = []
    with opened(name) as (content, _, _):
        for number, line in lines(content, name):
            try:
                if len(line) > MAX_LINE:
                    raise InvalidEvent("value", f"is longer than {MAX_LINE} bytes")
                events.append(decode(line, now_ms))
            except InvalidEvent as error:
                raise UnfitFile(f"{name}:{number}: {error}") from None
    return events


def _product(line: bytes, now_ms: int) -> Product:
    product = decode_product(line, now_ms)
    assert product is not None  # only a null value is a deletion, and a line is bytes
    stored_product(product)
    return product
