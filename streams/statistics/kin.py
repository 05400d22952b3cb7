"""Products of one brand or category, so that one that nobody bought yet is near what its kind is bought together with.
Pure.

A product hangs on its kinds, and a kind on what sold of it: along these edges co-purchase S is carried to the newest
products of each kind, as if they were bought like its members on average,

    K_ij = max over the kinds k of j of Σ S_im / |k|, m among what sold of k        for each i its largest

so that a kind whose members are not bought together lends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sinks.statistics import Neighbourhood, no_neighbours
from streams.statistics.relations import matrix_of, strongest

_NEWEST: Final = 8  # products of a kind that it is lent to
_NEAR: Final = 256  # and what is nearest to the kind, so many


class Kin:
    """Which kinds products are of, by hashes, and the newest products of each kind.

    Memory: some 200 bytes for each of at most `most` products, and 8 ids a kind.
    """

    def __init__(
        self,
        most: int,
        kinds: Mapping[int, Sequence[int]] | None = None,
        newest: Mapping[int, Mapping[str, int]] | None = None,
    ) -> None:
        """Beyond `most` products those that were told of first are forgotten."""
        self._most = most
        self.kinds = {product: tuple(of) for product, of in (kinds or {}).items()}
        self.newest = {kind: dict(products) for kind, products in (newest or {}).items()}

    def put(self, product: int, product_id: str, kinds: Sequence[int], announced: int) -> bool:
        """From now on the product, by its hash and id, is of these kinds; whether that changes anything.

        Only what was announced at some time (ms, not 0) can be among the newest.
        """
        before = self.kinds.get(product, ())
        if before == tuple(kinds) and all(self.newest.get(kind, {}).get(product_id, 0) == announced for kind in kinds):
            return False
        for kind in before:
            if (newest := self.newest.get(kind)) is not None:
                newest.pop(product_id, None)
        if not kinds:
            self.kinds.pop(product, None)
            return bool(before)
        self.kinds[product] = tuple(kinds)
        if len(self.kinds) > self._most:
            del self.kinds[next(iter(self.kinds))]
        for kind in kinds if announced else ():
            newest = self.newest.setdefault(kind, {})
            newest[product_id] = announced
            if len(newest) > _NEWEST:
                del newest[min(newest, key=lambda one: (newest[one], one))]
        return True

    def announced(self, since: int) -> dict[str, int]:
        """Of the newest of every kind those announced after `since`, and when."""
        return {product_id: at for of_one in self.newest.values() for product_id, at in of_one.items() if at > since}

    def neighbours(
        self, hashes: NDArray[np.uint64], sold: NDArray[np.bool_], lent_to: Mapping[str, int], together: Neighbourhood
    ) -> Neighbourhood:
        """K of the products with these hashes, one a row. `sold` says which of them count for their kinds, `lent_to`
        has the rows of the newest; `together` is S, of the first of the products.
        """
        products = len(hashes)
        rows_of: dict[int, list[int]] = {}
        for row in np.flatnonzero(sold).tolist():
            for kind in self.kinds.get(int(hashes[row]), ()):
                rows_of.setdefault(kind, []).append(row)
        lending = [
            (members, lent)
            for kind, members in rows_of.items()
            if (lent := [lent_to[one] for one in self.newest.get(kind, ()) if one in lent_to])
        ]
        if not lending:
            return no_neighbours(products, 0)
        sizes = [len(members) for members, _ in lending]
        mean = sparse.csr_matrix(
            (
                np.repeat(1.0 / np.array(sizes), sizes),
                np.concatenate([members for members, _ in lending]),
                np.concatenate([[0], np.cumsum(sizes)]),
            ),
            shape=(len(lending), products),
        )
        carried = (mean @ matrix_of(together, products)).tocsr()
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        for place, (_, lent) in enumerate(lending):
            of_kind = slice(carried.indptr[place], carried.indptr[place + 1])
            best = np.argsort(-carried.data[of_kind], kind="stable")[:_NEAR]
            worth, near = carried.data[of_kind][best], carried.indices[of_kind][best].astype(np.int64)
            found.append((np.tile(near, len(lent)), np.repeat(lent, len(near)), np.tile(worth, len(lent))))
        rows, columns, worth = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((-worth, columns, rows))
        rows, columns, worth = rows[order], columns[order], worth[order]
        largest = np.diff(rows * products + columns, prepend=-1) != 0  # of a pair by two kinds
        largest &= rows != columns
        return strongest(
            sparse.csr_matrix((worth[largest], (rows[largest], columns[largest])), shape=(products, products))
        )
