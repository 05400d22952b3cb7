"""Has statistics made anew from the topics, by whoever keeps them."""

from __future__ import annotations

import time

import msgspec
from qdrant_client import AsyncQdrantClient

from sinks.statistics import NO_STATISTICS
from sinks.statistics_store import StatisticsStore

_NOTHING = b""


async def make_anew(client: AsyncQdrantClient, generation: str, *, replicated: bool) -> bool:
    """Forgets what the generation's statistics were made from; False where nobody keeps any.

    Readers go on with the old ones until there are new ones. Raises PermanentSinkError.
    """
    store = StatisticsStore(client, generation, replicated=replicated)
    while (stored := await store.head()) is not None:
        head = stored.head
        statistics = await store.statistics(head) or NO_STATISTICS
        anew = await store.write(
            statistics,
            _NOTHING,
            stored,
            lambda now, before, head=head: msgspec.structs.replace(  # type: ignore[misc]
                head, now=now, before=before, made_at=time.time_ns() // 1_000_000, offsets={}, events=0
            ),
        )
        if anew is not None:
            return True
    return False
