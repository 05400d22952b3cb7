"""Writing points so that a write replaces only what was read: steps 4 and 5 of the design.

Nothing here knows what a point holds. A profile, a product, the catalogue's mean and the record of a
generation are all written by the same rule.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import channel_of, timeout_of
from sinks.points import POINTS_FIELD, WirePoint
from sinks.retry import (
    TRANSIENT,
    PermanentWriteError,
    RetryPolicy,
    describe,
    is_too_large,
    permanent,
    until_answered,
)
from sinks.wire import delimited

VERSION_LIMIT = 2**53
"""Qdrant compares numbers as float64: whole numbers below this are compared exactly."""

REQUEST_BYTES = 16 * 2**20
"""No request of more than one point is larger than this."""


@dataclass(frozen=True, slots=True)
class Write:
    """One point to be written, and what it may replace."""

    id: str
    """The point's id, a canonical UUID string, the one `point` was built with."""
    version: int
    """The point's new version, from `new_version`, the one `point` was built with."""
    replaces: int | None
    """The version that was read, and that this write is the successor of; None if the point was missing."""
    point: WirePoint
    """The point as built by `sinks.points`, which has checked its vectors."""


def new_version() -> int:
    """A random version in [1, 2^53), for one write of one point, never to be used again.

    Versions are compared for equality only: they have no order. Random, so that writers need not agree.
    """
    return secrets.randbelow(VERSION_LIMIT - 1) + 1


async def write(
    client: AsyncQdrantClient,
    collection: str,
    writes: Sequence[Write],
    *,
    replicated: bool = False,
    retry: RetryPolicy | None = None,
) -> list[bool]:
    """Write a chunk of points, each only over the state it was computed from, and see what became of it.

    Optimistic concurrency. Another worker may be writing the same points, and of an earlier call the answer
    may have been lost and the write still be under way; the condition makes both harmless. The numbers
    are those of the design, "Nothing lost, nothing counted twice":

    4. Send one upsert for the chunk on the condition `version` in {the versions that were read, 0}. Qdrant
       decides point by point; it inserts a missing point whatever the condition says. (0 is nobody's
       version; it keeps the list from being empty.)
    5. Whatever the answer (success, refusal by load, time-out, none), read the versions back, and for
       each point:
       a. it is mine: done, True;
       b. it is still the one that was read: send the same bytes again, after a pause;
       c. it is anything else: somebody else's, False. The caller drops what it has cached, reads the
          point again and redoes its work on that.

    Args:
        client: from `connect`; its time-out is the deadline of each request.
        collection: the real name, never an alias: an alias may come to mean another generation meanwhile.
        writes: points with ids that differ. A few hundred; the caller runs several chunks at once.
        replicated: whether the collection has more than one replica. Replicas decide the condition each on
            their own, so writes must then reach them in one order (write ordering `strong`), and reads ask a
            majority. It costs concurrency within a shard, which a single replica does not need.
        retry: how to wait; by default without end. `attempts` bounds the repetitions of the upsert.

    Returns:
        For each write, in order, whether the point stored when it was read back is the one of this write.

    Guarantees: never replaces a state other than the one named by `replaces`, now or later; True is durable
    as far as the server's acknowledgement is. Does not guarantee that a False, or an exception, means that
    nothing was written: it was, perhaps, and has been replaced since.

    Raises:
        PermanentWriteError: Qdrant refused the chunk for a reason that waiting does not cure; some of its
            points may have been written.
        ValueError: two writes of one point in the chunk, or a version out of range. Nothing was sent.
    """
    _check(writes)
    retry = retry or RetryPolicy()
    mine: dict[str, bool] = {}
    unsettled = list(writes)
    attempt = 0
    while unsettled:
        attempt += 1
        # 4. Send.
        answer = await _send(client, collection, unsettled, replicated)
        # 5. Whatever the answer, read the versions back.
        stored = await read_versions(client, collection, [w.id for w in unsettled], replicated=replicated, retry=retry)
        still_old = []
        for w in unsettled:
            version = stored.get(w.id)
            if version == w.version:  # a.
                mine[w.id] = True
            elif version == w.replaces:  # b. (None is None: still missing)
                still_old.append(w)
            else:  # c.
                mine[w.id] = False
        unsettled = still_old
        if unsettled:
            if attempt == retry.attempts:
                raise TimeoutError(
                    f"{len(unsettled)} of {len(writes)} points were not written to {collection!r} "
                    f"in {attempt} attempts: {describe(answer)}"
                )
            await retry.wait("upsert", collection, attempt, answer)
    return [mine[w.id] for w in writes]


async def read_versions(
    client: AsyncQdrantClient,
    collection: str,
    ids: Sequence[str],
    *,
    replicated: bool = False,
    retry: RetryPolicy | None = None,
) -> dict[str, int]:
    """The versions of those of the points `ids` (canonical UUID strings) that exist.

    A point without a whole number as its `version` is not Afterglow's: its version is given as 0, which is
    nobody's.

    Raises:
        PermanentWriteError: Qdrant refused the read for a reason that waiting does not cure.
    """
    if not ids:
        return {}
    request = qdrant.GetPoints(
        collection_name=collection,
        ids=[qdrant.PointId(uuid=id_) for id_ in ids],
        with_payload=_ONLY_THE_VERSION,
        with_vectors=_NO_VECTORS,
        read_consistency=MAJORITY if replicated else None,
    )
    response = await until_answered(
        lambda: client.grpc_points.Get(request, timeout=timeout_of(client)),
        doing="reading versions back",
        collection=collection,
        retry=retry or RetryPolicy(),
        kind=PermanentWriteError,
    )
    # A missing map entry reads as an empty Value, and an empty Value as 0.
    return {point.id.uuid: point.payload["version"].integer_value for point in response.result}


async def _send(
    client: AsyncQdrantClient, collection: str, writes: Sequence[Write], replicated: bool
) -> BaseException | str:
    """Send the upserts of `writes`, and say how it went: for a log only, for the answer decides nothing.

    Stops at the first request that fails; what was not sent is found unchanged at the read-back.
    """
    for part in _parts(writes):
        try:
            response = await upsert(client, upsert_request(collection, part, replicated))
        except TRANSIENT as failure:
            if is_too_large(failure) and len(part) > 1:
                half = len(part) // 2
                for smaller in (part[:half], part[half:]):
                    answer = await _send(client, collection, smaller, replicated)
                    if answer != _COMPLETED:
                        return answer
                continue
            if (error := permanent(failure, collection, "an upsert", PermanentWriteError)) is not None:
                raise error from failure
            return failure
        if (status := qdrant.UpdateStatus.Name(response.result.status)) != _COMPLETED:
            return f"answered {status}"
    return _COMPLETED


_UPSERT = "/qdrant.Points/Upsert"
_COMPLETED = "Completed"
_ONLY_THE_VERSION = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=["version"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)
MAJORITY = qdrant.ReadConsistency(type=qdrant.ReadConsistencyType.Majority)
_STRONG = qdrant.WriteOrdering(type=qdrant.WriteOrderingType.Strong)


def upsert_request(collection: str, writes: Sequence[Write], replicated: bool) -> bytes:
    """A serialised `qdrant.UpsertPoints`: all but the points as protobuf has it, and the points as they are."""
    may_replace = [0, *(w.replaces for w in writes if w.replaces is not None)]
    version_was_read = qdrant.Condition(
        field=qdrant.FieldCondition(
            key="version", match=qdrant.Match(integers=qdrant.RepeatedIntegers(integers=may_replace))
        )
    )
    without_points = qdrant.UpsertPoints(
        collection_name=collection,
        wait=True,
        update_filter=qdrant.Filter(must=[version_was_read]),
        ordering=_STRONG if replicated else None,
    )
    # A message's fields may come in any order, so what is appended to it is a part of it.
    return b"".join([without_points.SerializeToString(), *(delimited(POINTS_FIELD, w.point) for w in writes)])


async def upsert(client: AsyncQdrantClient, request: bytes) -> qdrant.PointsOperationResponse:
    """Send a request of `upsert_request`, on one of the client's own channels.

    As bytes: the client's method takes a protobuf object, for which 128 profiles would be parsed and serialised again.
    """
    call = channel_of(client).unary_unary(_UPSERT, response_deserializer=qdrant.PointsOperationResponse.FromString)
    response: qdrant.PointsOperationResponse = await call(request, timeout=timeout_of(client))
    return response


def _parts(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """Cut a chunk into requests of at most `REQUEST_BYTES` of points; a larger point goes alone."""
    start = size = 0
    for index, w in enumerate(writes):
        if index > start and size + len(w.point) > REQUEST_BYTES:
            yield writes[start:index]
            start, size = index, 0
        size += len(w.point)
    if start < len(writes):
        yield writes[start:]


def _check(writes: Sequence[Write]) -> None:
    if len({w.id for w in writes}) != len(writes):
        seen: set[str] = set()
        twice = next(w.id for w in writes if w.id in seen or seen.add(w.id))  # type: ignore[func-returns-value]
        raise ValueError(f"point {twice} is written twice in one chunk; fold a user's events into one write")
    for w in writes:
        if not 0 < w.version < VERSION_LIMIT or w.version == w.replaces:
            raise ValueError(f"version {w.version} of point {w.id} must be new and in [1, 2^53): take new_version()")
