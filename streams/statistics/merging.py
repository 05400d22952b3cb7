"""Events of many partitions in the order of their time, as far as bounded memory allows. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

Event = TypeVar("Event")

WINDOW_EVENTS: Final = 200_000


class Merger(Generic[Event]):
    """A k-way merge. Each partition is roughly in the order of time, and partitions are read at different speeds.

    An event waits until every partition that may still have an earlier one has shown its next, or until `capacity`
    events wait: then the earliest goes on all the same.
    """

    def __init__(self, capacity: int = WINDOW_EVENTS) -> None:
        self._capacity = capacity
        self._waiting: dict[object, deque[tuple[int, Event]]] = defaultdict(deque)
        self._heads: list[tuple[int, int, object]] = []  # (time, tie, partition) of partitions that have events
        self._size = 0
        self._came = 0

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        """Whether more waits than may wait."""
        return self._size > self._capacity

    def put(self, partition: object, ts: int, event: Event) -> None:
        queue = self._waiting[partition]
        queue.append((ts, event))
        self._size += 1
        if len(queue) == 1:
            self._push(partition, ts)

    def take(self, behind: frozenset[object]) -> Iterator[tuple[int, Event]]:
        """What may go on now, with its time. `behind` are the partitions of which more is there to be read, or is to be
        expected.
        """
        waited_for = {partition for partition in behind if not self._waiting[partition]}
        while self._heads and (not waited_for or self.full):
            _, _, partition = heapq.heappop(self._heads)
            queue = self._waiting[partition]
            earliest = queue.popleft()
            self._size -= 1
            if queue:
                self._push(partition, queue[0][0])
            elif partition in behind:
                waited_for.add(partition)
            yield earliest

    def _push(self, partition: object, ts: int) -> None:
        self._came += 1
        heapq.heappush(self._heads, (ts, self._came, partition))
