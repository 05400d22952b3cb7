"""Points between the wire and the engine: ids, vectors and payloads, both ways.

A profile is six vectors and twelve kilobytes of payload, so this is the hot path. A vector crosses as the packed
bytes of its own protobuf message, seen through a `memoryview`: half the cost of a list of Python floats.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, cast
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant.packing import MARK, packed, unpack_into
from deploy.qdrant.refusals import invalid, unserved

PointId = int | UUID | str
EngineVector = list[float] | list[list[float]] | edge.SparseVector
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

DEFAULT_VECTOR = ""


class VectorSlot(NamedTuple):
    """What a collection's configuration says of one named vector; `size` is 0 for a sparse one."""

    kind: Literal["dense", "multi", "sparse"]
    size: int


VectorSlots = Mapping[str, VectorSlot]


def point_id(message: wire.PointId) -> PointId:
    """Raises `Refused` (INVALID_ARGUMENT) for an id that is neither a number nor a UUID."""
    kind = message.WhichOneof("point_id_options")
    if kind == "uuid":
        try:
            return UUID(message.uuid)
        except ValueError:
            raise invalid(f"Unable to parse UUID: {message.uuid}") from None
    if kind == "num":
        number: int = message.num
        return number
    raise invalid("a point has no id: give a number or a UUID")


def point_ids(messages: Iterable[wire.PointId]) -> list[PointId]:
    """Ids in the order given."""
    return [point_id(message) for message in messages]


def write_id(target: wire.PointId, identity: PointId) -> None:
    """The engine's id as the client expects it: UUIDs in their canonical form."""
    if isinstance(identity, int):
        target.num = identity
    else:
        target.uuid = str(identity)


def engine_point(message: wire.PointStruct, slots: VectorSlots, open_fields: Container[str]) -> edge.Point:
    """Checked against the collection's vectors; raises `Refused` (INVALID_ARGUMENT)."""
    vectors = engine_vectors(message.vectors, slots)
    return edge.Point(point_id(message.id), vectors, stored_payload(message.payload, open_fields))


def engine_vectors(message: wire.Vectors, slots: VectorSlots) -> dict[str, EngineVector]:
    """Named vectors, the unnamed one under the empty name."""
    kind = message.WhichOneof("vectors_options")
    if kind == "vectors":
        vectors = message.vectors.vectors
        return {name: _vector(vectors[name], name, slots) for name in vectors}
    if kind == "vector":
        return {DEFAULT_VECTOR: _vector(message.vector, DEFAULT_VECTOR, slots)}
    return {}


def _vector(message: wire.Vector, name: str, slots: VectorSlots) -> EngineVector:
    slot = _slot(name, slots)
    kind = message.WhichOneof("vector")
    if kind is None:
        return _deprecated_vector(message, name, slot)
    return _literal(message, kind, name, slot)


def _slot(name: str, slots: VectorSlots) -> VectorSlot:
    slot = slots.get(name)
    if slot is None:
        raise invalid(f"Not existing vector name error: {name}")
    return slot


def _literal(message: wire.Vector | wire.VectorInput, kind: str, name: str, slot: VectorSlot) -> EngineVector:
    """A vector given number by number, in a point or in a query."""
    if kind == "dense":
        if slot.kind == "multi":
            return [_dense(message.dense, name, slot)]
        return _dense(message.dense, name, slot, "dense")
    if kind == "multi_dense":
        return _multi(message.multi_dense, name, slot)
    if kind == "sparse":
        return _sparse(message.sparse.indices, message.sparse.values, name, slot)
    raise unserved(f"inference (vector {name!r} is given as a {kind})")


def _deprecated_vector(message: wire.Vector, name: str, slot: VectorSlot) -> EngineVector:
    """The flat form that older clients send."""
    values = list(message.data)
    if message.HasField("indices"):
        return _sparse(message.indices.data, values, name, slot)
    if message.HasField("vectors_count"):
        size = len(values) // max(1, message.vectors_count)
        rows = [wire.DenseVector(data=values[i : i + size]) for i in range(0, len(values), max(1, size))]
        return _multi(wire.MultiDenseVector(vectors=rows), name, slot)
    return _dense(wire.DenseVector(data=values), name, slot, "dense")


def _dense(message: wire.DenseVector, name: str, slot: VectorSlot, kind: str = "multi") -> list[float]:
    if slot.kind != kind:
        raise invalid(f"vector {name!r} is configured as {slot.kind}, not {kind}")
    values = message.data
    if len(values) != slot.size:
        raise invalid(f"Vector dimension error: expected dim: {slot.size}, got {len(values)} (vector {name!r})")
    return _floats(message)


def _floats(message: wire.DenseVector) -> list[float]:
    packed = message.SerializeToString()
    n_bytes = 4 * len(message.data)
    header = 2 + (n_bytes > 0x7F) + (n_bytes > 0x3FFF) + (n_bytes > 0x1FFFFF)
    if len(packed) != header + n_bytes:  # nothing but the packed field may be in it: unknown fields may
        return list(message.data)
    return cast("list[float]", memoryview(packed)[header:].cast("f"))  # any sequence does for the engine


def _multi(message: wire.MultiDenseVector, name: str, slot: VectorSlot) -> list[list[float]]:
    if not message.vectors:
        raise invalid(f"multivector {name!r} must have at least one vector")
    return [_dense(vector, name, slot) for vector in message.vectors]


def _sparse(indices: Iterable[int], values: Iterable[float], name: str, slot: VectorSlot) -> edge.SparseVector:
    if slot.kind != "sparse":
        raise invalid(f"vector {name!r} is configured as {slot.kind}, not sparse")
    positions, weights = list(indices), list(values)
    if len(positions) != len(weights):
        raise invalid(f"sparse vector {name!r} has {len(positions)} indices and {len(weights)} values")
    if len(set(positions)) != len(positions):
        raise invalid(f"sparse vector {name!r}: indices must be unique")
    return edge.SparseVector(positions, weights)


def query_vector(message: wire.VectorInput, name: str, slots: VectorSlots) -> EngineVector:
    """A vector given literally in a query; raises `Refused` like `engine_vectors`."""
    return _literal(message, message.WhichOneof("variant") or "nothing", name, _slot(name, slots))


def stored_payload(fields: Mapping[str, wire.Value], open_fields: Container[str]) -> dict[str, Json]:
    """A whole payload as the engine keeps it: large values packed, but for the fields that must lie open."""
    payload: dict[str, Json] = {}
    for key in fields:
        value = fields[key]
        as_string = packed(key, value.WhichOneof("kind"), value, open_fields)
        payload[key] = plain_value(value) if as_string is None else as_string
    return payload


def plain_payload(fields: Mapping[str, wire.Value]) -> dict[str, Json]:
    """A part of a payload as plain Python values."""
    return {key: plain_value(fields[key]) for key in fields}  # twice as fast as items(): a protobuf map's are Python


def plain_value(value: wire.Value) -> Json:
    """A value as plain Python values."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text: str = value.string_value
        return text
    if kind == "integer_value":
        integer: int = value.integer_value
        return integer
    if kind == "double_value":
        double: float = value.double_value
        return double
    if kind == "struct_value":
        return plain_payload(value.struct_value.fields)
    if kind == "list_value":
        return [plain_value(item) for item in value.list_value.values]
    if kind == "bool_value":
        return bool(value.bool_value)
    return None


def unpacked(payload: Mapping[str, Json]) -> dict[str, Json]:
    """Those fields of a payload as the engine keeps it that are packed, as plain Python values."""
    plain: dict[str, Json] = {}
    for key, value in payload.items():
        if isinstance(value, str) and value.startswith(MARK):
            message = wire.Value()
            unpack_into(message, value)
            plain[key] = plain_value(message)
    return plain


def write_payload(target: Mapping[str, wire.Value], payload: Mapping[str, Json] | None) -> None:
    """Fill a protobuf map with a payload as the engine keeps it."""
    if payload:
        for key, value in payload.items():
            if isinstance(value, str) and value.startswith(MARK):
                unpack_into(target[key], value)
            else:
                write_value(target[key], value)


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


def retrieved(record: edge.Record) -> wire.RetrievedPoint:
    """One point of a retrieval or a scroll."""
    point = wire.RetrievedPoint()
    write_id(point.id, record.id)
    write_payload(point.payload, record.payload)
    if record.vector is not None:
        write_vectors(point.vectors, record.vector)
    _write_order(point, record.order_value)
    return point


def scored(hit: edge.ScoredPoint, with_vectors: bool) -> wire.ScoredPoint:
    """One point of a query's answer; some engine queries return vectors unasked, hence `with_vectors`."""
    point = wire.ScoredPoint()  # filled field by field: a third of the cost of keyword arguments
    write_id(point.id, hit.id)
    point.score = hit.score
    point.version = hit.version
    write_payload(point.payload, hit.payload)
    if with_vectors and hit.vector is not None:
        write_vectors(point.vectors, hit.vector)
    _write_order(point, hit.order_value)
    return point


def _write_order(point: wire.RetrievedPoint | wire.ScoredPoint, value: int | float | None) -> None:
    if isinstance(value, int):
        point.order_value.int = value
    elif value is not None:
        point.order_value.float = value
