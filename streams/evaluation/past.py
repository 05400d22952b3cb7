"""Who bought (or clicked) what, counted: what the baselines know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from streams.evaluation.tasks import wanted_of
from streams.evaluation.timeline import Order, Step
from streams.events import Search

_ROOM: Final = 1024


class Past:
    """Counts of orders, or of clicks, up to what was learned last. Products are columns, in the order given."""

    def __init__(self, product_ids: Sequence[str], of: type[Order] | type[Search]) -> None:
        self.product_ids = np.array(product_ids, np.object_)
        self.columns = {product_id: column for column, product_id in enumerate(product_ids)}
        self.totals = np.zeros(len(product_ids))  # [n]: orders that contain each product
        self._of = of
        self._times: dict[str, dict[str, int]] = defaultdict(dict)
        self._when = np.zeros(_ROOM, np.int64)  # of every line, in the order of time
        self._what = np.zeros(_ROOM, np.int64)
        self._lines = 0

    def learn(self, step: Step) -> None:
        if not isinstance(step, self._of):
            return
        times = self._times[step.user_id]
        for product_id in wanted_of(step):
            times[product_id] = times.get(product_id, 0) + 1
            if (column := self.columns.get(product_id)) is not None:
                self._append(step.ts, column)

    def knows(self, user_id: str) -> bool:
        return user_id in self._times

    def users(self) -> set[str]:
        return set(self._times)

    def times(self, user_id: str) -> Mapping[str, int]:
        """By product id, in how many of the user's orders it was."""
        return self._times.get(user_id, {})

    def row(self, user_id: str) -> NDArray[np.float64]:
        """The same by column, [n]."""
        row = np.zeros(len(self.product_ids))
        for product_id, times in self.times(user_id).items():
            if (column := self.columns.get(product_id)) is not None:
                row[column] = times
        return row

    def recent(self, at: int, window_ms: int) -> NDArray[np.float64]:
        """Orders that contain each product, [n], in the window that ends before `at`."""
        start, end = np.searchsorted(self._when[: self._lines], (at - window_ms, at))
        return np.bincount(self._what[start:end], minlength=len(self.product_ids)).astype(np.float64)

    def matrix(self) -> csr_matrix:
        """Users who have anything, by products: float32 [users, n] of how many orders."""
        rows, columns, values = [], [], []
        for row, times in enumerate(self._times.values()):
            for product_id, count in times.items():
                if (column := self.columns.get(product_id)) is not None:
                    rows.append(row)
                    columns.append(column)
                    values.append(count)
        shape = len(self._times), len(self.product_ids)
        return csr_matrix((np.array(values, np.float32), (rows, columns)), shape=shape)

    def _append(self, ts: int, column: int) -> None:
        if self._lines == len(self._when):
            self._when = np.concatenate((self._when, np.zeros_like(self._when)))
            self._what = np.concatenate((self._what, np.zeros_like(self._what)))
        self._when[self._lines], self._what[self._lines] = ts, column
        self._lines += 1
        self.totals[column] += 1
