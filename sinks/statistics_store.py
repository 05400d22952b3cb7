"""Statistics in Qdrant: a head that says what is in force, and immutable pieces that hold it.

In `statistics--NAME`, beside the generation's record:

========================================  ==================================================================
`00000000-0000-0000-0000-000000000004`    the head: `stamp` (which pieces are in force), `head` (JSON of `Head`),
                                          `version`
a UUID made of stamp, part and number     a piece: `stamp`, `piece` (base64 of a part's compressed bytes), `version`
========================================  ==================================================================

The pieces of a stamp are written before the head leads to them, and go away when the head after the next one does:
whoever reads meanwhile finds all of one stamp. The head is written on the condition of the version that was read, so
of two who make statistics one wins, and the other reads what that has made.
"""

from __future__ import annotations

import asyncio
import binascii
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import zstandard
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.collections import read_point, statistics_collection
from sinks.connection import timeout_of
from sinks.points import payload_point
from sinks.retry import RetryPolicy, until_answered
from sinks.statistics import NO_STATISTICS, Statistics, decode_statistics, encode_statistics
from sinks.writes import Write, new_version, write

_HEAD_POINT: Final = "00000000-0000-0000-0000-000000000004"
_PIECE_BYTES: Final = 2 * 2**20
_READERS, _CHECKPOINT = "readers", "checkpoint"
_RECENT_SECONDS: Final = 5.0


class Stamped(msgspec.Struct, frozen=True):
    """Of how many pieces the two parts of a stamp consist."""

    stamp: str
    readers: int
    checkpoint: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force, and what it was made from."""

    now: Stamped
    before: Stamped | None = None
    made_at: int  # ms
    as_of: int  # time of the newest event, ms
    offsets: dict[str, dict[str, list[int]]]
    """By topic id and topic: for each partition, the offset that is to be read next."""
    events: int
    users: int
    products: int
    covered: int  # available products that are in any of so many people's lists at present
    lists: int = 0


class StoredHead(NamedTuple):
    head: Head
    version: int


class StatisticsStore:
    """Of one generation. Every method raises PermanentSinkError, and transient errors when `retry` gives up."""

    def __init__(
        self, client: AsyncQdrantClient, generation: str, *, replicated: bool = False, retry: RetryPolicy | None = None
    ) -> None:
        self._client = client
        self._collection = statistics_collection(generation)
        self._replicated = replicated
        self._retry = retry or RetryPolicy()
        self._unreadable: int | None = None  # the version of a head that another version of Afterglow wrote

    async def head(self) -> StoredHead | None:
        """None where there are no statistics yet, or where they are of another version."""
        stored = await read_point(
            self._client, self._collection, _HEAD_POINT, replicated=self._replicated, retry=self._retry
        )
        self._unreadable = None
        if stored is None:
            return None
        version = stored["version"].integer_value
        try:
            head = msgspec.json.decode(stored["head"].string_value, type=Head)
        except msgspec.DecodeError:
            self._unreadable = version
            return None
        return StoredHead(head, version)

    async def statistics(self, head: Head) -> Statistics | None:
        """What readers need; None where it was replaced meanwhile, or is of another version."""
        data = await self._read(head.now.stamp, _READERS, head.now.readers)
        if data is None:
            return None
        try:
            return await asyncio.to_thread(decode_statistics, data)
        except ValueError:
            return None

    async def checkpoint(self, head: Head) -> bytes | None:
        """What whoever makes the statistics goes on from; None where it was replaced meanwhile."""
        return await self._read(head.now.stamp, _CHECKPOINT, head.now.checkpoint)

    async def write(
        self,
        statistics: Statistics,
        checkpoint: bytes,
        replaces: StoredHead | None,
        describe: Callable[[Stamped, Stamped | None], Head],
    ) -> StoredHead | None:
        """Puts new statistics in force; None where somebody else has done so since `replaces` was read.

        Where that is None, it replaces what the last call of `head` could not read.
        """
        stamp = str(uuid.uuid4())
        readers = await asyncio.to_thread(lambda: _pieces(encode_statistics(statistics)))
        kept = await asyncio.to_thread(_pieces, checkpoint)
        for part, pieces in ((_READERS, readers), (_CHECKPOINT, kept)):
            for number, piece in enumerate(pieces):
                version, id_ = new_version(), _piece_id(stamp, part, number)
                point = payload_point(id_, version, {"stamp": stamp, "piece": piece})
                await self._write(Write(id_, version, None, point))
        before = None if replaces is None else replaces.head
        now = Stamped(stamp, len(readers), len(kept))
        head = describe(now, None if before is None else before.now)
        version = new_version()
        point = payload_point(_HEAD_POINT, version, {"stamp": stamp, "head": msgspec.json.encode(head).decode()})
        old = self._unreadable if replaces is None else replaces.version
        if not await self._write(Write(_HEAD_POINT, version, old, point)):
            await self._delete(now)
            return None
        if before is not None and before.before is not None:
            await self._delete(before.before)
        return StoredHead(head, version)

    async def _write(self, only: Write) -> bool:
        (mine,) = await write(self._client, self._collection, [only], replicated=self._replicated, retry=self._retry)
        return mine

    async def _read(self, stamp: str, part: str, pieces: int) -> bytes | None:
        found = []
        for number in range(pieces):
            stored = await read_point(
                self._client,
                self._collection,
                _piece_id(stamp, part, number),
                replicated=self._replicated,
                retry=self._retry,
            )
            if stored is None:
                return None
            found.append(stored["piece"].string_value)
        return await asyncio.to_thread(_joined, found)

    async def _delete(self, stamped: Stamped) -> None:
        ids = [_piece_id(stamped.stamp, _READERS, number) for number in range(stamped.readers)]
        ids += [_piece_id(stamped.stamp, _CHECKPOINT, number) for number in range(stamped.checkpoint)]
        points = qdrant.PointsSelector(points=qdrant.PointsIdsList(ids=[qdrant.PointId(uuid=id_) for id_ in ids]))
        request = qdrant.DeletePoints(collection_name=self._collection, wait=True, points=points)
        await until_answered(
            lambda: self._client.grpc_points.Delete(request, timeout=timeout_of(self._client)),
            doing="deleting old statistics",
            collection=self._collection,
            retry=self._retry,
        )


class RecentStatistics:
    """Statistics read when they are asked for, and again when others have come into force. Safe for many tasks."""

    def __init__(
        self, store: StatisticsStore, *, seconds: float = _RECENT_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """After `seconds` it is looked whether there are others."""
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._version = 0
        self._looked_at = -seconds
        self._statistics = NO_STATISTICS
        self._reading = asyncio.Lock()

    async def get(self) -> Statistics:
        """`NO_STATISTICS` where there are none. Raises as the store does."""
        async with self._reading:
            if self._clock() - self._looked_at >= self._seconds:
                stored = await self._store.head()
                if stored is None:
                    self._version, self._statistics = 0, NO_STATISTICS
                elif stored.version != self._version:
                    statistics = await self._store.statistics(stored.head)
                    if statistics is not None:
                        self._version, self._statistics = stored.version, statistics
                self._looked_at = self._clock()
            return self._statistics


def _piece_id(stamp: str, part: str, number: int) -> str:
    return str(uuid.uuid5(uuid.UUID(stamp), f"{part}/{number}"))


def _pieces(data: bytes) -> list[bytes]:
    compressed = zstandard.compress(data)
    return [compressed[start : start + _PIECE_BYTES] for start in range(0, len(compressed), _PIECE_BYTES)]


def _joined(pieces: Sequence[str]) -> bytes:
    return zstandard.decompress(b"".join(binascii.a2b_base64(piece) for piece in pieces))
