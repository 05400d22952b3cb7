"""When the catalogue of a generation changed last: lists that were made after it are as good as new ones.

One point of `statistics--NAME`, beside the generation's record:

========================================  ==================================================================
`00000000-0000-0000-0000-000000000005`    `changed_at` (ms), `version`
========================================  ==================================================================

A price is no change. It is written before and after products are, so that a crash in between hides no change from
lists made later than some seconds after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from qdrant_client import AsyncQdrantClient

from sinks.collections import read_point, statistics_collection
from sinks.points import payload_point
from sinks.retry import RetryPolicy
from sinks.writes import Write, new_version, write

_POINT: Final = "00000000-0000-0000-0000-000000000005"
_RECENT_SECONDS: Final = 1.0


class CatalogueChanges:
    """Of one generation. Raises PermanentSinkError, and transient errors when `retry` gives up."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        generation: str,
        *,
        replicated: bool = False,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._collection = statistics_collection(generation)
        self._replicated = replicated
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._latest: int | None = None
        self._looked_at = -_RECENT_SECONDS
        self._reading = asyncio.Lock()

    async def note(self, now_ms: int) -> None:
        """Products are changing. Of two who say so at once, either will do."""
        before = await self._read()
        version = new_version()
        point = payload_point(_POINT, version, {"changed_at": now_ms})
        only = Write(_POINT, version, None if before is None else before[1], point)
        await write(self._client, self._collection, [only], replicated=self._replicated, retry=self._retry)

    async def latest(self) -> int | None:
        """When products changed last (ms), as of a second ago at most; None where it is not known."""
        async with self._reading:
            if self._clock() - self._looked_at >= _RECENT_SECONDS:
                found = await self._read()
                self._latest = None if found is None else found[0]
                self._looked_at = self._clock()
            return self._latest

    async def _read(self) -> tuple[int, int] | None:
        stored = await read_point(
            self._client, self._collection, _POINT, replicated=self._replicated, retry=self._retry
        )
        if stored is None:
            return None
        return stored["changed_at"].integer_value, stored["version"].integer_value
