"""From tastes to recommendations: what lies near each person in the catalogue, ranked, with titles and reasons.

The worker that stores candidates and the reader that derives them at the time of asking both call `recommend`, so that
there is one way in which a list comes about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np

from sinks.catalogue import Nearby, Product
from sinks.derivation import Taste, Vector, centred, centring
from sinks.ledgers import Ledger, ProfileState, is_query
from sinks.prospects import Found, Hit
from sinks.queries import Query
from sinks.ranking import Ranking, RankingRules
from sinks.reasons import Reason
from sinks.snapshot import CatalogueSnapshot, Neighbours
from sinks.statistics import NO_STATISTICS, Statistics
from sinks.wire import JSON
from sinks.words import Words

_T = TypeVar("_T")

_DEPTH: Final = 3
"""Products looked at near each interest, for each place in the list: enough to rank, few enough to be quick."""

_LEAST_STORED: Final = 0.1
_TEXTS_STORED: Final = 2

_LOOKED_UP: Final = 3
"""Of what nobody has found near anything, the best are looked up in the catalogue: so many for each place."""


class Products(Protocol):
    """What is asked of a catalogue: `sinks.catalogue.Catalogue`, or one in memory."""

    async def get(self, product_ids: Iterable[str]) -> dict[str, Product]: ...

    async def near(self, queries: Vector, limit: int, *, kind: str | None = None) -> list[list[Nearby]]: ...

    async def for_text(
        self, query: Vector, words: Words, limit: int, *, kind: str | None = None
    ) -> tuple[list[Nearby], list[Nearby]]: ...


class Recommendation(NamedTuple):
    """One item of a list, best first. `score` is comparable within the list only."""

    product_id: str
    title: str
    score: float
    because: tuple[Reason, ...]

    def payload(self) -> dict[str, JSON]:
        """As it is printed as JSON."""
        return {
            "product_id": self.product_id,
            "title": self.title,
            "score": round(self.score, 4),
            "because": [
                {"kind": reason.kind, "share": round(reason.share, 4), "texts": list(reason.texts)}
                for reason in self.because
            ],
        }

    def to_store(self) -> dict[str, JSON]:
        """As it is stored with the profile: what weighs, in few words, since 20 of these are a third of a profile.

        Reasons that are less than a tenth of the score are left out, and the shares of the others add up to 1.
        """
        weighty = [reason for reason in self.because if reason.share >= _LEAST_STORED] or self.because[:1]
        whole = sum(reason.share for reason in weighty)
        because = [
            reason._replace(share=reason.share / whole, texts=reason.texts[:_TEXTS_STORED]) for reason in weighty
        ]
        return self._replace(because=tuple(because)).payload()


def stored_recommendation(payload: Mapping[str, JSON]) -> Recommendation:
    """From what `Recommendation.to_store` gave."""
    reasons = payload["because"]
    because = [
        Reason(str(one["kind"]), float(str(one["share"])), tuple(map(str, texts)))
        for one in (reasons if isinstance(reasons, list | tuple) else ())
        if isinstance(one, dict) and isinstance(texts := one["texts"], list | tuple)
    ]
    return Recommendation(
        str(payload["product_id"]), str(payload["title"]), float(str(payload["score"])), tuple(because)
    )


class NearText(NamedTuple):
    """What is near a query's text, whoever asks, and what has its words: the `depth` best of each."""

    nearby: list[Nearby]
    worded: list[Nearby]
    depth: int


async def near_text(
    catalogue: Products, query: Query, mean: Vector, limit: int, *, kind: str | None = None
) -> NearText:
    """What a list of so many items begins from: it can be asked for before anything is known of the person."""
    return await _near_text(catalogue, query, mean, _DEPTH * limit, kind)


async def _near_text(catalogue: Products, query: Query, mean: Vector, depth: int, kind: str | None) -> NearText:
    (direction,) = centred(query.vector[None] / max(float(np.linalg.norm(query.vector)), 1e-9), mean)
    return NearText(*await catalogue.for_text(direction, query.words, depth, kind=kind), depth)


async def recommend(
    catalogue: Products,
    states: Sequence[ProfileState],
    tastes: Sequence[Taste],
    mean: Vector,
    rules: RankingRules,
    *,
    kind: str | None = None,
    query: Query | None = None,
    near: NearText | None = None,
    snapshot: CatalogueSnapshot | None = None,
    statistics: Statistics = NO_STATISTICS,
) -> list[list[Recommendation]]:
    """A list for each profile, from as few calls of Qdrant as their number allows.

    `kind` (product, content, ad) restricts what is shown. With `query` only products near it, and those that others
    clicked after it, are, in the order that the query and the person give together; `near` is what is near it, where
    that was asked for already. A person of whom nothing is known gets what is popular, by the `statistics`, or what is
    near the query. With a `snapshot`, what is near is looked up
    in that, instead of asking Qdrant.
    """
    asking = _Asking(catalogue, snapshot, mean, rules, kind, query, near, statistics)
    lists = await asking.lists(states, tastes, _DEPTH * rules.limit)
    if rules.exclude_bought:
        # What lies nearest to people is what they bought: where too little else came with it, look further.
        short = [row for row, items in enumerate(lists) if len(items) < rules.limit]
        further = max((len(states[row].purchases.keys) for row in short), default=0)
        if further:
            again = await asking.lists(
                [states[row] for row in short], [tastes[row] for row in short], _DEPTH * rules.limit + further
            )
            for row, items in zip(short, again, strict=True):
                lists[row] = items
    return lists


async def search(
    catalogue: Products,
    query: Query,
    mean: Vector,
    limit: int,
    *,
    kind: str | None = None,
    statistics: Statistics = NO_STATISTICS,
) -> list[tuple[Nearby, float]]:
    """The available products for a query, whoever asks, best first, with their centred cosine similarity.

    Ranked by closeness of text, by what others clicked after the query, and by what is popular.
    """
    rules = RankingRules(limit, exposure=0.0)
    asking = _Asking(catalogue, None, mean, rules, kind, query, None, statistics)
    products, (hits,), found = await asking.near_query(query, [], _DEPTH * limit)
    ranking = Ranking(_NOBODY, Taste(statistics.as_of, None, None, ()), found, rules, statistics)
    near, similarity = {one.product_id: one for one in products}, dict(hits)
    return [(near[product_id], similarity[product_id]) for product_id in ranking.best(limit)]


_NOBODY: Final = ProfileState(Ledger(), Ledger())


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is the same for every person of a call."""

    catalogue: Products
    snapshot: CatalogueSnapshot | None
    mean: Vector
    rules: RankingRules
    kind: str | None
    query: Query | None
    near: NearText | None
    statistics: Statistics

    async def lists(
        self, states: Sequence[ProfileState], tastes: Sequence[Taste], depth: int
    ) -> list[list[Recommendation]]:
        """From the `depth` products nearest to each vector of each person."""
        asked: list[Vector] = []
        for taste in tastes:
            asked += [interest.vector for interest in taste.interests]
            if taste.short is not None:
                asked.append(taste.short)
        if self.query is None:
            hits, shown = await self._near(asked, depth)
            found = _shared_out(tastes, hits, Found((), announced=shown.announced))
        else:
            products, hits, common = await self.near_query(self.query, asked, depth)
            shown = _Shown({one.product_id: one.title for one in products}, common.announced, None)
            found = _shared_out(tastes, hits, common)
        rankings = [
            Ranking(state, taste, near, self.rules, self.statistics)
            async for state, taste, near in _others_first(zip(states, tastes, found, strict=True))
        ]
        wanted = _product_ids(states)
        available = shown.available
        if available is None:
            near = {product_id for row in hits for product_id, _ in row}
            for ranking in rankings:
                best = ranking.best(_LOOKED_UP * (self.rules.limit + self.rules.exploration))
                wanted.update(product_id for product_id in best if product_id not in near)
        known = await self.catalogue.get(wanted)
        titles = {product_id: product.title for product_id, product in known.items()}
        if available is None:
            available = near | {
                product_id
                for product_id, product in known.items()
                if product.available and (self.kind is None or product.kind == self.kind)
            }
        return [
            [
                Recommendation(
                    item.product_id,
                    shown.titles.get(item.product_id) or titles[item.product_id],
                    item.score,
                    item.because,
                )
                for item in ranking.candidates(titles, available)
            ]
            async for ranking in _others_first(rankings)
        ]

    async def near_query(
        self, query: Query, asked: Sequence[Vector], depth: int
    ) -> tuple[list[Nearby], list[list[Hit]], Found]:
        """What is near a query, has its words, or was clicked after it; how near all of that is to each of `asked` and,
        last, to the query; and what was found of it.

        One call of two searches, and a look-up of what they found, or others clicked, that the cache doesn't have.
        """
        directions = np.stack([*asked, query.vector])
        lengths = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
        directions = centred(directions / lengths, self.mean)
        near = self.near
        if near is None or near.depth < depth:
            near = await _near_text(self.catalogue, query, self.mean, depth, self.kind)
        nearby, worded, _ = near
        words = {one.product_id: one.score for one in worded}
        nearby = [*{one.product_id: one for one in [*nearby, *worded]}.values()]
        rows, clicks = self.statistics.clicks.of(query.hash)
        clicked_ids = [self.statistics.product_ids[row] for row in rows.tolist()]
        clicked = dict(zip(clicked_ids, clicks.tolist(), strict=True))
        found = {one.product_id for one in nearby}
        further = await self.catalogue.get(one for one in clicked_ids if one not in found)
        nearby = nearby + [
            Nearby(one.product_id, one.title, one.kind, 0.0, one.ts or 0, one.vector)
            for one in further.values()
            if one.available and (self.kind is None or one.kind == self.kind)
        ]
        products = [one for one in nearby if one.vector is not None]
        vectors = np.stack([one.vector for one in products if one.vector is not None]) if products else directions[:0]
        ids = [one.product_id for one in products]
        hits = [
            list(zip(ids, ((row - offset) * scale).tolist(), strict=True))
            for row, (offset, scale) in zip(directions @ vectors.T, centring(directions, self.mean), strict=True)
        ]
        announced = {one.product_id: one.announced for one in products}
        return products, hits, Found((), query=hits[-1], announced=announced, clicked=clicked, words=words)

    async def _near(self, asked: Sequence[Vector], depth: int) -> tuple[list[list[Hit]], _Shown]:
        """What is near each vector, by centred cosine, and what is known of all of that."""
        snapshot = self.snapshot
        available = snapshot.titles if snapshot is not None and self.kind is None else None
        if not asked:
            return [], _Shown({} if snapshot is None else snapshot.titles, {}, available)
        queries = centred(np.stack(asked) / np.linalg.norm(asked, axis=1, keepdims=True), self.mean)
        if snapshot is not None:
            neighbours = await asyncio.to_thread(snapshot.near, queries, depth, kind=self.kind)
            shown = _Shown(snapshot.titles, snapshot.announced, available)
        else:
            nearby = await self.catalogue.near(queries, depth, kind=self.kind)
            neighbours = [
                Neighbours([one.product_id for one in row], np.array([one.score for one in row], np.float32))
                for row in nearby
            ]
            shown = _Shown(
                {one.product_id: one.title for row in nearby for one in row},
                {one.product_id: one.announced for row in nearby for one in row},
                None,
            )
        return [
            list(zip(row.product_ids, ((row.scores - offset) * scale).tolist(), strict=True))
            for row, (offset, scale) in zip(neighbours, centring(queries, self.mean), strict=True)
        ], shown


async def _others_first(people: Iterable[_T]) -> AsyncIterator[_T]:
    """One after the other; a list takes a millisecond, and what else there is to do waits for no more."""
    for number, person in enumerate(people):
        if number:
            await asyncio.sleep(0)
        yield person


class _Shown(NamedTuple):
    """Of what may be shown, by product id."""

    titles: Mapping[str, str]
    announced: Mapping[str, int]
    available: Container[str] | None  # everything that is available, where that is at hand


def _shared_out(tastes: Sequence[Taste], hits: Sequence[list[Hit]], common: Found) -> list[Found]:
    """The hits back to whom they were asked for, in the order of asking, with what is common to all."""
    found, at = [], 0
    for taste in tastes:
        end = at + len(taste.interests)
        recent = hits[end] if taste.short is not None else ()
        found.append(replace(common, interests=hits[at:end], recent=recent))
        at = end + (taste.short is not None)
    return found


def _product_ids(states: Sequence[ProfileState]) -> set[str]:
    """Every product in these people's histories: to be shown again, or to be named as a reason."""
    return {key[1:] for state in states for ledger in state for key in ledger.keys if not is_query(key)}
