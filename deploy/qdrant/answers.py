"""Points from the engine to the wire: what of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant import messages
from deploy.qdrant.packing import PACKED, fields_in, vectors_in
from deploy.qdrant.points import Json, PointId, VectorSlots, header, stored_rows


def write_id(target: wire.PointId, identity: PointId) -> None:
    """The engine's id as the client expects it: UUIDs in their canonical form."""
    if isinstance(identity, int):
        target.num = identity
    else:
        target.uuid = str(identity)


def write_value(target: wire.Value, value: Json) -> None:
    """Fill one protobuf `Value`. Integers beyond 64 bits become doubles, as on the wire of a server."""
    if isinstance(value, str):
        target.string_value = value
    elif value is None:
        target.null_value = wire.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        if -(2**63) <= value < 2**63:
            target.integer_value = value
        else:
            target.double_value = float(value)
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, item in value.items():
            write_value(target.struct_value.fields[key], item)
    else:
        target.list_value.SetInParent()
        for item in value:
            write_value(target.list_value.values.add(), item)


def write_vectors(target: wire.VectorsOutput, vector: object) -> None:
    """Fill a point's vectors: alone when the collection has one without a name, else by name."""
    if isinstance(vector, Mapping):
        target.vectors.SetInParent()
        for name, value in vector.items():
            _write_vector(target.vectors.vectors[name], value)
    elif vector is not None:
        _write_vector(target.vector, vector)


def _write_vector(target: wire.VectorOutput, value: object) -> None:
    if isinstance(value, edge.SparseVector):
        target.sparse.indices.extend(value.indices)
        target.sparse.values.extend(value.values)
        return
    if not isinstance(value, Sequence):
        raise TypeError(f"the engine returned a vector of type {type(value).__name__}")
    if value and isinstance(value[0], Sequence):
        for row in value:
            target.multi_dense.vectors.add().data.extend(row)
    else:
        target.dense.data.extend(value)


class Selection(NamedTuple):
    """What of a point is asked for."""

    payload: bool | list[str] | edge.PayloadSelector
    """As the engine is asked: with what is packed, where some of that may be asked for."""
    vectors: bool | list[str]
    keeps: Callable[[str], bool] | None
    """Whether a whole field is asked for; None: every field is."""


def retrieved(target: wire.RetrievedPoint, record: edge.Record, selection: Selection, slots: VectorSlots) -> None:
    """One point of a retrieval or a scroll."""
    write_id(target.id, record.id)
    _write_contents(target, record, selection, slots)
    _write_order(target, record.order_value)


def scored(hit: edge.ScoredPoint, selection: Selection, slots: VectorSlots) -> wire.ScoredPoint:
    """One point of a query's answer."""
    point = wire.ScoredPoint()  # filled field by field: a third of the cost of keyword arguments
    write_id(point.id, hit.id)
    point.score = hit.score
    point.version = hit.version
    _write_contents(point, hit, selection, slots)
    _write_order(point, hit.order_value)
    return point


def _write_contents(
    target: wire.RetrievedPoint | wire.ScoredPoint,
    found: edge.Record | edge.ScoredPoint,
    selection: Selection,
    slots: VectorSlots,
) -> None:
    payload = found.payload or {}
    packed = payload.get(PACKED)
    if isinstance(packed, str):
        target.MergeFromString(fields_in(packed))
        if selection.keeps is not None:
            for name in [name for name in target.payload if not selection.keeps(name)]:
                del target.payload[name]
    for name, value in payload.items():
        if name != PACKED:
            write_value(target.payload[name], value)
    if selection.vectors and found.vector is not None:  # some of the engine's queries return them unasked
        write_vectors(target.vectors, found.vector)
        if isinstance(packed, str):
            _write_kept(target.vectors, vectors_in(packed), selection.vectors, slots)


def _write_kept(target: wire.VectorsOutput, kept: bytes, asked: bool | list[str], slots: VectorSlots) -> None:
    for one in messages.KeptVectors.FromString(kept).vectors:
        if asked is True or one.name in cast("list[str]", asked):
            output, slot = target.vectors.vectors[one.name], slots[one.name]
            for row in stored_rows(one, slot):
                dense = output.multi_dense.vectors.add() if slot.kind == "multi" else output.dense
                dense.MergeFromString(header(row.nbytes) + row.tobytes())


def _write_order(point: wire.RetrievedPoint | wire.ScoredPoint, value: int | float | None) -> None:
    if isinstance(value, int):
        point.order_value.int = value
    elif value is not None:
        point.order_value.float = value
