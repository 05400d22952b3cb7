"""How sure a mean over tasks is. Pure, seeded.

Users are drawn with replacement, each with all of their tasks, since the tasks of one user are alike (the cluster
bootstrap: Davison and Hinkley 1997, section 3.8). The same draws serve every method, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 1000
_LEVEL: Final = 0.95


class Interval(msgspec.Struct, frozen=True):
    """A mean, and the 95% interval around it."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """Draws of users, made once for the tasks of one kind."""

    def __init__(self, users: Sequence[str], *, seed: int) -> None:
        """`users` are those of the tasks, one a task."""
        _, self._user_of = np.unique(np.array(users, np.object_), return_inverse=True)
        self._users = int(self._user_of.max()) + 1 if len(users) else 0
        self._seed = seed

    def mean(self, values: NDArray[np.float64]) -> Interval | None:
        """Of the values, one a task; NaN where a task has none. None where no task has one."""
        has = ~np.isnan(values)
        if not has.any():
            return None
        sums = np.bincount(self._user_of[has], values[has], self._users)
        counts = np.bincount(self._user_of[has], minlength=self._users)
        draws = []
        chance = np.random.default_rng(self._seed)
        for _ in range(DRAWS):
            drawn = np.bincount(chance.integers(0, self._users, self._users), minlength=self._users)
            if of := float(drawn @ counts):
                draws.append(float(drawn @ sums) / of)
        low, high = np.quantile(draws, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)).tolist()
        return Interval(float(values[has].mean()), low, high)
