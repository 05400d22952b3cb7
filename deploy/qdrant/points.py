"""Points from the wire to the engine: ids, vectors and payloads. The way back is in `deploy.qdrant.answers`.

A profile is four vectors and more and twelve kilobytes of payload, so this is the hot path. A vector crosses as the
bytes that it is on the wire, seen through a `memoryview`: half the cost of a list of Python floats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple, TypeAlias, cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray
from qdrant_client import grpc as wire

from deploy.qdrant import messages
from deploy.qdrant.packing import LONG_STRING_BYTES, PACKED, VECTORS, Contents
from deploy.qdrant.refusals import invalid, unserved

PointId = int | UUID | str
EngineVector = list[float] | list[list[float]] | edge.SparseVector
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

DEFAULT_VECTOR = ""


class VectorSlot(NamedTuple):
    """What a collection's configuration says of one named vector; `size` is 0 for a sparse one."""

    kind: Literal["dense", "multi", "sparse"]
    size: int
    stored: str | None = None
    """numpy's name of the numbers as they are stored; None where they can't be packed."""
    unit: bool = False
    """Whether vectors are made unit vectors, as those compared by cosine are."""


VectorSlots = Mapping[str, VectorSlot]

Rows: TypeAlias = list[bytes]
"""Dense vectors, checked: the bytes of as many float32 as the slot's size, each. One for a slot of the kind `dense`."""


@dataclass
class Layout:
    """How a collection's points are kept."""

    slots: VectorSlots
    may_pack_vectors: bool
    open_fields: set[str]
    """Payload fields that must not be packed, and `VECTORS`."""

    @property
    def packs_vectors(self) -> bool:
        return self.may_pack_vectors and VECTORS not in self.open_fields


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


def engine_points(points: Sequence[messages.Message], layout: Layout) -> dict[PointId, edge.Point]:
    """Points of a `messages.Upsert` by id (of two with one id the last), checked against the collection's vectors.

    Raises `Refused` (INVALID_ARGUMENT).
    """
    ids = [point_id(point.id) for point in points]
    vectors = [_given(point.vectors, layout.slots) for point in points]
    if layout.packs_vectors:
        kept = _kept(cast("list[dict[str, Rows]]", vectors), layout.slots)  # what is sparse isn't packed
        none: dict[str, EngineVector] = {}
        return {
            id_: edge.Point(id_, none, _stored(point.payload, blob, layout))
            for id_, point, blob in zip(ids, points, kept, strict=True)
        }
    return {
        id_: edge.Point(id_, _engine_vectors(given, layout.slots), _stored(point.payload, b"", layout))
        for id_, point, given in zip(ids, points, vectors, strict=True)
    }


def engine_vectors(message: wire.Vectors, slots: VectorSlots) -> dict[str, EngineVector]:
    """Named vectors, the unnamed one under the empty name."""
    return _engine_vectors(_given(messages.Vectors.FromString(message.SerializeToString()), slots), slots)


def _given(message: messages.Message, slots: VectorSlots) -> dict[str, Rows | edge.SparseVector]:
    if message.HasField("vector"):
        return {DEFAULT_VECTOR: _vector(message.vector, DEFAULT_VECTOR, slots)}
    return {one.key: _vector(one.value, one.key, slots) for one in message.vectors.vectors}


def _vector(message: messages.Message, name: str, slots: VectorSlots) -> Rows | edge.SparseVector:
    slot = _slot(name, slots)
    if message.HasField("dense"):
        return [_row(message.dense, name, slot, slot.kind if slot.kind == "multi" else "dense")]
    if message.HasField("multi_dense"):
        return _multi(message.multi_dense.vectors, name, slot)
    whole = wire.Vector.FromString(message.SerializeToString())
    kind = whole.WhichOneof("vector")
    return _deprecated_vector(whole, name, slot) if kind is None else _literal(whole, kind, name, slot)


def _slot(name: str, slots: VectorSlots) -> VectorSlot:
    slot = slots.get(name)
    if slot is None:
        raise invalid(f"Not existing vector name error: {name}")
    return slot


def _engine_vectors(given: Mapping[str, Rows | edge.SparseVector], slots: VectorSlots) -> dict[str, EngineVector]:
    return {name: _engine_vector(vector, slots[name]) for name, vector in given.items()}


def _engine_vector(given: Rows | edge.SparseVector, slot: VectorSlot) -> EngineVector:
    if isinstance(given, edge.SparseVector):
        return given
    rows = [cast("list[float]", memoryview(row).cast("f")) for row in given]  # any sequence does for the engine
    return rows if slot.kind == "multi" else rows[0]


def _literal(
    message: wire.Vector | wire.VectorInput, kind: str, name: str, slot: VectorSlot
) -> Rows | edge.SparseVector:
    """A vector given number by number, in a point or in a query."""
    if kind == "dense":
        return [_row(message.dense.SerializeToString(), name, slot, slot.kind if slot.kind == "multi" else "dense")]
    if kind == "multi_dense":
        return _multi([row.SerializeToString() for row in message.multi_dense.vectors], name, slot)
    if kind == "sparse":
        return _sparse(message.sparse.indices, message.sparse.values, name, slot)
    raise unserved(f"inference (vector {name!r} is given as a {kind})")


def _deprecated_vector(message: wire.Vector, name: str, slot: VectorSlot) -> Rows | edge.SparseVector:
    """The flat form that older clients send."""
    values = list(message.data)
    if message.HasField("indices"):
        return _sparse(message.indices.data, values, name, slot)
    if message.HasField("vectors_count"):
        size = max(1, len(values) // max(1, message.vectors_count))
        rows = [wire.DenseVector(data=values[i : i + size]) for i in range(0, len(values), size)]
        return _multi([row.SerializeToString() for row in rows], name, slot)
    return [_row(wire.DenseVector(data=values).SerializeToString(), name, slot, "dense")]


def _row(dense: bytes, name: str, slot: VectorSlot, kind: str) -> bytes:
    """The numbers of a serialised `qdrant.DenseVector`."""
    if slot.kind != kind:
        raise invalid(f"vector {name!r} is configured as {slot.kind}, not {kind}")
    size = 4 * slot.size
    if dense.startswith(header(size)) and len(dense) == len(header(size)) + size:
        return dense[-size:]
    # Of another size, or not packed, or with something else in it.
    values = wire.DenseVector.FromString(dense).data
    if len(values) != slot.size:
        raise invalid(f"Vector dimension error: expected dim: {slot.size}, got {len(values)} (vector {name!r})")
    return np.array(values, "<f4").tobytes()


@cache
def header(size: int) -> bytes:
    """What comes before the numbers in a serialised `qdrant.DenseVector` of so many bytes of them."""
    return bytes(wire.DenseVector(data=[0.0] * (size // 4)).SerializeToString()[:-size])


def _multi(vectors: Sequence[bytes], name: str, slot: VectorSlot) -> Rows:
    if not vectors:
        raise invalid(f"multivector {name!r} must have at least one vector")
    return [_row(vector, name, slot, "multi") for vector in vectors]


def _sparse(indices: Iterable[int], values: Iterable[float], name: str, slot: VectorSlot) -> edge.SparseVector:
    if slot.kind != "sparse":
        raise invalid(f"vector {name!r} is configured as {slot.kind}, not sparse")
    positions, weights = list(indices), list(values)
    if len(positions) != len(weights):
        raise invalid(f"sparse vector {name!r} has {len(positions)} indices and {len(weights)} values")
    if len(set(positions)) != len(positions):
        raise invalid(f"sparse vector {name!r}: indices must be unique")
    return edge.SparseVector(positions, weights)


def _kept(points: Sequence[Mapping[str, Rows]], slots: VectorSlots) -> list[bytes]:
    """A serialised `KeptVectors` for each point. Numbers are converted all at once: one at a time costs ten times as
    much.
    """
    rows: dict[VectorSlot, Rows] = defaultdict(list)
    for given in points:
        for name, vectors in given.items():
            rows[slots[name]] += vectors
    numbers = {slot: _as_stored(vectors, slot) for slot, vectors in rows.items()}
    taken: dict[VectorSlot, int] = defaultdict(int)
    blobs = []
    for given in points:
        kept = messages.KeptVectors()
        for name, vectors in given.items():
            slot = slots[name]
            end = taken[slot] + len(vectors)
            kept.vectors.add(name=name, numbers=numbers[slot][taken[slot] : end].tobytes())
            taken[slot] = end
        blobs.append(kept.SerializeToString())
    return blobs


def _as_stored(rows: Rows, slot: VectorSlot) -> NDArray[np.floating]:
    """What the engine would make of them."""
    numbers = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), slot.size)
    with np.errstate(all="ignore"):  # NaN and infinities are kept as they are
        if slot.unit:
            squares = np.einsum("ij,ij->i", numbers, numbers)
            as_they_are = (squares < np.finfo(np.float32).eps) | (np.abs(squares - 1) <= 1e-6)
            numbers = numbers / np.where(as_they_are, np.float32(1), np.sqrt(squares))[:, None]
        return numbers.astype(slot.stored)


def opened_vectors(kept: bytes, slots: VectorSlots) -> dict[str, EngineVector]:
    """Vectors that were packed, for the engine to keep."""
    return {
        one.name: _engine_vector([row.tobytes() for row in stored_rows(one, slots[one.name])], slots[one.name])
        for one in messages.KeptVectors.FromString(kept).vectors
    }


def stored_rows(kept: messages.Message, slot: VectorSlot) -> NDArray[np.float32]:
    """The rows of a vector that was packed, [k, d]; one for a slot of the kind `dense`."""
    return np.frombuffer(kept.numbers, slot.stored).astype("<f4").reshape(-1, slot.size)


def query_vector(message: wire.VectorInput, name: str, slots: VectorSlots) -> EngineVector:
    """A vector given literally in a query; raises `Refused` like `engine_vectors`."""
    slot = _slot(name, slots)
    return _engine_vector(_literal(message, message.WhichOneof("variant") or "nothing", name, slot), slot)


def _stored(entries: Iterable[bytes], vectors: bytes, layout: Layout) -> dict[str, Json]:
    """A payload as the engine keeps it."""
    payload: dict[str, Json] = {}
    packed = []
    for content in entries:
        entry = messages.Entry.FromString(content)
        key: str = entry.key
        if key in layout.open_fields or (len(content) >= LONG_STRING_BYTES and entry.value.startswith(_STRING)):
            payload[key] = plain_value(wire.Value.FromString(entry.value))
        else:
            packed.append(content)
        if key == PACKED:
            raise invalid(f"no payload field can have the name {PACKED!r}")
    if packed or vectors:
        payload[PACKED] = Contents(b"".join([_FIELD + _varint(len(one)) + one for one in packed]), vectors).packed()
    return payload


_STRING = b"\x22"  # Value.string_value
_FIELD = b"\x12"  # RetrievedPoint.payload and ScoredPoint.payload


@lru_cache(maxsize=4096)
def _varint(n: int) -> bytes:
    groups = bytearray()
    while n > 127:
        groups.append(n & 127 | 128)
        n >>= 7
    groups.append(n)
    return bytes(groups)


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
