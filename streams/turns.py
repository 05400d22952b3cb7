"""Batches at work at the same time: what they share is done in the order of the batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BatchFailed(RuntimeError):
    """An earlier batch with some of the same ids was not done: nothing of them may be done after it."""


class Turn:
    """Of one batch: the ids that it has to wait for, by the turn that has them."""

    def __init__(self) -> None:
        self.parts: dict[Turn | None, list[str]] = {}
        """Ids by whom they are to be had from; None: nobody has them."""
        self._over = asyncio.Event()
        self._failed = False

    async def over(self) -> None:
        """Until all of the batch is done. Raises BatchFailed."""
        await self._over.wait()
        if self._failed:
            raise BatchFailed("an earlier batch with events of the same users was not stored")

    def end(self, *, failed: bool) -> None:
        self._failed = failed
        self._over.set()


class Turns:
    """Who has which ids. Memory: the ids of the batches at work."""

    def __init__(self) -> None:
        self._last: dict[str, Turn] = {}  # by id: the newest batch that has it

    @contextmanager
    def take(self, ids: Iterable[str]) -> Iterator[Turn]:
        """The turn of a batch, in the order of the calls; it is over at the end of the context."""
        turn = Turn()
        for id_ in ids:
            turn.parts.setdefault(self._last.get(id_), []).append(id_)
            self._last[id_] = turn
        failed = True
        try:
            yield turn
            failed = False
        finally:
            for part in turn.parts.values():
                for id_ in part:
                    if self._last.get(id_) is turn:
                        del self._last[id_]
            turn.end(failed=failed)
