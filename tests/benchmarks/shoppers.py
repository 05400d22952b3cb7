"""Purchases of made-up shoppers, each with some tastes, in any catalogue whose vectors are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from benchmarks.generation import now_ms
from benchmarks.vectors import Vectors

TASTES: Final = 3
OF_A_TASTE: Final = 5
PURCHASES: Final = TASTES * OF_A_TASTE

_ANCHORS: Final = 500  # products that tastes are made of
_NEIGHBOURS: Final = 16
_DAY_MS: Final = 86_400_000


def purchases(
    product_ids: Sequence[str], vectors: Vectors, shoppers: int, *, seed: int = 3
) -> Iterator[dict[str, Any]]:
    """Of every shopper `u0`, `u1`, … 15 products of three tastes, the last bought a minute ago, one order a day."""
    chance = np.random.default_rng(seed)
    anchors = chance.choice(len(vectors), min(_ANCHORS, len(vectors)), replace=False)
    near = np.argpartition(-(vectors[anchors] @ vectors.T), _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    newest = now_ms() - 60_000
    for shopper in range(shoppers):
        tastes = chance.choice(len(anchors), TASTES, replace=False)
        bought = [chance.choice(near[taste], OF_A_TASTE, replace=False) for taste in tastes]
        for day, row in enumerate(np.array(bought).T.ravel()):
            yield {
                "user_id": f"u{shopper}",
                "product_id": product_ids[row],
                "quantity": 1,
                "ts": newest - (PURCHASES - 1 - day) * _DAY_MS,
            }
