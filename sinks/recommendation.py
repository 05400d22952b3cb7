"""From tastes to recommendations: what lies near each person in the catalogue, ranked, with titles and reasons.

The worker that stores candidates and the reader that derives them at the time of asking both call `recommend`, so that
there is one way in which a list comes about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sinks.catalogue import Catalogue, Nearby
from sinks.derivation import Taste, Vector, centred, centred_cosine
from sinks.ledgers import ProfileState
from sinks.points import JSON
from sinks.ranking import Found, Hit, RankingRules, Reason, rank

_DEPTH = 3
"""Products looked at near each interest, for each place in the list: enough to rank, few enough to be quick."""


class Recommendation(NamedTuple):
    """One item of a list, best first. `score` is comparable within the list only."""

    product_id: str
    title: str
    score: float
    because: tuple[Reason, ...]

    def payload(self) -> dict[str, JSON]:
        """As it is stored with the profile, and printed as JSON."""
        return {
            "product_id": self.product_id,
            "title": self.title,
            "score": round(self.score, 4),
            "because": [
                {"kind": reason.kind, "share": round(reason.share, 4), "texts": list(reason.texts)}
                for reason in self.because
            ],
        }


async def recommend(
    catalogue: Catalogue,
    states: Sequence[ProfileState],
    tastes: Sequence[Taste],
    mean: Vector,
    rules: RankingRules,
    *,
    kind: str | None = None,
    query: Vector | None = None,
) -> list[list[Recommendation]]:
    """A list for each profile, from as few calls of Qdrant as their number allows.

    `kind` (product, content, ad) restricts what is shown. With `query` (a unit vector, [d]) only products near it are,
    in the order that the query and the person give together. A person of whom nothing is known gets an empty list, or
    what is near the query.
    """
    asked: list[Vector] = []
    for taste in tastes:
        asked += [interest.vector for interest in taste.interests]
        if taste.short is not None:
            asked.append(taste.short)
    if query is not None:
        asked.append(query)
    hits, titles = await _near(catalogue, asked, mean, _DEPTH * rules.limit, kind)
    found = _shared_out(tastes, hits, hits[-1] if query is not None else None)
    titles |= await _bought(catalogue, states, kind)
    lists = [rank(state, taste, near, titles, rules) for state, taste, near in zip(states, tastes, found, strict=True)]
    return [
        [Recommendation(item.product_id, titles[item.product_id], item.score, item.because) for item in items]
        for items in lists
    ]


async def _near(
    catalogue: Catalogue, asked: Sequence[Vector], mean: Vector, limit: int, kind: str | None
) -> tuple[list[list[Hit]], dict[str, str]]:
    if not asked:
        return [], {}
    queries = centred(np.stack(asked) / np.linalg.norm(asked, axis=1, keepdims=True), mean)
    nearby = await catalogue.near(queries, limit, kind=kind)
    return [_hits(row, query, mean) for row, query in zip(nearby, queries, strict=True)], {
        product.product_id: product.title for row in nearby for product in row
    }


def _hits(row: Sequence[Nearby], query: Vector, mean: Vector) -> list[Hit]:
    scores = np.array([[product.score for product in row]], np.float32)
    similarities = centred_cosine(scores, query[None], mean)[0].tolist()
    return [Hit(product.product_id, similarity) for product, similarity in zip(row, similarities, strict=True)]


def _shared_out(tastes: Sequence[Taste], hits: Sequence[list[Hit]], query: list[Hit] | None) -> list[Found]:
    """The hits back to whom they were asked for, in the order of asking."""
    found, at = [], 0
    for taste in tastes:
        end = at + len(taste.interests)
        interests = hits[at:end]
        recent = hits[end] if taste.short is not None else ()
        found.append(Found(interests, recent, query))
        at = end + (taste.short is not None)
    return found


async def _bought(catalogue: Catalogue, states: Sequence[ProfileState], kind: str | None) -> dict[str, str]:
    """Titles of what these people bought before and may be shown again."""
    wanted = {key[1:] for state in states for key in state.purchases.keys}
    products = await catalogue.get(wanted)
    return {
        product_id: product.title
        for product_id, product in products.items()
        if product.available and (kind is None or product.kind == kind)
    }
