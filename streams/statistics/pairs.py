"""Which products the same people buy. Pure.

When somebody buys a product for the first time, it gains weight with everything in their history, less where that is
long: G_ij += 2^((t - t0) / 90 d) / |H| for each j in H, i included. Similarity, for each product its largest:

    S_ij = G_ij / (√(G_ii G_jj) + 1)        all of G decayed until now

the cosine of item-based collaborative filtering (Sarwar et al. 2001), shrunk where little is known.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sinks.statistics import NEIGHBOURS, Neighbourhood, no_neighbours

_HALF_LIFE_MS: Final = 90 * 86_400_000.0
_KEPT: Final = 4 * NEIGHBOURS  # pairs kept of a product: those that are no neighbours yet may become some
_GATHERED: Final = 1_000_000  # pairs that wait until they are added up


class Pairs:
    """The weights G of pairs of products, by row. Memory: 12 bytes for each of at most `4 * NEIGHBOURS` pairs a
    product, and some more between two calls of `neighbours`.
    """

    def __init__(self, weights: sparse.csr_matrix | None = None, as_of: float = 0.0) -> None:
        """`weights` are decayed until `as_of` (ms)."""
        self._weights = sparse.csr_matrix((0, 0)) if weights is None else weights
        self._as_of = as_of
        self._gathered: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._waiting = 0

    def add(self, bought: NDArray[np.int64], history: NDArray[np.int64], at: float) -> None:
        """Somebody whose history is now `history` (rows, `bought` included) bought `bought` for the first time."""
        weight = 2.0 ** ((at - self._as_of) / _HALF_LIFE_MS) / len(history)
        rows = np.repeat(bought, len(history))
        columns = np.tile(history, len(bought))
        # What was bought before gains as well; of two that are new, each gains in its own turn.
        before = ~np.isin(columns, bought)
        rows, columns = np.concatenate([rows, columns[before]]), np.concatenate([columns, rows[before]])
        self._gathered.append((rows, columns, np.full(len(rows), weight)))
        self._waiting += len(rows)
        if self._waiting > _GATHERED:
            self._add_up(len(self))

    def __len__(self) -> int:
        """Products that there is a row of."""
        least = int(self._weights.shape[0])
        return max([least, *(int(max(rows.max(), columns.max())) + 1 for rows, columns, _ in self._gathered)])

    def neighbours(self, products: int, at: float) -> Neighbourhood:
        """The similarities as of `at`, of so many products. Forgets the weakest pairs, and decays the others."""
        self._add_up(products)
        self._decay(at)
        pairs = self._weights.tocoo()
        own = np.sqrt(self._weights.diagonal())
        similarity = pairs.data / (own[pairs.row] * own[pairs.col] + 1.0)
        apart = pairs.row != pairs.col
        rows, columns, similarity = pairs.row[apart], pairs.col[apart], similarity[apart]
        order = np.argsort(rows - similarity, kind="stable")  # similarities are below 1
        rows, columns, similarity = rows[order], columns[order], similarity[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(products))[rows]
        found = no_neighbours(products)
        near = place < NEIGHBOURS
        found.rows[rows[near], place[near]] = columns[near]
        found.similarity[rows[near], place[near]] = similarity[near]
        kept = place < _KEPT
        self._keep(rows[kept], columns[kept], pairs.data[apart][order][kept])
        return found

    def reordered(self, rows: NDArray[np.int64]) -> None:
        """From now on row i is what `rows[i]` was; what isn't among them is forgotten."""
        self._add_up(max(len(self), int(rows.max(initial=-1)) + 1))
        self._weights = self._weights[rows][:, rows].tocsr()

    def state(self) -> tuple[sparse.csr_matrix, float]:
        """What `Pairs` is made with to go on from here."""
        self._add_up(len(self))
        return self._weights, self._as_of

    def _add_up(self, products: int) -> None:
        shape = (products, products)
        self._weights.resize(shape)
        if self._gathered:
            rows, columns, weights = (np.concatenate(parts) for parts in zip(*self._gathered, strict=True))
            self._weights = (self._weights + sparse.coo_matrix((weights, (rows, columns)), shape=shape)).tocsr()
            self._gathered.clear()
            self._waiting = 0

    def _decay(self, at: float) -> None:
        self._weights *= 2.0 ** ((self._as_of - at) / _HALF_LIFE_MS)
        self._as_of = at

    def _keep(self, rows: NDArray[np.int32], columns: NDArray[np.int32], weights: NDArray[np.float64]) -> None:
        own = self._weights.diagonal()
        each = np.arange(len(own))
        self._weights = sparse.coo_matrix(
            (np.concatenate([weights, own]), (np.concatenate([rows, each]), np.concatenate([columns, each]))),
            shape=self._weights.shape,
        ).tocsr()
