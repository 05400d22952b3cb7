"""A catalogue in memory, in which all that `recommend` and a text search ask for is found exactly."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sinks.catalogue import Nearby, Product
from sinks.derivation import Vector
from sinks.snapshot import CatalogueSnapshot
from sinks.spelling import Vocabulary
from sinks.support import LANDMARKS, Support, landmarks_of
from sinks.words import Words, product_words, query_words
from streams.products import mean_of


class MemoryCatalogue:
    """Products with their vectors, as `sinks.catalogue.Catalogue` gives them."""

    def __init__(self, products: Sequence[Product]) -> None:
        """Each with its vector; at least one of them available."""
        self.products = {product.product_id: product for product in products}
        self.vectors: Mapping[str, Vector] = {
            product_id: product.vector for product_id, product in self.products.items() if product.vector is not None
        }
        vectors = np.stack([*self.vectors.values()])
        self.mean = mean_of(vectors)
        drawn = np.random.default_rng(1).permutation(len(vectors))[:LANDMARKS]
        self.support = Support(landmarks_of(vectors[drawn], self.mean), self.mean)
        self.vocabulary = Vocabulary.of(product.text for product in products)
        shown = [product for product in self.products.values() if product.available]
        self._holders: dict[int, dict[str, float]] = defaultdict(dict)
        for product in shown:
            words = product_words(product.text)
            for word, weight in zip(words.ids.tolist(), words.weights.tolist(), strict=True):
                self._holders[word][product.product_id] = weight
        self.snapshot = CatalogueSnapshot(
            product_ids=np.array([product.product_id for product in shown], np.object_),
            kinds=np.array([product.kind for product in shown], np.str_),
            vectors=np.stack([self.vectors[product.product_id] for product in shown]),
            titles={product.product_id: product.title for product in shown},
            announced={product.product_id: product.ts or 0 for product in shown},
        )

    async def get(self, product_ids: Iterable[str]) -> dict[str, Product]:
        """Those of the products that exist, by product id."""
        return {product_id: self.products[product_id] for product_id in product_ids if product_id in self.products}

    async def near(self, queries: Vector, limit: int, *, kind: str | None = None) -> list[list[Nearby]]:
        """For each query ([n, d]), the available products nearest by cosine, best first, at most `limit`."""
        return [
            [
                _nearby(self.products[product_id], score)
                for product_id, score in zip(row.product_ids, row.scores.tolist(), strict=True)
            ]
            for row in self.snapshot.near(queries, limit, kind=kind)
        ]

    async def for_text(
        self, query: Vector, words: Words, limit: int, *, kind: str | None = None
    ) -> tuple[list[Nearby], list[Nearby]]:
        """What is near a text ([d]), and what has most of its words, by BM25; best first, at most `limit` of each."""
        (near,) = await self.near(query[None], limit, kind=kind)
        return near, self._worded(words, limit, kind)

    async def known_of(self, words: Sequence[str]) -> set[str]:
        """Those of these words that an available product has."""
        return {word for word in words if any(id_ in self._holders for id_ in query_words(word).ids.tolist())}

    def _worded(self, words: Words, limit: int, kind: str | None) -> list[Nearby]:
        scores: dict[str, float] = defaultdict(float)
        shown = len(self.snapshot.titles)
        for word in words.ids.tolist():
            holders = self._holders.get(word, {})
            rarity = math.log((shown - len(holders) + 0.5) / (len(holders) + 0.5) + 1.0)
            for product_id, weight in holders.items():
                if kind is None or self.products[product_id].kind == kind:
                    scores[product_id] += weight * rarity
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return [_nearby(self.products[product_id], score) for product_id, score in best]


def _nearby(product: Product, score: float) -> Nearby:
    return Nearby(product.product_id, product.title, product.kind, score, product.ts or 0, product.vector)
