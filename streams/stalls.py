"""Whether a worker gets on: it may be alive, and take nothing in, or work at one batch for ever.

Faust can stop delivering without a word. Nobody but the worker can tell that from a quiet night, by asking Kafka what
waits, and from a service that is away, by knowing whether it has a batch at work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NoReturn

from confluent_kafka import KafkaException

from streams.lag import Waiting, named
from streams.topics import TopicPartition

logger = logging.getLogger("afterglow.stalls")

STALLED_SECONDS: Final = 300.0
"""Longer than any rebalance, and than Faust takes to find a broker again that was away."""

LOOK_SECONDS: Final = 10.0

SLOW_SECONDS: Final = 30.0
"""How old a batch is when it is told of, and how often again."""


class Stalled(RuntimeError):
    """Events wait, and none of them are delivered; the text says how many, where, and since when."""


class StallWatch:
    """Of one pipeline: hears of its batches, and is told now and then what waits in Kafka for it.

    `clock` counts seconds from anywhere.
    """

    def __init__(self, name: str, topics: Collection[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is for logs and figures; `topics` are those whose events the pipeline takes."""
        self.name = name
        self._topics = frozenset(topics)
        self._clock = clock
        self._batches: deque[float] = deque()  # when each was taken, the oldest first
        self._acknowledged = clock()
        self._hindrance = ""
        self._told: float | None = None
        self._waiting_since: float | None = None

    def taken(self) -> None:
        """A batch was taken up."""
        self._batches.append(self._clock())
        self._waiting_since = None

    def acknowledged(self) -> None:
        """The oldest batch is done."""
        self._batches.popleft()
        self._acknowledged = self._clock()
        self._hindrance, self._told = "", None

    def hindered(self, reason: str) -> None:
        """Something failed, and is tried again."""
        self._hindrance = reason

    @property
    def at_work(self) -> bool:
        return bool(self._batches)

    @property
    def batch_seconds(self) -> float:
        """How long the oldest batch is at work already; 0 where there is none."""
        return self._clock() - self._batches[0] if self._batches else 0.0

    @property
    def seconds_since_acknowledged(self) -> float:
        """Since the last batch was done, or since the start."""
        return self._clock() - self._acknowledged

    def look(self, waiting: Mapping[TopicPartition, Waiting]) -> None:
        """To be called every few seconds, with what waits in the partitions that are this worker's.

        Tells of a batch that is at work for too long in the log. Raises Stalled where events have waited for
        STALLED_SECONDS, without a batch at work or taken up meanwhile.
        """
        now = self._clock()
        mine = {at: events for at, events in waiting.items() if at[0] in self._topics}
        if self._batches:
            self._waiting_since = None
            self._tell_of_slow_batch(now)
        elif not mine:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since >= STALLED_SECONDS:
            raise Stalled(
                f"{named(mine)}, and nothing of it was delivered for {now - self._waiting_since:.0f} s, though "
                "nothing is at work: the consumer is stuck. Start again"
            )

    def _tell_of_slow_batch(self, now: float) -> None:
        if self.batch_seconds >= SLOW_SECONDS and (self._told is None or now - self._told >= SLOW_SECONDS):
            self._told = now
            logger.warning(
                "event=batch_not_done stream=%s seconds=%.0f reason=%r",
                self.name, self.batch_seconds, self._hindrance or "no failure told",
            )  # fmt: skip


async def watch_for_stalls(
    watches: Sequence[StallWatch], ask: Callable[[], Mapping[TopicPartition, Waiting]]
) -> NoReturn:
    """Looks every LOOK_SECONDS. `ask` tells what waits in this worker's partitions; it runs in a thread.

    A Kafka that doesn't answer says nothing about the worker. Raises Stalled.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            waiting = {} if all(watch.at_work for watch in watches) else await asyncio.to_thread(ask)
        except KafkaException:
            waiting = {}
        for watch in watches:
            watch.look(waiting)
