"""What might be shown to one user, and what speaks for it: the features that weights are learned of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.scoring import (
    BOUGHT_BEFORE,
    DAY_MS,
    UNSURE_CLICKS,
    Searched,
    asked_of,
    bought_features,
    just_clicked_of,
    likeness_of,
    new_features,
    together_of,
)
from sinks.statistics import Neighbourhood, no_neighbours
from streams.statistics.columns import Columns
from streams.statistics.searching import Click, Clicks
from streams.statistics.shoppers import Shopper, habit_of

Rows = NDArray[np.int64]

_INTEREST_MS: Final = 30 * DAY_MS  # half-life of a searcher's earlier queries


class Similarities(NamedTuple):
    """What is near what, as of one moment: products that came since have no neighbours yet."""

    together: Neighbourhood  # bought by the same people
    alike: Neighbourhood  # of like text
    related: Neighbourhood  # by the catalogue's word
    viewed: Neighbourhood  # clicked in one visit
    kin: Neighbourhood  # of one brand and category

    @classmethod
    def none(cls) -> Similarities:
        """Of no products."""
        return cls(no_neighbours(0), no_neighbours(0), no_neighbours(0, 0), no_neighbours(0, 0), no_neighbours(0, 0))

    def widened(self, products: int) -> Similarities:
        """With rows for all of so many products."""
        return Similarities(*(_widened(one, products) for one in self))


class Offered(NamedTuple):
    """What might be shown to one user, and what speaks for it."""

    pool: Rows  # new to the user
    new: NDArray[np.float64]  # [pool, `NEW_TO_THE_PERSON`]
    seen: Rows  # bought before
    again: NDArray[np.float64]  # [seen, `BOUGHT_BEFORE`]


class Offering(NamedTuple):
    """What a shop has to show at the time `ts`."""

    near: Similarities
    popular: Rows
    others: Rows
    """What else is to be among what might be shown."""
    columns: Columns
    clicks: Clicks
    products: int
    ts: int

    def to_shopper(self, shopper: Shopper, clicked: Sequence[Click]) -> Offered | None:
        """To somebody who has bought and, perhaps, `clicked`; None where nothing is known that could be."""
        history = shopper.bought["row"].astype(np.int64)
        products = len(self.near.together.rows)
        seen = history[history < products]
        if not products or not len(seen):
            return None
        together, alike = self.near.together.around(seen), self.near.alike.around(seen)
        related, kin = self.near.related.around(seen)[:products], self.near.kin.around(seen)[:products]
        viewed = self._around_views(clicked, products)
        pool = self._pool((together > 0.0) | (alike > 0.0) | (related > 0.0) | (kin > 0.0) | (viewed > 0.0), but=seen)
        new = new_features(
            together_of(together[pool], len(history)),
            likeness_of(alike[pool], len(history)),
            together_of(related[pool], len(history)),
            together_of(kin[pool], len(history)),
            self.columns.products(pool, self.ts),
            self._searched(clicked, viewed, pool),
        )
        again = bought_features(
            together_of(together[seen], len(history)),
            likeness_of(alike[seen], len(history)),
            self.columns.products(seen, self.ts),
            habit_of(shopper, history < products, self.ts),
        )
        return Offered(pool, new, seen, again)

    def to_searcher(self, clicked: Sequence[Click]) -> Offered | None:
        """The same, to somebody who only searches."""
        products = len(self.near.alike.rows)
        seen = np.array([click.product for click in clicked if click.product < products], np.int64)
        if not len(seen):
            return None
        alike, related = self.near.alike.around(seen), self.near.related.around(seen)[:products]
        viewed = self._around_views(clicked, products)
        nothing = seen[:0]
        pool = self._pool((alike > 0.0) | (related > 0.0) | (viewed > 0.0), but=nothing)
        new = new_features(
            np.zeros(len(pool)),
            likeness_of(alike[pool], len(clicked)),
            together_of(related[pool], len(clicked)),
            np.zeros(len(pool)),
            self.columns.products(pool, self.ts),
            self._searched(clicked, viewed, pool),
        )
        return Offered(pool, new, nothing, np.zeros((0, len(BOUGHT_BEFORE))))

    def _pool(self, near: NDArray[np.bool_], *, but: Rows) -> Rows:
        """What is near, what is popular, and the others."""
        near[self.popular] = True
        near[self.others] = True
        near[but] = False
        return np.flatnonzero(near)

    def _around_views(self, clicked: Sequence[Click], products: int) -> NDArray[np.float64]:
        """How near each of the first `products` is to what was clicked, [products]."""
        known = len(self.near.viewed.rows)
        return self.near.viewed.around(np.array([one for one in _each(clicked) if one < known], np.int64))[:products]

    def _searched(self, clicked: Sequence[Click], viewed: NDArray[np.float64], rows: Rows) -> Searched:
        """What a searcher's latest clicks, and those of others after the same queries, or in one visit with the same
        products, say of these products.
        """
        if not clicked:
            return Searched.nothing(len(rows))
        shares, just = np.zeros(self.products), np.zeros(self.products)
        weights = np.exp2([-(self.ts - click.ts) / _INTEREST_MS for click in clicked])
        for click, weight in zip(clicked, (weights / weights.sum()).tolist(), strict=True):
            for product, share in self.clicks.shares(click.query, self.ts, UNSURE_CLICKS).items():
                shares[product] += weight * share
        for click in clicked:
            just[click.product] = just_clicked_of(np.array([self.ts - click.ts], np.float64))[0]
        return Searched(asked_of(shares[rows]), just[rows], together_of(viewed[rows], len(_each(clicked))))


def _each(clicked: Sequence[Click]) -> dict[int, None]:
    """What was clicked, each product once."""
    return dict.fromkeys(click.product for click in clicked)


def _widened(neighbours: Neighbourhood, products: int) -> Neighbourhood:
    more = no_neighbours(products - len(neighbours.rows), neighbours.rows.shape[1])
    return Neighbourhood(*(np.concatenate(parts) for parts in zip(neighbours, more, strict=True)))
