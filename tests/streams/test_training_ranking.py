"""A training compares texts as they are compared when a shop is served: what it learns is what readers get."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoders.training.measure import Catalogue
from sinks.derivation import centred
from sinks.snapshot import CatalogueSnapshot
from streams.products import mean_of


@given(st.integers(0, 2**32 - 1))
def test_products_are_ranked_as_they_are_served(seed: int) -> None:
    chance = np.random.default_rng(seed)
    drawn = chance.normal(size=(42, 8)) + 2 * chance.normal(size=8)  # as models do, all texts share a direction
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    products, asked = vectors[:40], vectors[40:]
    ids = [f"p{i:02}" for i in range(40)]
    served = CatalogueSnapshot(np.array(ids, np.object_), np.array([""] * 40), products, titles={}, announced={})
    found = served.near(centred(asked, mean_of(products)), 40)
    scores = Catalogue(ids, products, frozenset(ids)).scores(asked)
    for row, neighbours in zip(scores, found, strict=True):
        ranked = [row[ids.index(product_id)] for product_id in neighbours.product_ids]
        np.testing.assert_allclose(ranked, neighbours.scores, atol=1e-5)
