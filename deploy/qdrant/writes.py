"""What each write of Qdrant's interface does to a collection: steps of the engine's operations, in its turn.

Every function returns the operation's number when the write is applied. It raises `refusals.Refused` for what a server
refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant import messages, refusals
from deploy.qdrant.collection import IDS_A_STEP, MIN_POINT_BYTES, POINTS_A_STEP, Collection, Step, steps
from deploy.qdrant.filters import engine_filter, optional_filter
from deploy.qdrant.packing import VECTORS, paths_in
from deploy.qdrant.points import Json, PointId, engine_points, engine_vectors, plain_payload, point_id, point_ids
from deploy.qdrant.schemas import index_schema

_UPDATE_MODES = {
    wire.UpdateMode.Value("Upsert"): edge.UpdateMode.Upsert,
    wire.UpdateMode.Value("InsertOnly"): edge.UpdateMode.InsertOnly,
    wire.UpdateMode.Value("UpdateOnly"): edge.UpdateMode.UpdateOnly,
}


async def upsert(collection: Collection, request: messages.Upsert) -> int:
    """Decided a point at a time against the state before the operation, so of two points with one id the last wins."""
    if not request.points:
        raise refusals.invalid("Empty update request")
    await collection.lay_open(paths_in(request.rest.update_filter))
    condition = optional_filter(request.rest, "update_filter")
    mode = _UPDATE_MODES.get(request.rest.update_mode)
    if mode is None:
        raise refusals.invalid(f"unknown update mode {request.rest.update_mode}")

    def prepared_and_applied() -> Iterator[Step]:
        points: dict[PointId, edge.Point] = {}
        for some in steps(request.points, POINTS_A_STEP):
            points |= engine_points(some, collection.layout)
            yield None
        for chunk in steps(list(points.values()), POINTS_A_STEP):
            yield edge.UpdateOperation.upsert_points(list(chunk), condition=condition, update_mode=mode)

    return await collection.write(prepared_and_applied(), _bytes_a_step(request.size, len(request.points)))


async def _upsert_in_a_batch(collection: Collection, request: wire.PointsUpdateOperation.PointStructList) -> int:
    points = [messages.Point.FromString(point.SerializeToString()) for point in request.points]
    return await upsert(collection, messages.Upsert(points, request, request.ByteSize()))


def _bytes_a_step(size: int, points: int) -> int:
    return POINTS_A_STEP * max(MIN_POINT_BYTES, size // points)


def _selected(
    collection: Collection, selector: wire.PointsSelector, operation: Callable[[list[PointId]], edge.UpdateOperation]
) -> Iterator[Step]:
    """Operations on the selected points; a filter is evaluated once, when the write's turn has come."""
    kind = selector.WhichOneof("points_selector_one_of")
    if kind is None:
        raise refusals.invalid("PointsSelector is missing: give ids or a filter")
    condition = engine_filter(selector.filter) if kind == "filter" else None
    ids = point_ids(selector.points.ids) if condition is None else collection.matching(condition)
    for some in steps(ids, IDS_A_STEP):
        yield operation(list(some))


async def delete(collection: Collection, request: wire.DeletePoints) -> int:
    def operation(ids: list[PointId]) -> edge.UpdateOperation:
        collection.deletions += len(ids)
        return edge.UpdateOperation.delete_points(ids)

    return await _write_selected(collection, request.points, operation)


async def _write_selected(
    collection: Collection,
    selector: wire.PointsSelector,
    operation: Callable[[list[PointId]], edge.UpdateOperation],
    bytes_a_point: int = 0,
) -> int:
    await collection.lay_open(paths_in(selector.filter))
    bytes_a_step = IDS_A_STEP * max(MIN_POINT_BYTES, bytes_a_point)
    return await collection.write(_selected(collection, selector, operation), bytes_a_step)


async def update_vectors(collection: Collection, request: wire.UpdatePointVectors) -> int:
    if not request.points:
        raise refusals.invalid("Empty update request")
    await collection.lay_open([VECTORS, *paths_in(request.update_filter)])
    condition = optional_filter(request, "update_filter")

    def prepared_and_applied() -> Iterator[Step]:
        points: list[edge.PointVectors] = []
        for some in steps(request.points, POINTS_A_STEP):
            points += [
                edge.PointVectors(point_id(message.id), engine_vectors(message.vectors, collection.layout.slots))
                for message in some
            ]
            yield None
        for chunk in steps(points, POINTS_A_STEP):
            yield edge.UpdateOperation.update_vectors(list(chunk), condition=condition)

    return await collection.write(prepared_and_applied(), _bytes_a_step(request.ByteSize(), len(request.points)))


async def delete_vectors(collection: Collection, request: wire.DeletePointVectors) -> int:
    names = list(request.vectors.names)
    if not names:
        raise refusals.invalid("no vector names given to delete")
    for name in names:
        if name not in collection.layout.slots:
            raise refusals.invalid(f"Not existing vector name error: {name}")
    await collection.lay_open([VECTORS])
    selector = request.points_selector
    return await _write_selected(collection, selector, lambda ids: edge.UpdateOperation.delete_vectors(ids, names))


async def set_payload(collection: Collection, request: wire.SetPayloadPoints) -> int:
    await collection.lay_open([request.key] if request.key else request.payload)
    return await _with_payload(collection, request, edge.UpdateOperation.set_payload)


async def overwrite_payload(collection: Collection, request: wire.SetPayloadPoints) -> int:
    await collection.lay_open([VECTORS, *([request.key] if request.key else ())])
    return await _with_payload(collection, request, edge.UpdateOperation.overwrite_payload)


async def _with_payload(
    collection: Collection,
    request: wire.SetPayloadPoints,
    change: Callable[[list[PointId], dict[str, Json], str | None], edge.UpdateOperation],
) -> int:
    def operation(ids: list[PointId]) -> edge.UpdateOperation:
        return change(ids, plain_payload(request.payload), request.key or None)

    size = sum(request.payload[name].ByteSize() for name in request.payload)
    return await _write_selected(collection, request.points_selector, operation, bytes_a_point=size)


async def delete_payload(collection: Collection, request: wire.DeletePayloadPoints) -> int:
    keys = list(request.keys)
    await collection.lay_open(keys)
    selector = request.points_selector
    return await _write_selected(collection, selector, lambda ids: edge.UpdateOperation.delete_payload(ids, keys))


async def clear_payload(collection: Collection, request: wire.ClearPayloadPoints) -> int:
    await collection.lay_open([VECTORS])
    return await _write_selected(collection, request.points, edge.UpdateOperation.clear_payload)


async def create_index(collection: Collection, request: wire.CreateFieldIndexCollection) -> int:
    operation = edge.UpdateOperation.create_field_index(request.field_name, index_schema(request))
    await collection.lay_open([request.field_name])
    return await collection.write(iter([operation]), MIN_POINT_BYTES)


async def delete_index(collection: Collection, request: wire.DeleteFieldIndexCollection) -> int:
    return await collection.write(iter([edge.UpdateOperation.delete_field_index(request.field_name)]), MIN_POINT_BYTES)


BATCHED: dict[str, Callable[[Collection, wire.UpsertPoints], Awaitable[int]]] = {
    "upsert": _upsert_in_a_batch,
    "delete_points": delete,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "update_vectors": update_vectors,
    "delete_vectors": delete_vectors,
}
