"""One collection: a shard of the engine, and writes to it in small steps, so that others get a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant import refusals
from deploy.qdrant.packing import PACKED, VECTORS, Contents, fields_in, fields_of, vectors_in
from deploy.qdrant.points import Layout, PointId, opened_vectors, plain_payload
from deploy.qdrant.schemas import described, may_pack_vectors, vector_slots

UNFLUSHED_BYTES = 32 << 20
"""Written between two flushes, at most. What overwrites leave behind is freed by a flush, and everyone waits for it and
for the disk. At 2,000 profiles a second this is once a second, as often as it is done anyhow; with a quarter of it, a
stream of writes took a third longer.
"""

MIN_POINT_BYTES = 1024
"""What a small point counts for."""

POINTS_A_STEP = 16
"""Points worked on before others get a turn: a millisecond or two."""

IDS_A_STEP = 128

Step = edge.UpdateOperation | None
"""A step of a write: an operation to apply, or None where only work that comes before the first one was done."""

_T = TypeVar("_T")


def steps(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Consecutive slices."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def others_first() -> None:
    """Give waiting requests a turn: between two steps of a large one."""
    await asyncio.sleep(0)


class Collection:
    """One shard, its configuration, and the order of its writes.

    Reads go straight to `shard`: they see every finished step of a write in progress. Writes go through `write`,
    one after another. Only the event loop's thread may touch a collection.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        shard: edge.EdgeShard,
        configuration: wire.CreateCollection,
        created_at_ms: int,
        open_fields: Iterable[str],
        save: Callable[[], None],
    ) -> None:
        self.name = name
        self.folder = folder
        self.shard = shard
        self.configuration = configuration
        self.created_at_ms = created_at_ms
        self.laid_open = set(open_fields)
        slots = vector_slots(configuration)
        self.layout = Layout(slots, may_pack_vectors(configuration, slots), set(open_fields))
        self.unflushed = 0
        self.first_unflushed_at = 0.0
        self.last_write_at = time.monotonic()
        self.deletions = 0
        self._writing = asyncio.Lock()
        self._operations = 0
        self._save = save
        self.closed = False

    async def write(self, steps_of_it: Iterator[Step], bytes_a_step: int) -> int:
        """Take the steps of a write in order, no other write in between but reads after each; the write's number.

        Preparing is a part of the write, so that however many are sent at once, a read waits for one step of one of
        them. Every refusal must come before the first operation. `bytes_a_step`: about how many each writes.
        """
        async with self._writing:
            for operation in steps_of_it:
                if self.closed:
                    raise refusals.no_collection(self.name)
                if operation is not None:
                    self._apply(operation, bytes_a_step)
                await others_first()
            self._operations += 1
            return self._operations

    def _apply(self, operation: edge.UpdateOperation, size: int) -> None:
        self.shard.update(operation)
        self.last_write_at = time.monotonic()
        if not self.unflushed:
            self.first_unflushed_at = self.last_write_at
        self.unflushed += size
        if self.unflushed >= UNFLUSHED_BYTES:
            self.flush()

    async def lay_open(self, paths: Iterable[str]) -> None:
        """Before a request looks inside payload fields, changes them, or looks at vectors (`VECTORS`): unpack them in
        every point, once and for good.

        Atomic against writes. After a crash in the middle it is done again when somebody next looks.
        """
        fields = fields_of(paths)
        if not fields <= self.laid_open:
            await self.write(self._laying_open(fields), POINTS_A_STEP * MIN_POINT_BYTES)

    def _laying_open(self, fields: set[str]) -> Iterator[Step]:
        if fields <= self.laid_open:  # by the write before this one
            return
        self.layout.open_fields |= fields  # from here on nothing is packed that isn't unpacked below
        offset: PointId | None = None
        while True:
            records, offset = self.shard.scroll(
                edge.ScrollRequest(offset=offset, limit=IDS_A_STEP, with_payload=True, with_vector=False)
            )
            yield None
            for record in records:
                yield self._opened(record, fields)
            if offset is None:
                break
        self.laid_open |= fields
        self._save()

    def _opened(self, record: edge.Record, fields: set[str]) -> Step:
        payload = dict(record.payload or {})
        packed = payload.pop(PACKED, None)
        if not isinstance(packed, str):
            return None
        vectors = vectors_in(packed)
        opened, kept = Contents(fields_in(packed), vectors).divided(fields)
        payload |= {**plain_payload(opened.payload), PACKED: kept.packed()}
        if vectors and VECTORS in fields:
            whole = edge.Point(record.id, opened_vectors(vectors, self.layout.slots), payload)
            return edge.UpdateOperation.upsert_points([whole])
        # Not set_payload, which takes a null for a field to be removed.
        return edge.UpdateOperation.overwrite_payload([record.id], payload) if opened.payload else None

    def matching(self, condition: edge.Filter) -> list[PointId]:
        """Ids of every point that matches."""
        ids: list[PointId] = []
        offset: PointId | None = None
        while True:
            records, offset = self.shard.scroll(
                edge.ScrollRequest(offset=offset, limit=10_000, filter=condition, with_payload=False, with_vector=False)
            )
            ids.extend(record.id for record in records)
            if offset is None:
                return ids

    def flush(self) -> None:
        """Sync to disk; frees what overwrites left behind, in files and in the write-ahead log."""
        self.shard.flush()
        self.unflushed = 0

    def compact(self) -> bool:
        """Give back the space of deleted points, if they are many; True if that was so. Stalls everyone."""
        self.flush()
        self.deletions = 0
        compacted = self.shard.optimize()
        self.flush()  # only then are the old segment's files removed
        return compacted

    def describe(self) -> wire.CollectionInfo:
        return described(self.configuration, self.shard.info(), self.created_at_ms)

    async def close(self) -> None:
        """After the writes under way; those that wait find the collection gone."""
        async with self._writing:
            self.closed = True
            self.shard.flush()
            self.shard.close()
