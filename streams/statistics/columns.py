"""What is counted of each product across users: columns that grow, and decay in event time. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sinks.scoring import Product
from sinks.statistics import HALF_LIFE_MS, NEVER, is_news, surprise_of

Rows = NDArray[np.int64]

_SHOWN_HALF_LIFE_MS: Final = 20 * 86_400_000.0
_FORETOLD_HALF_LIFE_MS: Final = 30 * 86_400_000.0  # 60 days are worth as much, 15 less (online-retail)
_DECAYING: Final = {
    **HALF_LIFE_MS,
    "shown": _SHOWN_HALF_LIFE_MS,
    "foretold": _FORETOLD_HALF_LIFE_MS,
    "taken": _FORETOLD_HALF_LIFE_MS,
}
COUNTED: Final = ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown", "foretold", "taken")


class Columns:
    """What is counted of each product: arrays with room to grow. What decays has decayed until `as_of`, and what has
    come since weighs more in return.
    """

    def __init__(self) -> None:
        self.first_sold = self.announced = np.zeros(0, np.int64)
        self.buyers = self.repeats = self.sold_5 = self.sold_20 = self.clicked = self.shown = np.zeros(0)
        self.foretold = np.zeros(0)  # of those it was new to, how many would take it by what was thought of them
        self.taken = np.zeros(0)  # and how many of them took it
        self.lists = 0.0  # lists that `shown` was counted in, decayed like it
        self.as_of = 0

    def reserve(self, products: int) -> None:
        more = max(products, 2 * len(self.buyers), 1024) - len(self.buyers) if products > len(self.buyers) else 0
        if more:
            self.first_sold = np.concatenate([self.first_sold, np.full(more, NEVER, np.int64)])
            self.announced = np.concatenate([self.announced, np.zeros(more, np.int64)])
            for name in COUNTED:
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more)]))

    def gain(self, name: str, at: int) -> float:
        """What one of that time weighs."""
        return float(2.0 ** min((at - self.as_of) / _DECAYING[name], 1000.0))

    def add(self, name: str, rows: Rows | int, at: int, *, times: float | NDArray[np.float64] = 1.0) -> None:
        getattr(self, name)[rows] += times * self.gain(name, at)

    def decay(self, now: int) -> None:
        """Everything that decays, until `now`."""
        self.lists /= self.gain("shown", now)
        for name in _DECAYING:
            setattr(self, name, getattr(self, name) / self.gain(name, now))
        self.as_of = now

    def products(self, rows: Rows, at: int) -> Product:
        """As of `at`; what has decayed already isn't made more again."""
        first, announced = self.first_sold[rows], self.announced[rows]
        first = np.where(is_news(first, announced, at), announced, first)
        never = first == NEVER
        age = np.maximum(at - first, 0).astype(np.float64)
        age[never] = np.inf
        since = max(at, self.as_of)
        return Product(
            sold_20=self.sold_20[rows] / self.gain("sold_20", since),
            sold_5=self.sold_5[rows] / self.gain("sold_5", since),
            clicked=self.clicked[rows] / self.gain("clicked", since),
            age_ms=age,
            never_sold=never.astype(np.float64),
            buyers=self.buyers[rows],
            repeats=self.repeats[rows],
            surprise=self.surprise(rows, since),
        )

    def surprise(self, rows: Rows | slice, at: int) -> NDArray[np.float64]:
        """By `sinks.statistics.surprise_of`."""
        gain = self.gain("foretold", at)
        return surprise_of(self.taken[rows] / gain, self.foretold[rows] / gain)

    def of(self, rows: Rows) -> Columns:
        kept = Columns()
        kept.as_of, kept.lists = self.as_of, self.lists
        kept.first_sold, kept.announced = self.first_sold[rows], self.announced[rows]
        for name in COUNTED:
            setattr(kept, name, getattr(self, name)[rows])
        return kept
