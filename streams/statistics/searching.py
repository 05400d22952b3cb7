"""What people click after they search: a table of clicks by query, and what each searcher clicked last. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.clicks import CLICK_HALF_LIFE_MS, CLICKED_PRODUCTS, ClickTable

_REMEMBERED: Final = 4 * CLICKED_PRODUCTS  # products of a query, so that one that is new can become frequent
_ROOM: Final = 1.25  # the table grows to so many times its bound before the weakest leave
_LATEST: Final = 8  # clicks remembered of a searcher


class Clicks:
    """Clicks by query and product, decayed: each weighs 2^((t - epoch) / half-life), and what is read is less by as
    much as time has gone on. Beyond the bound the queries clicked after least are forgotten.
    """

    def __init__(self, queries: int, epoch: int = 0, weights: dict[int, dict[int, float]] | None = None) -> None:
        self._bound = queries
        self.epoch = epoch  # time of the first click, ms
        self.weights = weights or {}  # by query hash and product row
        self._changed: set[int] = set(self.weights)  # queries whose rows in the table have to be made again
        self._listed: set[int] = set()  # queries that have rows
        self._table = _NOTHING

    def add(self, query: int, product: int, ts: int) -> None:
        if not self.weights:
            self.epoch = ts
        clicked = self.weights.setdefault(query, {})
        clicked[product] = clicked.get(product, 0.0) + float(2.0 ** ((ts - self.epoch) / CLICK_HALF_LIFE_MS))
        self._changed.add(query)
        if len(clicked) > _REMEMBERED:
            del clicked[min((one for one in clicked if one != product), key=clicked.__getitem__)]
        if len(self.weights) > self._bound * _ROOM:
            self._forget()

    def table(self, now: int) -> ClickTable:
        """As of `now`, ms."""
        self._forget()
        new = np.array(sorted(self._changed - self._listed), np.uint64)
        queries, products, clicks = self._table
        at = np.searchsorted(queries, new)
        self._table = queries, products, clicks = (
            np.insert(queries, at, new),
            np.insert(products, at, 0, axis=0),
            np.insert(clicks, at, 0.0, axis=0),
        )
        self._listed |= self._changed
        for query in self._changed:
            best = sorted(self.weights[query].items(), key=_strongest)[:CLICKED_PRODUCTS]
            place = int(np.searchsorted(queries, np.uint64(query)))
            products[place, : len(best)] = [product for product, _ in best]
            clicks[place, : len(best)] = [weight for _, weight in best]
        self._changed = set()
        fade = 2.0 ** (-(now - self.epoch) / CLICK_HALF_LIFE_MS)
        return ClickTable(queries, products.copy(), (clicks * fade).astype(np.float32))

    def shares(self, query: int, ts: int, sure: float) -> dict[int, float]:
        """Of what was clicked after a query, each product's share; the rest is what `sure` clicks more would be."""
        clicked = self.weights.get(query)
        if clicked is None:
            return {}
        unknown = sure * float(2.0 ** ((ts - self.epoch) / CLICK_HALF_LIFE_MS))
        total = sum(clicked.values()) + unknown
        return {product: weight / total for product, weight in clicked.items()}

    def reordered(self, new_row: NDArray[np.int64]) -> None:
        """Products have other rows now; -1 for those that are forgotten."""
        rows = new_row.tolist()
        for query, clicked in list(self.weights.items()):
            kept = {rows[product]: weight for product, weight in clicked.items() if rows[product] >= 0}
            if kept:
                self.weights[query] = kept
            else:
                del self.weights[query]
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._changed = set(self.weights)
        self._listed = set()
        self._table = _NOTHING

    def _forget(self) -> None:
        if len(self.weights) > self._bound:
            strength = sorted(self.weights, key=lambda query: (-sum(self.weights[query].values()), query))
            self.weights = {query: self.weights[query] for query in strength[: self._bound]}
            self._begin_anew()


_NOTHING: Final = (
    np.zeros(0, np.uint64),
    np.zeros((0, CLICKED_PRODUCTS), np.int32),
    np.zeros((0, CLICKED_PRODUCTS)),
)


class Click(NamedTuple):
    ts: int  # ms
    query: int  # its hash
    product: int  # its row


class Searchers:
    """The latest clicks of those who clicked last, so many users."""

    def __init__(self, users: int, latest: Mapping[int, Sequence[Click]] | None = None) -> None:
        self._bound = users
        self._latest = OrderedDict((user, list(clicks)) for user, clicks in (latest or {}).items())

    def add(self, user: int, click: Click) -> None:
        clicks = self._latest.setdefault(user, [])
        clicks.append(click)
        del clicks[:-_LATEST]
        self._latest.move_to_end(user)
        if len(self._latest) > self._bound:
            self._latest.popitem(last=False)

    def clicks(self, user: int) -> Sequence[Click]:
        """Oldest first."""
        return self._latest.get(user, ())

    def all(self) -> Mapping[int, Sequence[Click]]:
        """Who clicked longest ago comes first."""
        return self._latest

    def reordered(self, new_row: NDArray[np.int64]) -> None:
        rows = new_row.tolist()
        for user, clicks in list(self._latest.items()):
            kept = [click._replace(product=rows[click.product]) for click in clicks if rows[click.product] >= 0]
            if kept:
                self._latest[user] = kept
            else:
                del self._latest[user]


def _strongest(item: tuple[int, float]) -> tuple[float, int]:
    product, weight = item
    return -weight, product
