"""How far a catalogue supports a query: what nothing in the shop is like says little of its writer there. Pure.

A query is compared with landmarks, a sample of the catalogue's products: the greatest centred cosine similarity, in
units of the usual one, which is that between a landmark and the one nearest to it. Half of mashed keys lie below .40
(game-searches) and .47 (hardware-search-relevance) of it, three quarters of what shoppers type above .59 and .71; a
real query lies above mashed keys 93 and 96 times of 100.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sinks.ledgers import QueryVector

LANDMARKS: Final = 256
_FEWEST: Final = 64  # of a handful of products it can't be said what is usual
_DOUBTFUL: Final = 0.4
_USUAL: Final = 0.65
_LEAST: Final = 0.05
_REMEMBERED: Final = 8192


class Support:
    """Of one catalogue at one time. Remembers what it has judged, within a bound: a query costs microseconds."""

    def __init__(self, landmarks: NDArray[np.int8], mean: NDArray[np.float32]) -> None:
        """`landmarks` as `landmarks_of` made them with this mean."""
        self._mean = mean
        self._landmarks = _unit(landmarks.astype(np.float32))
        self._usual = 0.0
        if len(landmarks) >= _FEWEST:
            similar = self._landmarks @ self._landmarks.T
            np.fill_diagonal(similar, -1.0)
            self._usual = float(np.median(similar.max(axis=1)))
        self._judged: dict[bytes, float] = {}

    def confidence(self, query: QueryVector) -> float:
        """In [.05, 1]: what of a query's weight counts. 1 where too little is known of the catalogue."""
        if self._usual <= 0.0:
            return 1.0
        key = query.values.tobytes()
        found = self._judged.get(key)
        if found is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            near = float((self._landmarks @ _unit(_unit(query.restored()) - self._mean)).max()) / self._usual
            found = self._judged[key] = min(1.0, max(_LEAST, (near - _DOUBTFUL) / (_USUAL - _DOUBTFUL)))
        return found


def landmarks_of(vectors: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.int8]:
    """The first `LANDMARKS` of these unit vectors ([n, d]), centred on `mean`, a byte a component."""
    unit = _unit(vectors[:LANDMARKS] - mean)
    scale = np.maximum(np.abs(unit).max(axis=-1, keepdims=True), 1e-9) / 127.0
    landmarks: NDArray[np.int8] = np.rint(unit / scale).astype(np.int8)
    return landmarks


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-9)
    return unit


UNKNOWN_CATALOGUE: Final = Support(np.zeros((0, 0), np.int8), np.zeros(0, np.float32))
"""Every query counts in full."""
