"""Which products a person is shown, in which order, and why. Pure.

A product's score is a log-odds (`sinks.scoring`) of what is known of the person and what is known across users. Every
positive term is attributed to its cause, so that each recommendation explains itself: the shares of its reasons add
up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.clicks import query_hash
from sinks.derivation import TEXTS_OF_AN_INTEREST, Interest, Taste
from sinks.ledgers import ORDER_DECAY, ProfileState, is_query
from sinks.scoring import (
    BOUGHT_BEFORE,
    DAY_MS,
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
from sinks.statistics import COUNTS, HALF_LIFE_MS, NEVER, NO_STATISTICS, Neighbourhood, Statistics, is_news

_LEAST_SIMILARITY: Final = 1e-3
_LEAST_PART: Final = 1e-3  # of a score, so that everything shown has a reason
_LEAST_HABIT: Final = 0.1
_NEWS_MS: Final = 30 * DAY_MS  # for so long a product that nobody bought yet is news
_NO_CLICKS: Final = 1e-300
_SURE: Final = 10.0  # what closeness to a query is measured in: e^10 times as likely for a cosine of 1 as for 0
_WORDS: Final = 0.6  # and what their BM25 is
_EXPLORED: Final = 200  # what is shown least is sought among so many of the best


_PER_HALF_LIFE: Final = np.array([1.0 / HALF_LIFE_MS[name] if name in HALF_LIFE_MS else 0.0 for name in COUNTS])

Ids = NDArray[np.object_]

Hit = tuple[str, float]
"""A product found near something asked for, with its centred cosine similarity."""


class Reason(NamedTuple):
    """Why a product is recommended, and which share of its score that is worth.

    `kind` is "bought" (before), "together" (other people bought it with what this person bought), "related" (the
    catalogue says that it goes with that, or with what is bought together with that), "clicked" (other people clicked
    it after the query asked for, or after this person's), "interest" (near one of the lasting interests, or like what
    was bought), "recent" (near what the person has been doing within the short half-life), "popular" (sells, or is
    clicked, now), "new" (sold for the first time lately, or announced lately) or "query" (near what was asked).
    `texts` are the products and queries behind it, strongest first; of "bought", how often.
    """

    kind: str
    share: float
    texts: tuple[str, ...]


class Candidate(NamedTuple):
    product_id: str
    score: float  # log-odds, less what being shown to others costs; comparable within one list
    because: tuple[Reason, ...]  # largest share first; the shares add up to 1


@dataclass(frozen=True, slots=True)
class RankingRules:
    """What the operator, or a reader, asks of a list."""

    limit: int
    exclude_bought: bool = False
    exposure: float = 0.13
    """What being shown to others costs: this times ln(1 + e), of 1,000 recent lists e with the product."""
    exploration: int = 0
    """So many places, the last ones, go to the products shown least of the 200 best."""


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


def rank(
    state: ProfileState,
    taste: Taste,
    found: Found,
    titles: Mapping[str, str],
    available: Container[str],
    rules: RankingRules,
    statistics: Statistics = NO_STATISTICS,
) -> list[Candidate]:
    """The best `rules.limit` products, best first; ties by product id.

    `titles` are those of all products known, for the reasons; of what was found, bought, or is known of across users,
    only what is `available` is shown. With a query, only what was found near it is ranked.
    """
    return Ranking(state, taste, found, rules, statistics).candidates(titles, available)


class Ranking:
    """Everything that one person might be shown, scored."""

    def __init__(
        self, state: ProfileState, taste: Taste, found: Found, rules: RankingRules, statistics: Statistics
    ) -> None:
        self._state = state
        self._taste = taste
        self._found = found
        self._rules = rules
        self._statistics = statistics
        self._near, self._totals = _near(taste, found)
        self._asked = None if found.query is None else dict(found.query)
        self._found_rows = statistics.rows_of(tuple(self._totals))
        self._scored = self._score()

    def best(self, at_most: int) -> list[str]:
        """The ids of the best, available or not, best first."""
        ids: list[str] = self._scored.ids[self._in_order(at_most)].tolist()
        return ids

    def candidates(self, titles: Mapping[str, str], available: Container[str]) -> list[Candidate]:
        """The best that are available."""
        rules, scored = self._rules, self._scored
        explored = min(rules.exploration, rules.limit)
        wanted = rules.limit + (_EXPLORED if explored else 0)
        places: list[int] = []
        for place in self._ordered(wanted):
            if scored.ids[place] in available:
                places.append(place)
                if len(places) == wanted:
                    break
        shown, rest = places[: rules.limit - explored], places[rules.limit - explored :]
        if explored:
            # Of what was bought before, only what is left when too little is new.
            rest.sort(key=lambda place: (scored.bought[place], scored.exposure[place], -scored.scores[place]))
            shown += rest[:explored]
        parts = self._parts(shown)
        because = _Telling(self._state, self._taste, titles, self._statistics).reasons(parts)
        return [
            Candidate(scored.ids[place], float(scored.ranked[place]), reasons)
            for place, reasons in zip(shown, because, strict=True)
        ]

    def _ordered(self, wanted: int) -> Iterator[int]:
        """Places, best first: a few at first, all of them where those aren't enough."""
        some = self._in_order(4 * wanted)
        yield from some
        if len(some) < len(self._scored.ids):
            yield from self._in_order(len(self._scored.ids))[len(some) :]

    def _in_order(self, at_most: int) -> list[int]:
        scored = self._scored
        places = np.arange(len(scored.ids))
        if len(places) > at_most:
            places = np.argpartition(-scored.ranked, at_most - 1)[:at_most]
            # All that tie with the last one, or which of them are kept would depend on where they lie.
            places = np.flatnonzero(scored.ranked >= scored.ranked[places].min())
        in_order = sorted(
            zip((-scored.ranked[places]).tolist(), scored.ids[places].tolist(), places.tolist(), strict=True)
        )
        return [place for _, _, place in in_order[:at_most]]

    def _score(self) -> _Scored:
        statistics = self._statistics
        ledger = self._state.purchases
        history = [key[1:] for key in ledger.keys]
        rows = statistics.rows_of(history)
        own = rows[rows >= 0]
        asked = self._others_clicked()
        together, alike = statistics.together.around(own), statistics.alike.around(own)
        related = statistics.related.around(own)
        if self._asked is None:
            near = (together > 0.0) | (alike > 0.0) | (related > 0.0)
            near[statistics.popular] = True
            found = self._found_rows
            near[found[found >= 0]] = True
            near[asked > 0.0] = True
            near[own] = False
            known = np.flatnonzero(near)
            bought = set(history)
            unsold = [
                product_id
                for product_id, row in zip(self._totals, found.tolist(), strict=True)
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
        if self._rules.exclude_bought:
            again = []
        ids = np.concatenate([new, _objects([history[place] for place in again])])
        nearness = _Nearness(together, alike, related, asked)
        return self._scores_of(ids, np.concatenate([rows_of_new, rows[again]]), again, nearness)

    def _scores_of(
        self,
        ids: Ids,
        rows: NDArray[np.int64],
        again: list[int],
        nearness: _Nearness,
    ) -> _Scored:
        """`rows` of `ids` in the statistics; the last of them are those of these places in the history."""
        statistics, ledger = self._statistics, self._state.purchases
        new = len(ids) - len(again)
        there = rows >= 0
        size = len(ledger.keys)
        with_history, related = np.zeros(len(ids)), np.zeros(len(ids))
        with_history[there], related[there] = nearness.together[rows[there]], nearness.related[rows[there]]
        together, related = together_of(with_history, size), together_of(related, size)
        likeness = self._likeness(ids, rows, nearness.alike)
        products = self._products(ids, rows)
        searched = self._searched(ids, rows, nearness.asked)
        features = new_features(together, likeness, related, products, searched)
        scores = features @ statistics.weights.new
        of_nobody = features[:, _OF_NOBODY] @ statistics.weights.new[_OF_NOBODY]
        habits = np.zeros((len(again), len(BOUGHT_BEFORE)))
        if again:
            rest = slice(new, None)
            habit = _habit(self._state, self._taste.at, again)
            habits = bought_features(together[rest], likeness[rest], _of(products, rest), habit)
            scores[rest] = habits @ statistics.weights.bought
        exposure = np.zeros(len(ids))
        exposure[there] = statistics.exposure(rows[there])
        after = np.zeros(len(ids))
        if self._asked is not None:
            expected, after = self._answered(ids, of_nobody)
            # P(product | query, person) ~ P(product | query) · P(product | person) / P(product)
            scores = scores - of_nobody + expected + after
        return _Scored(
            ids, scores, scores - self._rules.exposure * exposure, exposure, np.arange(len(ids)) >= new,
            features, habits, rows, after,
        )  # fmt: skip

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
        expected = np.array([self._closeness(product_id) for product_id in ids]) + of_nobody
        expected -= expected.max()
        expected -= math.log(np.exp(expected).sum())
        clicks = np.array([self._found.clicked.get(product_id, 0.0) for product_id in ids])
        # n + μ π by its logarithm: π may be too small for a number
        smoothed = np.logaddexp(np.log(np.maximum(clicks, _NO_CLICKS)), math.log(UNSURE_CLICKS) + expected)
        return expected, smoothed - math.log(clicks.sum() + UNSURE_CLICKS) - expected

    def _closeness(self, product_id: str) -> float:
        """Of a query's and a product's text, by meaning and by words."""
        assert self._asked is not None
        return _SURE * max(self._asked[product_id], 0.0) + _WORDS * self._found.words.get(product_id, 0.0)

    def _others_clicked(self) -> NDArray[np.float64]:
        """Of the clicks of others after this person's queries, the share of each product of the statistics, [n]."""
        statistics, ledger = self._statistics, self._state.searches
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

    def _searched(self, ids: Ids, rows: NDArray[np.int64], shares: NDArray[np.float64]) -> Searched:
        ledger, at = self._state.searches, self._taste.at
        asked = np.zeros(len(ids))
        asked[rows >= 0] = asked_of(shares[rows[rows >= 0]])
        just = np.zeros(len(ids))
        last = {
            key[1:]: 1000.0 * seconds
            for key, seconds in zip(ledger.keys, ledger.history["last"].tolist(), strict=True)
            if not is_query(key)
        }
        if last:
            just = just_clicked_of(at - self._said(last, ids, rows, -np.inf))
        return Searched(asked, just)

    def _said(
        self, values: Mapping[str, float], ids: Ids, rows: NDArray[np.int64], otherwise: float
    ) -> NDArray[np.float64]:
        """The value of each product, parallel to `ids` and to their `rows` in the statistics."""
        said = np.array(list(values.values()), np.float64)
        rows_said = self._found_rows if values is self._totals else self._statistics.rows_of(tuple(values))
        of_row = np.full(len(self._statistics) + 1, otherwise)  # the last one is of row -1
        of_row[rows_said[rows_said >= 0]] = said[rows_said >= 0]
        found = of_row[rows]
        for place in np.flatnonzero(rows < 0).tolist():
            found[place] = values.get(ids[place], otherwise)
        return found

    def _likeness(self, ids: Ids, rows: NDArray[np.int64], alike: NDArray[np.float64]) -> NDArray[np.float64]:
        """By the neighbours of everything that was bought: what the weights were learned with.

        Where that knows nothing, of products that nobody bought and of searches, by what lies near the interests.
        """
        searches, purchases = self._state
        bought = len(purchases.keys)
        # An interest's share of the history stands for that many of its keys.
        keys = max(len(searches.keys) + bought, 1) * max(bought, 1)
        there = rows >= 0
        sums = np.zeros(len(ids))
        sums[there] = alike[rows[there]]
        unseen = ~there
        unseen[there] = self._statistics.unseen[rows[there]]
        asked = unseen if bought and not searches.keys else np.ones(len(ids), np.bool_)
        near = self._said(self._totals, ids, rows, 0.0)
        sums[asked] = np.maximum(sums[asked], near[asked] * math.sqrt(keys))
        return likeness_of(sums, bought)

    def _products(self, ids: Ids, rows: NDArray[np.int64]) -> Product:
        """Columns of all these products; of those that nobody bought, what is known of such a product."""
        statistics, at = self._statistics, self._taste.at
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
                announced = self._found.announced.get(ids[place])
                if announced is not None and 0 <= at - announced < _NEWS_MS:
                    age[place], never[place] = at - announced, 0.0
        counts = np.zeros((len(ids), len(COUNTS)))
        counts[there] = statistics.counts[known]
        counts *= 2.0 ** (-max(at - statistics.as_of, 0) * _PER_HALF_LIFE)
        sold_20, sold_5, clicked, buyers, repeats = counts.T
        return Product(sold_20, sold_5, clicked, age, never, buyers, repeats)

    def _parts(self, places: Sequence[int]) -> list[dict[_Cause, float]]:
        """What each score is made of, by cause: what speaks for the product, not what speaks against it."""
        scored, weights = self._scored, self._statistics.weights
        again = [place - (len(scored.ids) - len(scored.habits)) for place in places if scored.bought[place]]
        of_new = iter((scored.features[[at for at in places if not scored.bought[at]]] * weights.new).tolist())
        of_bought = iter((scored.habits[again] * weights.bought).tolist())
        times = iter(np.rint(np.expm1(scored.habits[again, _TIMES]) / 3.0).astype(int).tolist())
        parts = []
        for place in places:
            if scored.bought[place]:
                worth = dict(zip(BOUGHT_BEFORE, next(of_bought), strict=True))
                parts.append(self._parts_of(place, worth, next(times)))
            else:
                parts.append(self._parts_of(place, dict(zip(NEW_TO_THE_PERSON, next(of_new), strict=True)), 0))
        return parts

    def _parts_of(self, place: int, worth: Mapping[str, float], times: int) -> dict[_Cause, float]:
        """From what each feature of a product adds to its score; `times` it was bought."""
        product_id, row = self._scored.ids[place], int(self._scored.rows[place])
        parts: dict[_Cause, float] = {}
        if worth["together"] > 0.0:
            parts["together", row] = worth["together"]
        if worth.get("related", 0.0) > 0.0:
            parts["related", row] = worth["related"]
        if worth.get("asked", 0.0) > 0.0:
            parts["clicked", row] = worth["asked"]
        total = self._totals.get(product_id)
        likeness = max(worth["likeness"], 0.0 if total is None else _LEAST_PART)
        if total is not None:
            for cause, values in self._near:
                if product_id in values:
                    parts[cause] = likeness * values[product_id] / total
        elif likeness > 0.0:
            parts["interest", -1 - row] = likeness
        selling = worth["sold_20"] + worth["sold_5"] + worth.get("clicked", 0.0)
        if selling > 0.0:
            parts["popular", 0] = selling
        if worth["fresh"] > _LEAST_PART:
            parts["new", 0] = worth["fresh"]
        if times:
            habit = sum(worth[name] for name in ("times", "recency", "share_of_orders", "since", "lately"))
            parts["bought", times] = max(habit, _LEAST_HABIT)
        if self._asked is not None:
            parts["query", 0] = max(self._closeness(product_id), _LEAST_PART)
            after = float(self._scored.after[place])
            if product_id in self._found.clicked and after > 0.0:
                parts["clicked", _ASKED_FOR] = after
        return parts if sum(parts.values()) > 0.0 else {**parts, ("popular", 0): _LEAST_PART}


_ASKED_FOR: Final = -1  # in place of a product's row: what was clicked after the query asked for

_TIMES: Final = BOUGHT_BEFORE.index("times")

_OF_NOBODY: Final = [
    place
    for place, name in enumerate(NEW_TO_THE_PERSON)
    if name not in ("together", "likeness", "related", "asked", "just_clicked")
]
"""Features that are the same for everybody."""


class _Nearness(NamedTuple):
    """How near each product of the statistics is to one person, [n]."""

    together: NDArray[np.float64]
    alike: NDArray[np.float64]
    related: NDArray[np.float64]
    asked: NDArray[np.float64]


class _Scored(NamedTuple):
    """Parallel, [n]: products new to the person, then those bought before."""

    ids: Ids
    scores: NDArray[np.float64]
    ranked: NDArray[np.float64]  # less what being shown to others costs
    exposure: NDArray[np.float64]
    bought: NDArray[np.bool_]
    features: NDArray[np.float64]  # [n, features] as if nothing had been bought before
    habits: NDArray[np.float64]  # [bought before, features]
    rows: NDArray[np.int64]
    after: NDArray[np.float64]  # what clicks after the query asked for add


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


def texts_of(interest: Interest, titles: Mapping[str, str]) -> tuple[str, ...]:
    """The strongest texts of an interest: queries as typed most often, products by title (by id where unknown)."""
    return tuple(_text(key, titles) for key in interest.keys[:TEXTS_OF_AN_INTEREST])


def _objects(ids: Sequence[str]) -> Ids:
    return np.array([*ids, None], np.object_)[:-1]


_Cause = tuple[str, int]  # the kind of a reason, and which interest or product, or how often


def _near(taste: Taste, found: Found) -> tuple[list[tuple[_Cause, dict[str, float]]], dict[str, float]]:
    """How much each product that was found is like this person, by cause and in all."""
    sources: list[tuple[_Cause, float, Sequence[Hit]]] = [
        (("interest", number), interest.share, hits)
        for number, (interest, hits) in enumerate(zip(taste.interests, found.interests, strict=True))
    ]
    if taste.short is not None:
        sources.append((("recent", 0), float(np.linalg.norm(taste.short)), found.recent))
    near: list[tuple[_Cause, dict[str, float]]] = []
    totals: dict[str, float] = {}
    for cause, strength, hits in sources:
        # The floor is worth nothing in a score, but gives every product that was found a reason.
        similarity = np.maximum([similarity for _, similarity in hits], _LEAST_SIMILARITY)
        values = dict(zip([product_id for product_id, _ in hits], (strength * similarity**4).tolist(), strict=True))
        near.append((cause, values))
        if not totals:
            totals = values.copy()
            continue
        for product_id, value in values.items():
            totals[product_id] = totals.get(product_id, 0.0) + value
    return near, totals


class _Telling:
    """Reasons in words. The texts of each are looked up once a person."""

    def __init__(self, state: ProfileState, taste: Taste, titles: Mapping[str, str], statistics: Statistics) -> None:
        self._state = state
        self._taste = taste
        self._titles = titles
        self._statistics = statistics
        self._texts: dict[_Cause, tuple[str, ...]] = {}
        self._history = [key[1:] for key in state.purchases.keys]
        rows = statistics.rows_of(self._history)
        self._own = np.flatnonzero(rows >= 0)
        self._own_rows = rows[self._own]

    def reasons(self, parts: Sequence[Mapping[_Cause, float]]) -> list[tuple[Reason, ...]]:
        """Of each product, what its score is made of."""
        self._look_up_neighbours({cause for of_one in parts for cause in of_one})
        return [self._reasons(of_one) for of_one in parts]

    def _reasons(self, parts: Mapping[_Cause, float]) -> tuple[Reason, ...]:
        total = sum(parts.values())
        reasons = [Reason(cause[0], part / total, self._told(cause)) for cause, part in parts.items()]
        return tuple(sorted(reasons, key=_largest_first))

    def _told(self, cause: _Cause) -> tuple[str, ...]:
        texts = self._texts.get(cause)
        if texts is None:
            texts = self._texts[cause] = self._look_up(*cause)
        return texts

    def _look_up(self, kind: str, number: int) -> tuple[str, ...]:
        if kind == "interest":
            return texts_of(self._taste.interests[number], self._titles)
        if kind == "recent":
            return _newest_texts(self._state, self._titles)
        if kind == "clicked":
            return self._clicked_after(number)
        return (f"{number}×",) if kind == "bought" else ()

    def _look_up_neighbours(self, causes: Collection[_Cause]) -> None:
        """What of the history is nearest to each of these products, by each kind of nearness, in one go."""
        statistics = self._statistics
        for kind, neighbourhood in (("together", statistics.together), ("related", statistics.related)):
            self._bought_like(neighbourhood, {cause: cause[1] for cause in causes if cause[0] == kind})
        # Near none of the interests, and like things that were bought.
        near_none = {cause: -1 - cause[1] for cause in causes if cause[0] == "interest" and cause[1] < 0}
        self._bought_like(statistics.alike, near_none)

    def _bought_like(self, neighbourhood: Neighbourhood, product_of: Mapping[_Cause, int]) -> None:
        if not product_of:
            return
        products = np.array(list(product_of.values()), np.int64)
        nearest = neighbourhood.strongest(self._own_rows, products, TEXTS_OF_AN_INTEREST)
        for cause, places in zip(product_of, nearest, strict=True):
            bought = [self._history[self._own[place]] for place in places]
            self._texts[cause] = tuple(self._titles.get(product_id, product_id) for product_id in bought)

    def _clicked_after(self, product: int) -> tuple[str, ...]:
        """This person's queries after which others clicked the product, the strongest first."""
        ledger = self._state.searches
        strongest = np.argsort(-ledger.history["weight"], kind="stable").tolist()
        queries = [ledger.keys[place][1:] for place in strongest if is_query(ledger.keys[place])]
        clicks = self._statistics.clicks
        return tuple(query for query in queries if product in clicks.of(query_hash(query))[0])[:TEXTS_OF_AN_INTEREST]


def _largest_first(reason: Reason) -> float:
    return -reason.share


def _newest_texts(state: ProfileState, titles: Mapping[str, str]) -> tuple[str, ...]:
    newest: list[tuple[int, str]] = []
    for ledger in state:
        newest += zip(ledger.history["last"].tolist(), ledger.keys, strict=True)
    newest = sorted(newest, reverse=True)[:TEXTS_OF_AN_INTEREST]
    return tuple(_text(key, titles) for _, key in newest)


def _text(key: str, titles: Mapping[str, str]) -> str:
    return key[1:] if is_query(key) else titles.get(key[1:], key[1:])
