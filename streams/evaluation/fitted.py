"""Baselines that are fitted to a matrix of users and products in batch: EASE, and two of the library `implicit`.

What there is to choose was chosen for them on the next order after 2011-08-15 of online-retail, so that each is at its
best there, not as it comes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from streams.evaluation.baselines import REFIT_MS, Scorer
from streams.evaluation.past import Past

EASE_PRODUCTS: Final = 12_000
"""EASE inverts a matrix [products, products], so of more products than this it is left out."""

_EASE_RIDGE: Final = 300.0  # λ
_OWN_WEIGHT: Final = 0.3
_ALS_FACTORS: Final = 128
_ALS_ALPHA: Final = 1.0
_ALS_RIDGE: Final = 10.0
_NEIGHBOURS: Final = 100


def fitted_baselines(past: Past, *, seed: int) -> Iterator[Scorer]:
    """Those that this many products allow."""
    if len(past.product_ids) <= EASE_PRODUCTS:
        ease = Ease(past)
        yield ease
        yield EaseAndOwn(ease, past)
    yield AlternatingLeastSquares(past, seed=seed)
    yield ItemNeighbours(past)


def left_out(products: int) -> list[str]:
    """Which baselines a catalogue of so many products doesn't allow, and why."""
    if products <= EASE_PRODUCTS:
        return []
    return [
        f"EASE is left out: it inverts a matrix of {products:,} × {products:,} (at most {EASE_PRODUCTS:,} products)"
    ]


class _Fitted(ABC):
    """Fitted when first asked, and anew when that is a week old in event time; users as they are at the moment."""

    name: str

    def __init__(self, past: Past) -> None:
        self._past = past
        self._good_until = -1

    def prepare(self, at: int) -> None:
        if at >= self._good_until:
            self._fit(self._past.matrix())
            self._good_until = at + REFIT_MS

    def scores(self, user_id: str) -> NDArray[np.float64]:
        row = self._past.row(user_id)
        return self._scores(row) if row.any() else row

    @abstractmethod
    def _fit(self, orders: csr_matrix) -> None:
        """`orders` is [users, products]."""

    @abstractmethod
    def _scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n] of the user of this row, [n]."""


class Ease(_Fitted):
    """Embarrassingly shallow autoencoders, in closed form (Steck, WWW 2019, equation 8), on what was bought at all."""

    name = "EASE"

    def _fit(self, orders: csr_matrix) -> None:
        bought = (orders > 0).astype(np.float64)
        gram = (bought.T @ bought).toarray()
        gram[np.diag_indices_from(gram)] += _EASE_RIDGE
        inverse = np.linalg.inv(gram)
        self._weights = inverse / -np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)

    def _scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self._weights[row > 0].sum(axis=0)
        return scores


class EaseAndOwn:
    """EASE + .3 × how many of the user's own orders contain a product: EASE alone knows no habit."""

    name = "EASE + own orders"

    def __init__(self, ease: Ease, past: Past) -> None:
        self._ease = ease
        self._past = past

    def prepare(self, at: int) -> None:
        self._ease.prepare(at)

    def scores(self, user_id: str) -> NDArray[np.float64]:
        return self._ease.scores(user_id) + _OWN_WEIGHT * self._past.row(user_id)


class AlternatingLeastSquares(_Fitted):
    """Matrix factorisation of implicit feedback (Hu, Koren and Volinsky, ICDM 2008), by the library `implicit`."""

    name = "ALS (implicit)"

    def __init__(self, past: Past, *, seed: int) -> None:
        super().__init__(past)
        self._seed = seed
        self._model: Any = None

    def _fit(self, orders: csr_matrix) -> None:
        from implicit.cpu.als import AlternatingLeastSquares as Model

        self._model = Model(
            factors=_ALS_FACTORS,
            alpha=_ALS_ALPHA,
            regularization=_ALS_RIDGE,
            num_threads=1,
            random_state=self._seed,
        )
        self._model.fit(orders, show_progress=False)

    def _scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        user = self._model.recalculate_user(0, csr_matrix(row[None].astype(np.float32)))
        return np.asarray(self._model.item_factors @ user, np.float64).ravel()


class ItemNeighbours(_Fitted):
    """Products bought by the same customers, weighted by BM25, the 100 nearest of each, by the library `implicit`."""

    name = "item-kNN (implicit)"

    def _fit(self, orders: csr_matrix) -> None:
        from implicit.nearest_neighbours import BM25Recommender

        model = BM25Recommender(K=_NEIGHBOURS, num_threads=1)
        with warnings.catch_warnings(action="ignore"):  # of a conversion within the library
            model.fit(orders, show_progress=False)
        self._similarity = csr_matrix(model.similarity)

    def _scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = (csr_matrix(row[None]) @ self._similarity).toarray()[0]
        return scores
