"""Which products the same people buy. Pure.

When somebody buys a product for the first time, it gains weight with everything in their history, less where that is
long: G_ij += 2^((t - t0) / 90 d) / |H| for each j in H, i included. Similarity, for each product its largest:

    S_ij = G_ij / (√(G_ii G_jj) + .3)       all of G decayed until now

the cosine of item-based collaborative filtering (Sarwar et al. 2001), shrunk where little is known, and always
below 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sinks.statistics import NEIGHBOURS, Neighbourhood, no_neighbours

_HALF_LIFE_MS: Final = 90 * 86_400_000.0
_SHRUNK: Final = 0.3  # in buyers of one thing; 1 and .1 find less of what is new (online-retail: by .002)
_KEPT: Final = 4  # times as many pairs kept of a product as neighbours: others may become some
_GATHERED: Final = 1_000_000  # pairs that wait until they are added up
_ROWS_AT_ONCE: Final = 512  # bounds the memory of a refresh, and keeps it in cache
_MOST: Final = 0.999  # what was bought first decays first, which alone would lift a similarity above 1


class Pairs:
    """The weights G of pairs of products, by row. Memory: 12 bytes for each of at most four times as many pairs as
    neighbours a product, and some more between two calls of `neighbours`.
    """

    def __init__(self, weights: sparse.csr_matrix | None = None, as_of: float = 0.0, *, most: int = NEIGHBOURS) -> None:
        """`weights` are decayed until `as_of` (ms). Of each product the `most` similar others are its neighbours."""
        self._most = most
        self._weights = sparse.csr_matrix((0, 0)) if weights is None else weights
        self._as_of = as_of
        self._gathered: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._waiting = 0

    def add(self, bought: NDArray[np.int64], before: NDArray[np.int64], at: float) -> None:
        """Somebody whose history was `before` (rows) bought `bought` for the first time: none of them is in it."""
        history = np.concatenate([before, bought])
        weight = 2.0 ** ((at - self._as_of) / _HALF_LIFE_MS) / len(history)
        # What was bought before gains as well; of two that are new, each gains in its own turn.
        rows = np.concatenate([np.repeat(bought, len(history)), *[before] * len(bought)])
        columns = np.concatenate([*[history] * len(bought), np.repeat(bought, len(before))])
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
        found = no_neighbours(products, self._most)
        kept = np.zeros(self._weights.nnz, np.bool_)
        own = np.sqrt(self._weights.diagonal())
        for first in range(0, products, _ROWS_AT_ONCE):
            self._nearest(first, min(first + _ROWS_AT_ONCE, products), own, found, kept)
        self._keep(kept)
        return found

    def _nearest(
        self, first: int, end: int, own: NDArray[np.float64], found: Neighbourhood, kept: NDArray[np.bool_]
    ) -> None:
        """Fills in what is `found` for the rows from `first` to before `end`, and which of their pairs are `kept`."""
        starts = self._weights.indptr[first : end + 1]
        within = slice(starts[0], starts[-1])
        rows = np.repeat(np.arange(first, end, dtype=np.int32), np.diff(starts))
        columns = self._weights.indices[within]
        kept[within] = rows == columns
        apart = np.flatnonzero(rows != columns)
        rows, columns = rows[apart], columns[apart]
        similarity = np.minimum(self._weights.data[within][apart] / (own[rows] * own[columns] + _SHRUNK), _MOST)
        order = np.argsort(rows - similarity, kind="stable")  # by row, since similarities are below 1
        place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(first, end))[rows - first]
        near, at_place = order[place < self._most], place[place < self._most]
        found.rows[rows[near], at_place] = columns[near]
        found.similarity[rows[near], at_place] = similarity[near]
        kept[within][apart[order[place < _KEPT * self._most]]] = True

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

    def _keep(self, which: NDArray[np.bool_]) -> None:
        weights = self._weights
        before = np.concatenate([[0], np.cumsum(which)])
        self._weights = sparse.csr_matrix(
            (weights.data[which], weights.indices[which], before[weights.indptr]), shape=weights.shape
        )
