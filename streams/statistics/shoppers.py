"""What is remembered of one user of the sample: what they bought, and how often. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sinks.ledgers import ORDER_DECAY
from sinks.scoring import Habit

BOUGHT = np.dtype(
    [("row", "<i4"), ("times", "<i4"), ("recency", "<f4"), ("first", "<i4"), ("last", "<i4"), ("last_ts", "<i8")]
)


@dataclass(slots=True)
class Shopper:
    """One user of the sample. `bought` has a row a product; orders are counted from 1."""

    bought: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, BOUGHT))
    orders: int = 0
    repeats: int = 0
    later_lines: int = 0
    last_ts: int = 0

    def with_lines(self, rows: NDArray[np.int64], ts: int) -> NDArray[np.void]:
        """`bought`, and a row each for these, which are in it for the first time, by the latest order."""
        grown = np.empty(len(self.bought) + len(rows), BOUGHT)
        grown[: len(self.bought)] = self.bought
        lines = grown[len(self.bought) :]
        lines["row"], lines["times"], lines["recency"] = rows, 1, 1.0
        lines["first"] = lines["last"] = self.orders
        lines["last_ts"] = ts
        return grown


def habit_of(shopper: Shopper, which: NDArray[np.bool_], ts: int) -> Habit:
    """What a user did with those of the products they bought."""
    bought = shopper.bought[which]
    return Habit(
        times=bought["times"].astype(np.float64),
        recency=bought["recency"] * ORDER_DECAY ** (shopper.orders - bought["last"]),
        orders_since_first=(shopper.orders - bought["first"]).astype(np.float64),
        since_ms=np.maximum(ts - bought["last_ts"], 0).astype(np.float64),
        orders=shopper.orders,
        repeats=shopper.repeats,
        later_lines=shopper.later_lines,
    )
