"""What is known across users: what is bought together, what sells, what is new, and what that is worth.

Made from the events of a sample of users by `streams.statistics`, and only read by everybody else. It is approximate,
decayed in event time, and never part of a profile's state: a ledger is a function of its user's own events alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sinks.clicks import NO_CLICKS, ClickTable, decode_clicks, encode_clicks
from sinks.scoring import PRIOR, Weights

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]

NEIGHBOURS: Final = 50
"""Most neighbours kept of a product, of each kind."""

RELATED: Final = 16
"""Most products kept that one goes with, or is clicked in one visit with."""

HALF_LIFE_MS: Final = {"sold_5": 5 * 86_400_000.0, "sold_20": 20 * 86_400_000.0, "clicked": 14 * 86_400_000.0}
"""After it, a sale (or a click) counts half."""

COUNTS: Final = ("sold_20", "sold_5", "clicked", "buyers", "repeats", "surprise")

NEVER: Final = np.iinfo(np.int64).max
"""When a product was first sold that was only clicked."""

NEWS_MS: Final = 30 * 86_400_000
"""For so long a product that nobody bought yet is news."""

_POPULAR: Final = 200
_UNSURPRISING: Final = 10.0  # of so many buyers what was foretold is believed by half; 3 are worth as much
_LISTS: Final = 1000.0  # lists that `shown` is counted in


class Neighbourhood(NamedTuple):
    """For each product its nearest others: rows [n, k] and their similarities, 0 where there are fewer."""

    rows: Rows
    similarity: Floats

    def around(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How near every product is to these together: the sum of its similarities, [n]."""
        sums: NDArray[np.float64] = np.bincount(
            self.rows[rows].ravel(), weights=self.similarity[rows].ravel(), minlength=len(self.rows)
        ).astype(np.float64, copy=False)
        return sums

    def strongest(self, rows: NDArray[np.int64], products: NDArray[np.int64], at_most: int) -> list[list[int]]:
        """Of each product (each once, some thousands at most), which of `rows` add most to its nearness: their places
        in `rows`, the strongest first, ties in order.
        """
        wanted = np.full(len(self.rows), -1, np.int16)
        wanted[products] = np.arange(len(products))
        of = wanted[self.rows[rows]].ravel()
        at = np.flatnonzero(of >= 0)
        places, columns = np.divmod(at, self.rows.shape[1])
        similarity = self.similarity[rows[places], columns]
        order = np.lexsort((places, -similarity, of[at]))
        order = order[similarity[order] > 0.0]
        of, places = of[at[order]], places[order]
        first = np.arange(len(of)) - np.searchsorted(of, of) < at_most
        found: list[list[int]] = [[] for _ in range(len(products))]
        for product, place in zip(of[first].tolist(), places[first].tolist(), strict=True):
            found[product].append(place)
        return found


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the products that somebody bought or clicked, and of those that the catalogue relates to others, one row each.
    All columns are parallel, [n].

    Counts are those of the sampled users. `sold_5`, `sold_20` and `clicked` have decayed until `as_of`, by the
    half-lives of `HALF_LIFE_MS`.
    """

    as_of: int  # event time, ms
    product_ids: Sequence[str]
    first_sold: NDArray[np.int64]  # event time, ms; `NEVER` where it wasn't
    announced: NDArray[np.int64]  # ms, when the catalogue says so of a product that it relates to others; else 0
    buyers: Floats
    repeats: Floats  # lines by which a buyer bought it again
    sold_5: Floats
    sold_20: Floats
    clicked: Floats
    shown: Floats  # of 1,000 recent lists, how many hold it
    surprise: Floats  # by `surprise_of`
    together: Neighbourhood  # bought by the same people
    alike: Neighbourhood  # of like text
    related: Neighbourhood  # by the catalogue's word, and bought together with those
    viewed: Neighbourhood  # clicked in one visit
    kin: Neighbourhood  # from what a brand or category is bought together with to its newest products
    weights: Weights = PRIOR
    clicks: ClickTable = NO_CLICKS
    rows: Mapping[str, int] = field(init=False)
    ids: NDArray[np.object_] = field(init=False)
    """`product_ids` as an array."""
    counts: NDArray[np.float32] = field(init=False)
    """The columns of `COUNTS`, [n, 6]."""
    popular: NDArray[np.int64] = field(init=False)
    """Rows of what sells best now, to somebody of whom nothing is known."""
    unseen: NDArray[np.bool_] = field(init=False)
    """What nobody has bought or clicked, [n]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", {product_id: row for row, product_id in enumerate(self.product_ids)})
        object.__setattr__(self, "ids", np.array([*self.product_ids, None], np.object_)[:-1])
        object.__setattr__(self, "counts", np.stack([getattr(self, name) for name in COUNTS], axis=1))
        selling = np.log1p(self.sold_5) + np.log1p(self.sold_20) + np.log1p(self.clicked)
        object.__setattr__(self, "popular", np.argsort(-selling, kind="stable")[:_POPULAR])
        object.__setattr__(self, "unseen", (self.first_sold == NEVER) & (self.clicked == 0.0))

    def __len__(self) -> int:
        return len(self.product_ids)

    def rows_of(self, product_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each product, -1 where there is none."""
        find = self.rows.get
        return np.array([find(product_id, -1) for product_id in product_ids], np.int64)

    def exposure(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """ln(1 + e) of these rows, e being how many of 1,000 recent lists showed the product."""
        return np.log1p(self.shown[rows].astype(np.float64))


def is_news(first_sold: NDArray[np.int64], announced: NDArray[np.int64], at: int) -> NDArray[np.bool_]:
    """Whether a product was announced lately, and nobody has bought it yet."""
    news: NDArray[np.bool_] = (first_sold == NEVER) & (announced > at - NEWS_MS) & (announced <= at) & (announced > 0)
    return news


def shown_in_a_thousand(shown: NDArray[np.float64], lists: float) -> Floats:
    """Counts of showings as a share of the lists they are from; of few lists, the counts themselves."""
    return (shown * (_LISTS / max(lists, _LISTS))).astype(np.float32)


def surprise_of(taken: NDArray[np.float64], foretold: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln((taken + 10) / (foretold + 10)): how much more often those it was new to took a product than the score had
    foretold, both decayed. What nothing else tells of it: a gamma-Poisson rate, so that little says little.
    """
    ratio: NDArray[np.float64] = np.log((taken + _UNSURPRISING) / (foretold + _UNSURPRISING))
    return ratio


def no_neighbours(products: int, most: int = NEIGHBOURS) -> Neighbourhood:
    return Neighbourhood(np.zeros((products, most), np.int32), np.zeros((products, most), np.float32))


NO_STATISTICS: Final = Statistics(
    as_of=0,
    product_ids=(),
    first_sold=np.zeros(0, np.int64),
    announced=np.zeros(0, np.int64),
    buyers=np.zeros(0, np.float32),
    repeats=np.zeros(0, np.float32),
    sold_5=np.zeros(0, np.float32),
    sold_20=np.zeros(0, np.float32),
    clicked=np.zeros(0, np.float32),
    shown=np.zeros(0, np.float32),
    surprise=np.zeros(0, np.float32),
    together=no_neighbours(0),
    alike=no_neighbours(0),
    related=no_neighbours(0, 0),
    viewed=no_neighbours(0, 0),
    kin=no_neighbours(0, 0),
)
"""Of a shop of which nothing is known yet."""


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    format: int
    as_of: int
    product_ids: list[str]
    first_sold: bytes
    announced: bytes
    columns: bytes
    together: bytes
    alike: bytes
    related: bytes  # empty where nothing is
    viewed: bytes  # likewise
    kin: bytes  # likewise
    weights: bytes
    clicks: bytes


_FORMAT: Final = 6
_COLUMNS: Final = ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown", "surprise")


def encode_statistics(statistics: Statistics) -> bytes:
    """Some 650 bytes a product, most of them for its neighbours; 100 more where products are related, where they are
    clicked, and where brands or categories have new ones.
    """
    return msgspec.msgpack.encode(
        _Wire(
            _FORMAT,
            statistics.as_of,
            list(statistics.product_ids),
            statistics.first_sold.astype("<i8").tobytes(),
            statistics.announced.astype("<i8").tobytes(),
            np.stack([getattr(statistics, name) for name in _COLUMNS]).astype("<f4").tobytes(),
            _encoded(statistics.together),
            _encoded(statistics.alike),
            _encoded(statistics.related),
            _encoded(statistics.viewed),
            _encoded(statistics.kin),
            np.concatenate(statistics.weights).astype("<f8").tobytes(),
            encode_clicks(statistics.clicks),
        )
    )


def decode_statistics(data: bytes) -> Statistics:
    """Raises ValueError where they were written by another version."""
    try:
        wire = msgspec.msgpack.decode(data, type=_Wire)
    except msgspec.DecodeError as error:
        raise ValueError(f"the statistics can't be read by this version ({error})") from error
    weights = np.frombuffer(wire.weights, "<f8")
    if wire.format != _FORMAT or len(weights) != sum(map(len, PRIOR)):
        raise ValueError(f"the statistics are of format {wire.format}, and this version reads {_FORMAT}")
    products = len(wire.product_ids)
    columns = np.frombuffer(wire.columns, "<f4").reshape(len(_COLUMNS), products)
    return Statistics(
        as_of=wire.as_of,
        product_ids=wire.product_ids,
        first_sold=np.frombuffer(wire.first_sold, "<i8"),
        announced=np.frombuffer(wire.announced, "<i8"),
        together=_decoded(wire.together, products),
        alike=_decoded(wire.alike, products),
        related=_decoded(wire.related, products),
        viewed=_decoded(wire.viewed, products),
        kin=_decoded(wire.kin, products),
        weights=Weights(weights[: len(PRIOR.new)], weights[len(PRIOR.new) :]),
        clicks=decode_clicks(wire.clicks),
        **dict(zip(_COLUMNS, columns, strict=True)),
    )


def _encoded(neighbours: Neighbourhood) -> bytes:
    return neighbours.rows.astype("<i4").tobytes() + neighbours.similarity.astype("<f2").tobytes()


def _decoded(data: bytes, products: int) -> Neighbourhood:
    shape = products, len(data) // (6 * max(products, 1))
    split = 4 * shape[0] * shape[1]
    rows = np.frombuffer(data[:split], "<i4").reshape(shape)
    similarity = np.frombuffer(data[split:], "<f2").reshape(shape).astype(np.float32)
    return Neighbourhood(rows, similarity)
