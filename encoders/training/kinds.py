"""The second task: which kind of product is wanted. Pure.

A shop's categories where it says them; else clusters of what the model makes of the products before any training
(Caron et al. 2018, arXiv 1807.05520), so that what it knew of them is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST: Final = 64
_PRODUCTS_A_KIND: Final = 8  # at least, where they are clusters
_ROUNDS: Final = 20


class Kinds(NamedTuple):
    of: dict[str, int]
    """By product id; what the shop says no category of has no kind."""
    centres: NDArray[np.float32]
    """[k, d], unit: of a kind's products."""


def kinds_of(
    product_ids: Sequence[str], vectors: NDArray[np.float32], categories: Mapping[str, str], seed: int
) -> Kinds:
    """`vectors` [n, d] are unit and centred, parallel to `product_ids`."""
    names = {name: row for row, name in enumerate(sorted({categories[p] for p in product_ids if p in categories}))}
    if len(names) > 1:
        rows = np.array([names[categories[p]] if p in categories else -1 for p in product_ids])
        return _kinds(product_ids, vectors, rows, len(names))
    count = max(2, min(_MOST, len(product_ids) // _PRODUCTS_A_KIND))
    return _kinds(product_ids, vectors, _clusters(vectors, count, np.random.default_rng(seed)), count)


def _kinds(product_ids: Sequence[str], vectors: NDArray[np.float32], rows: NDArray[np.int64], count: int) -> Kinds:
    centres = _centres(vectors, rows, count)
    return Kinds({product_id: int(row) for product_id, row in zip(product_ids, rows, strict=True) if row >= 0}, centres)


def _clusters(vectors: NDArray[np.float32], count: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Spherical k-means (Dhillon and Modha 2001)."""
    centres = vectors[chance.choice(len(vectors), min(count, len(vectors)), replace=False)]
    rows: NDArray[np.int64] = np.argmax(vectors @ centres.T, axis=1)
    for _ in range(_ROUNDS):
        moved: NDArray[np.int64] = np.argmax(vectors @ _centres(vectors, rows, len(centres)).T, axis=1)
        if np.array_equal(moved, rows):
            break
        rows = moved
    return rows


def _centres(vectors: NDArray[np.float32], rows: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    np.add.at(sums, rows[rows >= 0], vectors[rows >= 0])
    centres: NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return centres
