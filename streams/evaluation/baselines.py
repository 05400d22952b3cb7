"""What one would use instead, ranked alike: by a score, ties by what is popular now, then by product id.

Where a baseline knows nothing of a user its scores are all the same, so that what is popular is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.evaluation.past import Past
from streams.evaluation.tasks import Task

DAY_MS: Final = 86_400_000

REFIT_MS: Final = 7 * DAY_MS
"""How often a batch method is fitted anew while the evaluation runs on: weekly, in event time."""


class Scorer(Protocol):
    """A baseline: what it thinks of every product for one user."""

    name: str

    def prepare(self, at: int) -> None:
        """Called before the scores of a moment are asked for."""
        ...

    def scores(self, user_id: str) -> NDArray[np.float64]:
        """[n], higher is better, 0 where it has no opinion."""
        ...


class Ranked:
    """A `Method` of a scorer."""

    def __init__(self, scorer: Scorer, past: Past, available: NDArray[np.bool_], *, popular_ms: int) -> None:
        """`available` is [n], by the columns of `past`; what is popular is so within `popular_ms`."""
        self.name = scorer.name
        self._scorer = scorer
        self._past = past
        self._available = available
        self._popular_ms = popular_ms

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        at = tasks[0].at
        self._scorer.prepare(at)
        popular = self._past.recent(at, self._popular_ms)
        lists = []
        for task in tasks:
            shown = self._available
            if new_only:
                shown = shown & (self._past.row(task.user_id) == 0)
            columns = np.flatnonzero(shown)
            scores = self._scorer.scores(task.user_id)[columns]
            best = columns[np.lexsort((columns, -popular[columns], -scores))[:limit]]
            lists.append(self._past.product_ids[best].tolist())
        return lists


class Popular:
    """What most orders contain lately, whoever asks."""

    def __init__(self, name: str, past: Past) -> None:
        self.name = name
        self._scores = np.zeros(len(past.product_ids))

    def prepare(self, at: int) -> None:
        """Nothing: ties are ranked by what is popular, and everything ties."""

    def scores(self, user_id: str) -> NDArray[np.float64]:
        return self._scores


class OwnMost:
    """What most of the user's own orders (or clicks) contain."""

    def __init__(self, name: str, past: Past) -> None:
        self.name = name
        self._past = past

    def prepare(self, at: int) -> None:
        """Nothing: counts are always up to date."""

    def scores(self, user_id: str) -> NDArray[np.float64]:
        return self._past.row(user_id)
