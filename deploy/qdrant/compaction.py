"""Keeping the disk small and the last second of writes at most unsynced, while nobody is made to wait for long.

Overwrites are updated in place by the engine, and a flush frees what they leave behind; so the write path flushes
after every `UNFLUSHED_BYTES`, and this task a second after the last ones. Only deletions
leave holes that need a rewrite of the segment (`optimize`, which never builds a graph here): that stalls everyone
for about 20 microseconds a point, so it waits until nobody writes, or until holes outnumber points.
"""

from __future__ import annotations

import asyncio
import logging
import time

from deploy.qdrant.catalogue import Catalogue
from deploy.qdrant.collection import others_first

log = logging.getLogger(__name__)

FLUSH_AFTER_SECONDS = 1.0
IDLE_SECONDS = 2.0
_LOOK_EVERY_SECONDS = 0.25
_URGENT_DELETIONS = 20_000


async def keep_compact(catalogue: Catalogue) -> None:
    """Runs until it is cancelled."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        for collection in catalogue:
            if collection.closed:
                continue
            now = time.monotonic()
            if collection.unflushed and now - collection.first_unflushed_at >= FLUSH_AFTER_SECONDS:
                collection.flush()
            elif collection.deletions and (
                now - collection.last_write_at >= IDLE_SECONDS
                or collection.deletions > max(_URGENT_DELETIONS, collection.shard.info().points_count)
            ):
                deletions = collection.deletions
                if collection.compact():
                    log.info(
                        "compacted %r after %d deletions in %.2f s", collection.name, deletions, time.monotonic() - now
                    )
            await others_first()
