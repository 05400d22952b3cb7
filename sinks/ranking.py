"""Which products a person is shown, in which order, and why. Pure.

A product's score is a log-odds of what belongs to one user alone, in separate forms for products new to the user and
products bought before, with the weights that a logistic regression found on online-retail. Every positive term is
attributed to its cause, so that each recommendation explains itself: the shares of its reasons add up to 1.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sinks.derivation import TEXTS_OF_AN_INTEREST, Interest, Taste
from sinks.ledgers import ORDER_DECAY, ProfileState, is_query

DAY_MS: Final = 86_400_000
_LIKENESS: Final = 0.01  # what likeness is measured in: below it, texts have nothing in common
_LEAST_SIMILARITY: Final = 1e-3
_NEW: Final = -6.0
_LIKENESS_WEIGHT_NEW: Final = 0.28
_BOUGHT: Final = -4.26
_LIKENESS_WEIGHT_BOUGHT: Final = 0.02


Hit = tuple[str, float]
"""A product found near something asked for, with its centred cosine similarity."""


class Reason(NamedTuple):
    """Why a product is recommended, and which share of its score that is worth.

    `kind` is "bought" (before), "interest" (near one of the lasting interests), "recent" (near what the person has
    been doing within the short half-life) or "query" (near what was asked). `texts` are the products and queries
    behind it, strongest first; of "bought", how often.
    """

    kind: str
    share: float
    texts: tuple[str, ...]


class Candidate(NamedTuple):
    product_id: str
    score: float  # log-odds; comparable within one list
    because: tuple[Reason, ...]  # largest share first; the shares add up to 1


@dataclass(frozen=True, slots=True)
class RankingRules:
    """What the operator, or a reader, asks of a list."""

    limit: int
    exclude_bought: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What was found near a person: for each interest, in order; near the recent taste; near a query asked for."""

    interests: Sequence[Sequence[Hit]]
    recent: Sequence[Hit] = ()
    query: Sequence[Hit] | None = None


def rank(
    state: ProfileState,
    taste: Taste,
    found: Found,
    titles: Mapping[str, str],
    available: Container[str],
    rules: RankingRules,
) -> list[Candidate]:
    """The best `rules.limit` products, best first; ties by product id.

    `titles` are those of all products known, for the reasons; of what was found or bought, only what is `available`
    is shown. With a query, only what was found near it is ranked.
    """
    terms, totals = _near(taste, found)
    bought = _bought(state)
    habit = _Habit(state, taste.at)
    scale = math.sqrt(max(sum(len(ledger.keys) for ledger in state), 1)) / _LIKENESS
    asked = None if found.query is None else dict(found.query)
    pool: Iterable[str] = asked if asked is not None else [*_likest(totals, bought, available, rules.limit), *bought]
    scored = []
    for product_id in pool:
        history = bought.get(product_id)
        if product_id not in available or (history is not None and rules.exclude_bought):
            continue
        likeness = math.log1p(scale * totals.get(product_id, 0.0))
        again = closeness = 0.0
        if history is None:
            likeness *= _LIKENESS_WEIGHT_NEW
            score = _NEW + likeness
        else:
            likeness *= _LIKENESS_WEIGHT_BOUGHT
            again = habit.of(history)
            score = _BOUGHT + likeness + again
        if asked is not None:
            closeness = 10.0 * max(asked[product_id], 0.0)
            score += closeness
        scored.append((-score, product_id, likeness, again, closeness))
    scored.sort()
    tell = _Telling(state, taste, titles)
    candidates = []
    for negative, product_id, likeness, again, closeness in scored[: rules.limit]:
        parts = {}
        for cause, value in terms.get(product_id, ()):
            parts[cause] = likeness * value / totals[product_id]
        if product_id in bought:
            parts["bought", bought[product_id].times] = max(again, 0.1)
        if asked is not None:
            parts["query", 0] = max(closeness, 1e-3)
        candidates.append(Candidate(product_id, -negative, tell.reasons(parts)))
    return candidates


def texts_of(interest: Interest, titles: Mapping[str, str]) -> tuple[str, ...]:
    """The strongest texts of an interest: queries as typed most often, products by title (by id where unknown)."""
    return tuple(_text(key, titles) for key in interest.keys[:TEXTS_OF_AN_INTEREST])


_Cause = tuple[str, int]  # the kind of a reason, and which interest, or how often


def _near(taste: Taste, found: Found) -> tuple[dict[str, list[tuple[_Cause, float]]], dict[str, float]]:
    """How much each product that was found is like this person, by cause and in all."""
    terms: dict[str, list[tuple[_Cause, float]]] = {}
    totals: dict[str, float] = {}
    sources: list[tuple[_Cause, float, Sequence[Hit]]] = [
        (("interest", number), interest.share, hits)
        for number, (interest, hits) in enumerate(zip(taste.interests, found.interests, strict=True))
    ]
    if taste.short is not None:
        sources.append((("recent", 0), float(np.linalg.norm(taste.short)), found.recent))
    for cause, strength, hits in sources:
        for product_id, similarity in hits:
            # The floor is worth nothing in a score, but gives every product that was found a reason.
            value = strength * max(similarity, _LEAST_SIMILARITY) ** 4
            if product_id in totals:
                totals[product_id] += value
                terms[product_id].append((cause, value))
            else:
                totals[product_id] = value
                terms[product_id] = [(cause, value)]
    return terms, totals


def _likest(totals: Mapping[str, float], bought: Container[str], available: Container[str], limit: int) -> list[str]:
    """Of what was found and is new to the person, all that can be among the best: likeness alone decides there."""
    new = [
        (-total, product_id)
        for product_id, total in totals.items()
        if product_id not in bought and product_id in available
    ]
    return [product_id for _, product_id in heapq.nsmallest(limit, new)]


class _Bought(NamedTuple):
    last: int
    times: int
    recency: float
    first_order: int
    last_order: int


def _bought(state: ProfileState) -> dict[str, _Bought]:
    ledger = state.purchases
    rows = ledger.history[["last", "count", "recency", "first_order", "last_order"]].tolist()
    return {key[1:]: _Bought._make(row) for key, row in zip(ledger.keys, rows, strict=True)}


class _Habit:
    """How likely this person buys a product again, from their own orders: log-odds, without the intercept.

    A person's own rate of repeats counts in full (the recipe has 0.40 of its logarithm), so that the list follows the
    shop: on online-retail it costs nothing (recall@20 .3011 and .3007), and with all repeats taken out of that data
    a third of a list was bought before, not three quarters, and it finds twice as much.
    """

    def __init__(self, state: ProfileState, at: int) -> None:
        ledger = state.purchases
        self._at = at
        self._orders = ledger.orders
        repeats = (ledger.repeats + 1.5) / (ledger.later_lines + 10.0)
        self._person = math.log(repeats) - 0.28 * math.log1p(ledger.orders)

    def of(self, row: _Bought) -> float:
        recency = row.recency * ORDER_DECAY ** (self._orders - row.last_order)
        days = max(self._at - 1000 * row.last, 0) / DAY_MS
        return (
            self._person
            + 0.27 * math.log1p(3 * row.times)
            + 0.99 * math.log1p(3 * recency)
            + 0.34 * row.times / max(self._orders - row.first_order, 1)
            + 0.24 * math.log1p(min(days, 400.0) / 30.0)
            + 0.05 * math.log1p(3 * 2.0 ** (-days / 60.0))
        )


class _Telling:
    """Reasons in words. The texts of each are looked up once a person."""

    def __init__(self, state: ProfileState, taste: Taste, titles: Mapping[str, str]) -> None:
        self._state = state
        self._taste = taste
        self._titles = titles
        self._texts: dict[_Cause, tuple[str, ...]] = {}

    def reasons(self, parts: Mapping[_Cause, float]) -> tuple[Reason, ...]:
        total = sum(parts.values())
        reasons = [Reason(cause[0], part / total, self._told(cause)) for cause, part in parts.items()]
        return tuple(sorted(reasons, key=lambda reason: -reason.share))

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
        return (f"{number}×",) if kind == "bought" else ()


def _newest_texts(state: ProfileState, titles: Mapping[str, str]) -> tuple[str, ...]:
    newest: list[tuple[int, str]] = []
    for ledger in state:
        newest += zip(ledger.history["last"].tolist(), ledger.keys, strict=True)
    newest = sorted(newest, reverse=True)[:TEXTS_OF_AN_INTEREST]
    return tuple(_text(key, titles) for _, key in newest)


def _text(key: str, titles: Mapping[str, str]) -> str:
    return key[1:] if is_query(key) else titles.get(key[1:], key[1:])
