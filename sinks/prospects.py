"""How likely one person's next order holds each product that they might be shown. Pure.

A product's score is a log-odds (`sinks.scoring`) of what is known of the person and what is known across users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.clicks import query_hash
from sinks.derivation import Taste
from sinks.ledgers import ORDER_DECAY, ProfileState, is_query
from sinks.scoring import (
    BOUGHT_BEFORE,
    NEW_TO_THE_PERSON,
    UNSURE_CLICKS,
    Habit,
    Product,
    Searched,
    asked_of,
    bought_features,
    just_clicked_of,
    likeness_of,
    new_features,
    together_of,
)
from sinks.statistics import COUNTS, HALF_LIFE_MS, NEVER, NEWS_MS, Statistics, is_news

_LEAST_SIMILARITY: Final = 1e-3
_NO_CLICKS: Final = 1e-300
_SURE: Final = 10.0  # what closeness to a query is measured in: e^10 times as likely for a cosine of 1 as for 0
_WORDS: Final = 0.6  # and what their BM25 is


_PER_HALF_LIFE: Final = np.array([1.0 / HALF_LIFE_MS[name] if name in HALF_LIFE_MS else 0.0 for name in COUNTS])

Ids = NDArray[np.object_]

Hit = tuple[str, float]
"""A product found near something asked for, with its centred cosine similarity."""

Source = tuple[str, int]
"""What a product was found near: "interest" and its number, or "recent" and 0."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found near a person: for each interest, in order; near the recent taste; near a query asked for."""

    interests: Sequence[Sequence[Hit]]
    recent: Sequence[Hit] = ()
    query: Sequence[Hit] | None = None
    announced: Mapping[str, int] = field(default_factory=dict)
    """When the catalogue said so of what was found, ms."""
    clicked: Mapping[str, float] = field(default_factory=dict)
    """How often others clicked each product after that query."""
    words: Mapping[str, float] = field(default_factory=dict)
    """What the query's words are worth in each product, by BM25."""


class Prospects:
    """Every product that one person might be shown. Columns are parallel, [n]: products new to the person, then those
    bought before.
    """

    def __init__(
        self, state: ProfileState, taste: Taste, found: Found, statistics: Statistics, *, exclude_bought: bool
    ) -> None:
        """With a query, those found near it, and no others."""
        self.state = state
        self.taste = taste
        self.found = found
        self.statistics = statistics
        self.sources = _sources(taste, found)
        self.nearness = _added_up(self.sources)
        self._asked = None if found.query is None else dict(found.query)
        self._found_rows = statistics.rows_of(tuple(self.nearness))
        self._exclude_bought = exclude_bought
        self.clicked_rows = statistics.rows_of([key[1:] for key in state.searches.keys if not is_query(key)])
        self.clicked_rows = self.clicked_rows[self.clicked_rows >= 0]
        """In the statistics, of what the person clicked."""
        scored = self._score()
        self.ids = scored.ids
        self.rows = scored.rows
        """In the statistics, -1 where they don't know the product."""
        self.scores = scored.scores
        self.bought = np.arange(len(scored.ids)) >= len(scored.ids) - len(scored.habits)
        self.features = scored.features
        """[n, `NEW_TO_THE_PERSON`], as if nothing had been bought before."""
        self.habits = scored.habits
        """[bought before, `BOUGHT_BEFORE`]"""
        self.after = scored.after
        """What clicks after the query asked for add."""

    def closeness(self, product_id: str) -> float:
        """Of a product's text and the query's, by meaning and by words; 0 where nothing is asked for."""
        if self._asked is None:
            return 0.0
        return _SURE * max(self._asked[product_id], 0.0) + _WORDS * self.found.words.get(product_id, 0.0)

    def _score(self) -> _Scored:
        statistics = self.statistics
        ledger = self.state.purchases
        history = [key[1:] for key in ledger.keys]
        rows = statistics.rows_of(history)
        own = rows[rows >= 0]
        asked = self._others_clicked()
        together, alike = statistics.together.around(own), statistics.alike.around(own)
        related, kin = statistics.related.around(own), statistics.kin.around(own)
        viewed = statistics.viewed.around(self.clicked_rows)
        if self._asked is None:
            near = (together > 0.0) | (alike > 0.0) | (related > 0.0) | (kin > 0.0)
            near[statistics.popular] = True
            found = self._found_rows
            near[found[found >= 0]] = True
            near[(asked > 0.0) | (viewed > 0.0)] = True
            near[own] = False
            known = np.flatnonzero(near)
            bought = set(history)
            unsold = [
                product_id
                for product_id, row in zip(self.nearness, found.tolist(), strict=True)
                if row < 0 and product_id not in bought
            ]
            new = np.concatenate([statistics.ids[known], _objects(unsold)])
            rows_of_new = np.concatenate([known, np.full(len(unsold), -1)])
            again = list(range(len(history)))
        else:
            bought = set(history)
            new = _objects([product_id for product_id in self._asked if product_id not in bought])
            rows_of_new = statistics.rows_of(new.tolist())
            again = [place for place, product_id in enumerate(history) if product_id in self._asked]
        if self._exclude_bought:
            again = []
        ids = np.concatenate([new, _objects([history[place] for place in again])])
        around = _Around(together, alike, related, kin, viewed, asked)
        return self._scores_of(ids, np.concatenate([rows_of_new, rows[again]]), again, around)

    def _scores_of(self, ids: Ids, rows: NDArray[np.int64], again: list[int], around: _Around) -> _Scored:
        """`rows` of `ids` in the statistics; the last of them are those of these places in the history."""
        statistics = self.statistics
        new = len(ids) - len(again)
        together = self._with_history(around.together, rows)
        likeness = self._likeness(ids, rows, around.alike)
        related, kin = self._with_history(around.related, rows), self._with_history(around.kin, rows)
        products = self._products(ids, rows)
        searched = self._searched(ids, rows, around)
        features = new_features(together, likeness, related, kin, products, searched)
        scores = features @ statistics.weights.new
        of_nobody = features[:, _OF_NOBODY] @ statistics.weights.new[_OF_NOBODY]
        habits = np.zeros((len(again), len(BOUGHT_BEFORE)))
        if again:
            rest = slice(new, None)
            habit = _habit(self.state, self.taste.at, again)
            habits = bought_features(together[rest], likeness[rest], _of(products, rest), habit)
            scores[rest] = habits @ statistics.weights.bought
        after = np.zeros(len(ids))
        if self._asked is not None:
            expected, after = self._answered(ids, of_nobody)
            # P(product | query, person) ~ P(product | query) · P(product | person) / P(product)
            scores = scores - of_nobody + expected + after
        return _Scored(ids, rows, scores, features, habits, after)

    def _with_history(self, near: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """`together_of` what is near to everything that was bought."""
        sums = np.zeros(len(rows))
        sums[rows >= 0] = near[rows[rows >= 0]]
        return together_of(sums, len(self.state.purchases.keys))

    def _answered(self, ids: Ids, of_nobody: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """ln of the share of the clicks after the query that each product may expect from people unknown: of what
        texts and popularity say; and what the clicks that there were add to it.

        The former, π = softmax(closeness + z), is worth a few clicks, μ: the share is (n + μ π) / (N + μ), by n of
        N clicks: Dirichlet smoothing (Zhai and Lafferty 2001, eq. 6). The more is known of a query, the less its words
        and the person matter.
        """
        if not len(ids):
            return np.zeros(0), np.zeros(0)
        assert self._asked is not None
        expected = np.array([self.closeness(product_id) for product_id in ids]) + of_nobody
        expected -= expected.max()
        expected -= math.log(np.exp(expected).sum())
        clicks = np.array([self.found.clicked.get(product_id, 0.0) for product_id in ids])
        # n + μ π by its logarithm: π may be too small for a number
        smoothed = np.logaddexp(np.log(np.maximum(clicks, _NO_CLICKS)), math.log(UNSURE_CLICKS) + expected)
        return expected, smoothed - math.log(clicks.sum() + UNSURE_CLICKS) - expected

    def _others_clicked(self) -> NDArray[np.float64]:
        """Of the clicks of others after this person's queries, the share of each product of the statistics, [n]."""
        statistics, ledger = self.statistics, self.state.searches
        shares = np.zeros(len(statistics))
        queries = [(place, key[1:]) for place, key in enumerate(ledger.keys) if is_query(key)]
        if not queries or not len(statistics.clicks.queries):
            return shares
        weights = ledger.history["weight"][[place for place, _ in queries]]
        weights = np.exp2(weights - weights.max())
        for (_, query), weight in zip(queries, (weights / weights.sum()).tolist(), strict=True):
            rows, clicks = statistics.clicks.of(query_hash(query))
            shares[rows] += weight * clicks / (clicks.sum() + UNSURE_CLICKS)
        return shares

    def _searched(self, ids: Ids, rows: NDArray[np.int64], around: _Around) -> Searched:
        ledger, at = self.state.searches, self.taste.at
        there = rows >= 0
        asked, viewed = np.zeros(len(ids)), np.zeros(len(ids))
        asked[there] = asked_of(around.asked[rows[there]])
        viewed[there] = together_of(around.viewed[rows[there]], len(self.clicked_rows))
        just = np.zeros(len(ids))
        last = {
            key[1:]: 1000.0 * seconds
            for key, seconds in zip(ledger.keys, ledger.history["last"].tolist(), strict=True)
            if not is_query(key)
        }
        if last:
            just = just_clicked_of(at - self._said(last, ids, rows, -np.inf))
        return Searched(asked, just, viewed)

    def _said(
        self, values: Mapping[str, float], ids: Ids, rows: NDArray[np.int64], otherwise: float
    ) -> NDArray[np.float64]:
        """The value of each product, parallel to `ids` and to their `rows` in the statistics."""
        said = np.array(list(values.values()), np.float64)
        rows_said = self._found_rows if values is self.nearness else self.statistics.rows_of(tuple(values))
        of_row = np.full(len(self.statistics) + 1, otherwise)  # the last one is of row -1
        of_row[rows_said[rows_said >= 0]] = said[rows_said >= 0]
        found = of_row[rows]
        for place in np.flatnonzero(rows < 0).tolist():
            found[place] = values.get(ids[place], otherwise)
        return found

    def _likeness(self, ids: Ids, rows: NDArray[np.int64], alike: NDArray[np.float64]) -> NDArray[np.float64]:
        """By the neighbours of everything that was bought: what the weights were learned with.

        Where that knows nothing, of products that nobody bought and of searches, by what lies near the interests.
        """
        searches, purchases = self.state
        bought = len(purchases.keys)
        # An interest's share of the history stands for that many of its keys.
        keys = max(len(searches.keys) + bought, 1) * max(bought, 1)
        there = rows >= 0
        sums = np.zeros(len(ids))
        sums[there] = alike[rows[there]]
        unseen = ~there
        unseen[there] = self.statistics.unseen[rows[there]]
        asked = unseen if bought and not searches.keys else np.ones(len(ids), np.bool_)
        near = self._said(self.nearness, ids, rows, 0.0)
        sums[asked] = np.maximum(sums[asked], near[asked] * math.sqrt(keys))
        return likeness_of(sums, bought)

    def _products(self, ids: Ids, rows: NDArray[np.int64]) -> Product:
        """Columns of all these products; of those that nobody bought, what is known of such a product."""
        statistics, at = self.statistics, self.taste.at
        there = np.flatnonzero(rows >= 0)
        known = rows[there]
        age = np.full(len(ids), np.inf)
        never = np.zeros(len(ids))
        if len(statistics):
            never[:] = 1.0
            first = np.full(len(ids), NEVER)
            first[there] = np.where(
                is_news(statistics.first_sold[known], statistics.announced[known], at),
                statistics.announced[known],
                statistics.first_sold[known],
            )
            sold = first != NEVER
            age[sold] = np.maximum(at - first[sold], 0)
            never[sold] = 0.0
            for place in np.flatnonzero(~sold).tolist():
                announced = self.found.announced.get(ids[place])
                if announced is not None and 0 <= at - announced < NEWS_MS:
                    age[place], never[place] = at - announced, 0.0
        counts = np.zeros((len(ids), len(COUNTS)))
        counts[there] = statistics.counts[known]
        counts *= 2.0 ** (-max(at - statistics.as_of, 0) * _PER_HALF_LIFE)
        sold_20, sold_5, clicked, buyers, repeats, surprise = counts.T
        return Product(sold_20, sold_5, clicked, age, never, buyers, repeats, surprise)


_OF_NOBODY: Final = [
    place
    for place, name in enumerate(NEW_TO_THE_PERSON)
    if name not in ("together", "likeness", "related", "kin", "viewed", "asked", "just_clicked")
]
"""Features that are the same for everybody."""


class _Around(NamedTuple):
    """How near each product of the statistics is to one person, [n]."""

    together: NDArray[np.float64]
    alike: NDArray[np.float64]
    related: NDArray[np.float64]
    kin: NDArray[np.float64]
    viewed: NDArray[np.float64]
    asked: NDArray[np.float64]


class _Scored(NamedTuple):
    ids: Ids
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    features: NDArray[np.float64]
    habits: NDArray[np.float64]
    after: NDArray[np.float64]


def _of(products: Product, which: slice) -> Product:
    return Product(*(column[which] for column in products))


def _habit(state: ProfileState, at: int, places: list[int]) -> Habit:
    ledger = state.purchases
    history = ledger.history[places]
    return Habit(
        times=history["count"].astype(np.float64),
        recency=history["recency"] * ORDER_DECAY ** (ledger.orders - history["last_order"].astype(np.float64)),
        orders_since_first=(ledger.orders - history["first_order"]).astype(np.float64),
        since_ms=np.maximum(at - 1000.0 * history["last"], 0.0),
        orders=ledger.orders,
        repeats=ledger.repeats,
        later_lines=ledger.later_lines,
    )


def _objects(ids: Sequence[str]) -> Ids:
    return np.array([*ids, None], np.object_)[:-1]


def _sources(taste: Taste, found: Found) -> list[tuple[Source, dict[str, float]]]:
    """How much each product that was found is like this person, by what it was found near."""
    sources: list[tuple[Source, float, Sequence[Hit]]] = [
        (("interest", number), interest.share, hits)
        for number, (interest, hits) in enumerate(zip(taste.interests, found.interests, strict=True))
    ]
    if taste.short is not None:
        sources.append((("recent", 0), float(np.linalg.norm(taste.short)), found.recent))
    near = []
    for source, strength, hits in sources:
        # The floor is worth nothing in a score, but gives every product that was found a reason.
        similarity = np.maximum([similarity for _, similarity in hits], _LEAST_SIMILARITY)
        values = dict(zip([product_id for product_id, _ in hits], (strength * similarity**4).tolist(), strict=True))
        near.append((source, values))
    return near


def _added_up(sources: Sequence[tuple[Source, Mapping[str, float]]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for _, values in sources:
        if not totals:
            totals = dict(values)
            continue
        for product_id, value in values.items():
            totals[product_id] = totals.get(product_id, 0.0) + value
    return totals
