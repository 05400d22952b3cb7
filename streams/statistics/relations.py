"""Which products go with which, as the catalogue says: `related` of product events. Pure.

A relation goes both ways. Its strength is that of the symmetrically normalised adjacency (Kipf and Welling 2017,
section 2), so that what goes with everything goes with nothing in particular, and co-purchase is propagated along it
by one step, so that a product that nobody bought yet is near what is bought together with those it goes with:

    R_ij = 1 / √(d_i d_j)        K = R + ½ R S        for each product its largest
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sinks.statistics import RELATED, Neighbourhood, no_neighbours

_PROPAGATED: Final = 0.5  # of what those that a product goes with are bought together with


class Relations:
    """What each product says it goes with, by hashes of ids, since those may not be known yet.

    Memory: 8 bytes a relation, of at most `streams.events.MAX_RELATED` a product.
    """

    def __init__(self, named: Mapping[int, NDArray[np.uint64]] | None = None) -> None:
        """`named`: hashes of ids by the row of the product that names them."""
        self.named = dict(named or {})

    def put(self, row: int, named: NDArray[np.uint64]) -> None:
        """From now on the product goes with these, and no others."""
        if len(named):
            self.named[row] = named
        else:
            self.named.pop(row, None)

    def reordered(self, new_row: NDArray[np.int64]) -> None:
        """Products have other rows now; -1 for those that are forgotten."""
        rows = new_row.tolist()
        self.named = {rows[row]: named for row, named in self.named.items() if rows[row] >= 0}

    def neighbours(self, hashes: NDArray[np.uint64], together: Neighbourhood) -> Neighbourhood:
        """K of the products whose ids have these hashes, one a row; `together` is S, of the first of them."""
        products = len(hashes)
        by_hash = np.argsort(hashes, kind="stable")
        rows = np.repeat(list(self.named), [len(named) for named in self.named.values()]).astype(np.int64)
        wanted = np.concatenate([np.zeros(0, np.uint64), *self.named.values()])
        found = by_hash[np.searchsorted(hashes[by_hash], wanted).clip(max=max(products - 1, 0))]
        known = (hashes[found] == wanted) & (found != rows)
        rows, found = rows[known], found[known]
        if not len(rows):
            return no_neighbours(products, 0)
        adjacency = sparse.coo_matrix((np.ones(len(rows)), (rows, found)), shape=(products, products)).tocsr()
        adjacency = ((adjacency + adjacency.T) > 0).astype(np.float64)
        scale = sparse.diags(1.0 / np.sqrt(np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1.0)))
        direct = scale @ adjacency @ scale
        propagated = direct @ matrix_of(together, products)
        # What goes with a product is near those that are bought together with it, and they with it.
        near = direct.maximum(_PROPAGATED * propagated).maximum(_PROPAGATED * propagated.T).tocsr()
        near.setdiag(0.0)
        return strongest(near)


def matrix_of(neighbours: Neighbourhood, products: int) -> sparse.csr_matrix:
    """Of so many products, of which the neighbourhood may know the first only."""
    rows, width = neighbours.rows.shape
    matrix = sparse.csr_matrix(
        (
            neighbours.similarity.ravel().astype(np.float64),
            (np.repeat(np.arange(rows), width), neighbours.rows.ravel()),
        ),
        shape=(products, products),
    )
    matrix.eliminate_zeros()
    return matrix


def strongest(near: sparse.csr_matrix) -> Neighbourhood:
    """The largest of each row, [n, RELATED]."""
    near.eliminate_zeros()
    products = near.shape[0]
    found = no_neighbours(products, RELATED)
    rows = np.repeat(np.arange(products), np.diff(near.indptr))
    order = np.lexsort((near.indices, -near.data, rows))
    rows, place = rows[order], np.arange(len(rows)) - near.indptr[rows[order]]
    kept = place < RELATED
    found.rows[rows[kept], place[kept]] = near.indices[order][kept]
    found.similarity[rows[kept], place[kept]] = near.data[order][kept]
    return found
