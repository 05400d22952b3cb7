"""Between a Faust agent and an updater: the agent hands events over, batches form by themselves.

An agent that did the work itself would take nothing in meanwhile. So it only puts events into a bounded buffer. The
pipeline takes all that have come, makes a batch of them ready (which encodes its texts) and applies it (which folds
and writes) while the batches before it are still being applied: neither it nor Qdrant idles while the last of a batch
is stored. They are acknowledged in the order in which their events came, so a committed offset is never beyond what
is stored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Event = TypeVar("Event")
Ready = TypeVar("Ready")


class Intake(Generic[Event]):
    """Events on their way from an agent to a pipeline, at most `capacity`: a full one makes the agent wait."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._events)

    async def put(self, event: Event) -> None:
        while len(self._events) >= self._capacity:
            self._room.clear()
            await self._room.wait()
        self._events.append(event)
        self._changed.set()

    async def take(self, at_most: int, linger_seconds: Callable[[], float]) -> list[Event]:
        """All events that have come, in order, at least one; waits a little for company unless there is plenty.

        How long is asked when the first one is there.
        """
        while not self._events:
            self._changed.clear()
            await self._changed.wait()
        if len(self._events) < at_most:
            await asyncio.sleep(linger_seconds())
        taken = [self._events.popleft() for _ in range(min(at_most, len(self._events)))]
        self._room.set()
        return taken


class Pipeline(Generic[Event, Ready]):
    """Takes batches, makes them ready one by one, applies some at once, and acknowledges them one after the other."""

    def __init__(
        self,
        take: Callable[[], Awaitable[Sequence[Event]]],
        *,
        prepare: Callable[[Sequence[Event]], Awaitable[Ready]],
        apply: Callable[[Ready], Awaitable[None]],
        acknowledge: Callable[[Sequence[Event]], Awaitable[None]],
        at_once: int,
    ) -> None:
        """`take` waits for events and gives some, in order; none mean that there will be no more.

        `apply` is begun in the order of the batches, and not in turn: what must not be done at once it has to keep
        apart. `at_once` bounds the batches that are taken and not acknowledged yet.
        """
        self._take = take
        self._prepare = prepare
        self._apply = apply
        self._acknowledge = acknowledge
        self._places = asyncio.Semaphore(at_once)
        self._at_work = 0

    @property
    def busy(self) -> bool:
        """Whether events have been taken that aren't acknowledged yet."""
        return self._at_work > 0

    async def run(self) -> None:
        """Runs until there are no more events, or until a batch fails for good: that error is raised, with nothing
        of the batch, nor of any after it, acknowledged.
        """
        before: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._places.acquire()
                events = await self._take()
                if not events:
                    return
                self._at_work += 1
                before = tasks.create_task(self._finish(events, await self._prepare(events), before))

    async def _finish(self, events: Sequence[Event], ready: Ready, before: asyncio.Task[None] | None) -> None:
        await self._apply(ready)
        if before is not None:
            await before
        await self._acknowledge(events)
        self._at_work -= 1
        self._places.release()


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended a task group of task groups: a pipeline that failed, and whoever ran beside it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
