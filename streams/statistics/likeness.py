"""Which products have like texts, among those that somebody bought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sinks.derivation import Vector, centred
from sinks.statistics import NEIGHBOURS, Neighbourhood, no_neighbours

_LEAST: Final = 0.02  # below it texts have nothing in common
COMPARED: Final = 20_000
"""Products that are compared with each other: pairs grow with the square."""

_AT_ONCE: Final = 256


class LikenessOfTexts:
    """s = max(0, centred cosine)⁴ of the products' vectors, for each product the largest.

    What was compared once is remembered, and products that come are compared with all that are there. Only the first
    20,000 products are compared.
    """

    def __init__(self, mean: Vector, vector_of: Callable[[str], Vector | None]) -> None:
        """`mean` ([d]) is what vectors are centred by; `vector_of` gives a product's unit vector, where it is known."""
        self._mean = mean
        self._vector_of = vector_of
        self._ids: list[str] = []
        self._unit: Vector = np.zeros((0, len(mean)), np.float32)  # zeros where there is no vector
        self._found = no_neighbours(0)

    def begin_anew(self, mean: Vector | None = None) -> None:
        """Compares everything once more: vectors have come, or another mean."""
        self._mean = self._mean if mean is None else mean
        self._ids, self._unit, self._found = [], self._unit[:0], no_neighbours(0)

    def __call__(self, product_ids: Sequence[str]) -> Neighbourhood:
        """The neighbours of each of these, among these; of one without a vector, none."""
        if list(product_ids[: len(self._ids)]) != self._ids:
            self.begin_anew()
        compared = list(product_ids[len(self._ids) : COMPARED])
        for start in range(0, len(compared), _AT_ONCE):
            self._compare(compared[start : start + _AT_ONCE])
        rest = no_neighbours(len(product_ids) - len(self._ids))
        return Neighbourhood(*(np.concatenate(parts) for parts in zip(self._found, rest, strict=True)))

    def _compare(self, product_ids: list[str]) -> None:
        """These with each other and with all before them, both ways."""
        before = len(self._ids)
        self._ids += product_ids
        self._unit = np.concatenate([self._unit, self._centred(product_ids)])
        likeness = np.maximum(self._unit[before:] @ self._unit.T, 0.0) ** 4  # [new, all]
        likeness[likeness < _LEAST] = 0.0
        rows = np.arange(len(self._ids), dtype=np.int32)
        old = _strongest(
            np.concatenate([self._found.rows, np.broadcast_to(rows[before:], (before, len(product_ids)))], axis=1),
            np.concatenate([self._found.similarity, likeness[:, :before].T], axis=1),
        )
        new = _strongest(np.broadcast_to(rows, likeness.shape), likeness)
        self._found = Neighbourhood(*(np.concatenate(parts) for parts in zip(old, new, strict=True)))

    def _centred(self, product_ids: Sequence[str]) -> Vector:
        vectors = [self._vector_of(product_id) for product_id in product_ids]
        known = [vector is not None for vector in vectors]
        unit = np.zeros((len(vectors), len(self._mean)), np.float32)
        if any(known):
            unit[known] = centred(np.stack([vector for vector in vectors if vector is not None]), self._mean)
        return unit


def _strongest(rows: NDArray[np.int32], similarity: NDArray[np.float32]) -> Neighbourhood:
    """The `NEIGHBOURS` columns with the largest similarity of each line, fewer filled up with none."""
    found = no_neighbours(len(rows))
    most = min(NEIGHBOURS, rows.shape[1])
    columns = np.argpartition(similarity, -most, axis=1)[:, -most:]
    found.rows[:, :most] = np.take_along_axis(rows, columns, 1)
    found.similarity[:, :most] = np.take_along_axis(similarity, columns, 1)
    return found
