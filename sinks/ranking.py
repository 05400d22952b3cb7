"""Which products a person is shown, in which order, and why. Pure.

A product's score is a log-odds, after the stream recipe measured in `docs/quality.md`, with what belongs to one user
alone: separate forms for products new to the user and products bought before. Every positive term is attributed to
its cause, so that each recommendation explains itself: the shares of its reasons add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.derivation import TEXTS_OF_AN_INTEREST, Interest, Taste
from sinks.ledgers import ProfileState, is_query

DAY_MS: Final = 86_400_000
_ORDER_DECAY: Final = 0.8
_LIKENESS: Final = 0.01  # what likeness is measured in: below it, texts have nothing in common
_NEW: Final = -6.0
_BOUGHT: Final = -4.98


class Hit(NamedTuple):
    """A product found near something asked for, with its centred cosine similarity."""

    product_id: str
    similarity: float


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
    bought = _bought(state)
    terms: dict[str, dict[tuple[str, int], float]] = {}
    keys = sum(len(ledger.keys) for ledger in state)
    for number, (interest, hits) in enumerate(zip(taste.interests, found.interests, strict=True)):
        for hit in hits:
            terms.setdefault(hit.product_id, {})[("interest", number)] = interest.share * _likeness(hit)
    strength = 0.0 if taste.short is None else float(np.linalg.norm(taste.short))
    for hit in found.recent:
        terms.setdefault(hit.product_id, {})[("recent", 0)] = strength * _likeness(hit)
    asked = None if found.query is None else {hit.product_id: hit.similarity for hit in found.query}
    pool: Iterable[str] = terms.keys() | bought.keys() if asked is None else asked
    candidates = []
    for product_id in pool:
        if product_id not in available or (rules.exclude_bought and product_id in bought):
            continue
        likeness = terms.get(product_id, {})
        scale = math.sqrt(max(keys, 1)) / _LIKENESS
        near = math.log1p(scale * sum(likeness.values()))
        parts: dict[tuple[str, int], float] = {}
        history = bought.get(product_id)
        weight = 0.28 if history is None else 0.02
        total = sum(likeness.values())
        for cause, value in likeness.items():
            if value > 0.0:
                parts[cause] = weight * near * value / total
        score = weight * near + (_NEW if history is None else _BOUGHT)
        if history is not None:
            habit = _habit(history, state, taste.at)
            score += habit
            parts[("bought", history.times)] = max(habit, 0.1)
        if asked is not None:
            closeness = 10.0 * max(asked[product_id], 0.0)
            score += closeness
            parts[("query", 0)] = max(closeness, 1e-3)
        candidates.append((score, product_id, parts))
    candidates.sort(key=lambda candidate: (-candidate[0], candidate[1]))
    return [
        Candidate(product_id, score, _reasons(parts, taste, state, titles))
        for score, product_id, parts in candidates[: rules.limit]
    ]


def texts_of(interest: Interest, titles: Mapping[str, str]) -> tuple[str, ...]:
    """The strongest texts of an interest: queries as typed most often, products by title (by id where unknown)."""
    return tuple(_text(key, titles) for key in interest.keys[:TEXTS_OF_AN_INTEREST])


class _Bought(NamedTuple):
    first: int
    last: int
    times: int
    recency: float
    first_order: int
    last_order: int


def _bought(state: ProfileState) -> dict[str, _Bought]:
    ledger = state.purchases
    rows = ledger.history[["first", "last", "count", "recency", "first_order", "last_order"]].tolist()
    return {key[1:]: _Bought(*row) for key, row in zip(ledger.keys, rows, strict=True)}


def _habit(row: _Bought, state: ProfileState, at: int) -> float:
    """How likely this person buys this product again, from their own orders: log-odds, without the intercept."""
    ledger = state.purchases
    recency = row.recency * _ORDER_DECAY ** (ledger.orders - row.last_order)
    repeats = (ledger.repeats + 1.5) / (ledger.later_lines + 10.0)
    days = max(at - 1000 * row.last, 0) / DAY_MS
    return (
        0.27 * math.log1p(3 * row.times)
        + 0.99 * math.log1p(3 * recency)
        + 0.34 * row.times / max(ledger.orders - row.first_order, 1)
        + 0.24 * math.log1p(min(days, 400.0) / 30.0)
        + 0.40 * math.log(repeats)
        - 0.28 * math.log1p(ledger.orders)
        + 0.05 * math.log1p(3 * 2.0 ** (-days / 60.0))
    )


def _likeness(hit: Hit) -> float:
    return float(max(hit.similarity, 0.0) ** 4)


def _reasons(
    parts: Mapping[tuple[str, int], float], taste: Taste, state: ProfileState, titles: Mapping[str, str]
) -> tuple[Reason, ...]:
    total = sum(parts.values())
    reasons = []
    for (kind, number), part in parts.items():
        if kind == "interest":
            texts = texts_of(taste.interests[number], titles)
        elif kind == "recent":
            texts = _newest_texts(state, titles)
        elif kind == "bought":
            texts = (f"{number}×",)
        else:
            texts = ()
        reasons.append(Reason(kind, part / total, texts))
    return tuple(sorted(reasons, key=lambda reason: -reason.share))


def _newest_texts(state: ProfileState, titles: Mapping[str, str]) -> tuple[str, ...]:
    newest: list[tuple[int, str]] = []
    for ledger in state:
        newest += zip(ledger.history["last"].tolist(), ledger.keys, strict=True)
    newest.sort(reverse=True)
    return tuple(_text(key, titles) for _, key in newest[:TEXTS_OF_AN_INTEREST])


def _text(key: str, titles: Mapping[str, str]) -> str:
    return key[1:] if is_query(key) else titles.get(key[1:], key[1:])


def similarities(scores: NDArray[np.float32], product_ids: Sequence[Sequence[str]]) -> list[list[Hit]]:
    """Hits from a padded matrix of similarities."""
    return [
        [Hit(product_id, float(score)) for product_id, score in zip(ids, row, strict=False)]
        for ids, row in zip(product_ids, scores, strict=True)
    ]
