"""Vectors of the texts asked for last."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class VectorCache:
    """The least recently used `capacity` vectors, by the exact text given to the model (prefix included).

    Rows lie in one float32 array of capacity x dimension, allocated once; the operating system gives it memory as it
    fills. 100,000 rows of 384 dimensions are 154 MB. Capacity 0 caches nothing. Not thread-safe.
    """

    def __init__(self, capacity: int, dimension: int) -> None:
        self._capacity = capacity
        self._rows = np.empty((capacity, dimension), np.float32)
        self._row_of: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._row_of)

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The vector [dimension] of `key`, a view that the next `put` may overwrite: copy it at once."""
        row = self._row_of.get(key)
        if row is None:
            return None
        self._row_of.move_to_end(key)
        vector: NDArray[np.float32] = self._rows[row]
        return vector

    def put(self, key: str, vector: NDArray[np.float32]) -> None:
        if self._capacity == 0:
            return
        row = self._row_of.get(key)
        if row is None:
            row = len(self._row_of) if len(self._row_of) < self._capacity else self._row_of.popitem(last=False)[1]
            self._row_of[key] = row
        else:
            self._row_of.move_to_end(key)
        self._rows[row] = vector
