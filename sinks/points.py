"""Points as Qdrant's protobuf wire format, built by hand, and read back.

A profile of a 12 KB state and 2 + 4 vectors takes 51 µs to build so, and 139 µs as protobuf objects; with 20
candidates 127 and 209 (one run on a busy machine, process time). Much of that is turning arrays into lists of
floats: `DenseVector.data` is packed, which on the wire *is* the array's memory. Field numbers are those of Qdrant's
`points.proto`, and never change by protobuf's own rules.

**A profile's point** (collection `profiles`; absent means that there is none):

===================  =========================================================================================
vectors              `long`, `short`: [d] float16, cosine; `interests`: [k, d] float16, cosine, MaxSim, k <= 4
`version`            integer: this write's, random
`state`              string: base64 of both ledgers, for Afterglow itself
`due`                integer, ms: when work that was put off is to be done; absent when none is (indexed)
`pending`            strings: products that purchases or clicks wait for; absent when none (indexed)
`partition`          integer: the partition of both topics that the user's events are in (indexed)
`known`              float: the norm of `long` before Qdrant normalised it: how much is known, in [0, 1)
`n_searches`         integer: searches folded in, ever
`n_purchases`        integer: purchases folded in, ever
`noise`              {reason: integer}: searches that weighed less than others, ever; absent without any
`last_search_ts`     integer, ms: the newest search's `ts`; absent before the first
`last_purchase_ts`   integer, ms: the newest purchase's `ts`; absent before the first
`made_at`            integer, ms: when `candidates` were derived; absent before the first time
`made_from`          floats: the log-weights (long, short) that `candidates` were derived from; absent likewise
`interests`          objects {share: float, texts: strings}, strongest first, in the order of the vectors
`candidates`         objects {product_id, title, score, because: objects {kind, share, texts}}, best first
===================  =========================================================================================

**A product's point** (collection `products`): vector `text` ([d] float32, cosine; absent in the mark of a
deleted product that never had one), `words` (sparse, by `sinks.words`; absent where `text` is, and in collections
made before there was one); payload `product_id`, `title`, `brand`, `category`, `kind` (strings),
`price` (float), `related` (strings: ids of products that it goes with; absent without any), `available` (boolean),
`deleted` (true in a deleted product's mark, else absent), `revised` (true once it was stored under another text, else
absent), `ts` (ms), `topic_id`, `partition`, `offset` (of the event it is from), `version`.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NewType, TypeAlias

import numpy as np
import pybase64
from numpy.typing import NDArray
from qdrant_client import grpc as qdrant

from sinks.words import Words

JSON: TypeAlias = "str | int | float | bool | list[JSON] | tuple[JSON, ...] | dict[str, JSON] | None"
Payload: TypeAlias = "Mapping[str, JSON | bytes]"
"""A point's payload; bytes (of the top level) become a base64 string, a `WireValue` goes as it is."""

Stored: TypeAlias = Mapping[str, qdrant.Value]
"""A payload as it comes back: the map of a `RetrievedPoint` or `ScoredPoint`."""

Vector: TypeAlias = NDArray[np.float32]

WirePoint = NewType("WirePoint", bytes)
"""One serialised `qdrant.PointStruct`."""


class WireValue(bytes):
    """One serialised `qdrant.Value`: a payload value that is carried from a read to a write, or from write to write,
    without being taken apart (20 candidates: 65 µs to build, 75 µs to take apart).
    """

    __slots__ = ()

    def decoded(self) -> JSON:
        """The value in JSON's terms."""
        return value_of(qdrant.Value.FromString(self))


def wire_value(value: JSON) -> WireValue:
    """A payload value, serialised once to be written many times."""
    return WireValue(_value(value))


NO_ITEMS = WireValue(b"\x3a\x00")
"""The empty list."""


def interests_value(interests: Iterable[tuple[float, Iterable[str]]]) -> WireValue:
    """`interests` of a profile's payload, of shares and texts: what `wire_value` gives, in a fifth of the time."""
    return WireValue(delimited(_LIST, b"".join([_interest(share, texts) for share, texts in interests])))


def profile_point(
    id: str,  # noqa: A002 - the field's name in Qdrant
    version: int,
    long: Vector | None,
    short: Vector | None,
    interests: NDArray[np.float32] | None,
    payload: Payload,
) -> WirePoint:
    """A profile's point.

    Args:
        id: the point's id, a canonical UUID string.
        version: of this write, from `sinks.writes.new_version`.
        long, short: [d], any norm; None (nothing left that glows) leaves the vector out.
        interests: [k, d], k >= 1; None leaves them out.
        payload: the fields above, without `version`.

    Raises:
        ValueError: a vector holds NaN, an infinity or numbers beyond float32, or has the wrong shape, or two
            differ in dimension. Qdrant would accept NaN, and rank it first for everybody.
    """
    vectors = []
    dimensions = []
    if long is not None:
        vectors.append(_dense("long", long, id))
        dimensions.append(long.shape[-1])
    if short is not None:
        vectors.append(_dense("short", short, id))
        dimensions.append(short.shape[-1])
    if interests is not None:
        vectors.append(_multi("interests", interests, id))
        dimensions.append(interests.shape[-1])
    if len(set(dimensions)) > 1:
        raise ValueError(f"point {id}: its vectors have different dimensions: {dimensions}")
    return _point(id, version, vectors, payload)


def product_point(
    id: str,  # noqa: A002
    version: int,
    text: Vector | None,
    payload: Payload,
    words: Words | None = None,
) -> WirePoint:
    """A product's point.

    Args:
        id: the point's id, a canonical UUID string.
        version: of this write, from `sinks.writes.new_version`.
        text: [d], the unit vector of the product's text; None only in the mark of a deleted product.
        payload: the fields above, without `version`.
        words: those of the product's text; None where the collection has no vectors of words.

    Raises:
        ValueError: the vector is not finite or not [d]; or a product without a vector, or with `deleted`, is
            said to be available: a search for what is available asks for nothing else.
    """
    if payload.get("available") and (text is None or payload.get("deleted")):
        raise ValueError(f"point {id}: a product that is deleted, or has no vector, can't be available")
    vectors = [] if text is None else [_dense("text", text, id)]
    if words is not None and len(words.ids):
        vectors.append(_sparse("words", words))
    return _point(id, version, vectors, payload)


def payload_point(id: str, version: int, payload: Payload) -> WirePoint:  # noqa: A002
    """A point without vectors, for a collection without vectors."""
    return _point(id, version, [], payload)


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile as it is stored. A field that was not asked for, or is absent, has its default here."""

    id: str
    version: int
    state: bytes
    due: int | None
    pending: tuple[str, ...]
    partition: int
    known: float
    n_searches: int
    n_purchases: int
    last_search_ts: int | None
    last_purchase_ts: int | None
    made_at: int | None
    made_from: tuple[float, float] | None
    interests_value: WireValue
    candidates_value: WireValue
    """`candidates` as they lie in Qdrant, to be carried over by a write that does not derive them anew."""
    vectors: Mapping[str, NDArray[np.float32]]
    """Those of `long`, `short` [d] and `interests` [k, d] that were asked for and exist; unit rows."""
    noise: Mapping[str, int] = field(default_factory=dict)
    """Searches that weighed less, by reason."""

    @property
    def interests(self) -> list[dict[str, JSON]]:
        """Objects {share, texts}, strongest first."""
        return _objects(self.interests_value)

    @property
    def candidates(self) -> list[dict[str, JSON]]:
        """Objects {product_id, title, score, because}, best first."""
        return _objects(self.candidates_value)


def read_profile(point: qdrant.RetrievedPoint) -> StoredProfile:
    """A profile from an answer of `Get` or `Scroll` over gRPC.

    Raises:
        ValueError: the point has no `version`, or its `state` is no base64: it is not Afterglow's.
    """
    stored = point.payload
    version = stored["version"].integer_value if "version" in stored else 0
    if not version:
        raise ValueError(
            f"point {point.id.uuid} of the profiles has no version: something other than Afterglow wrote it, "
            "or the read left the field out"
        )
    return StoredProfile(
        id=point.id.uuid,
        version=version,
        state=_base64(stored, "state"),
        due=_integer(stored, "due"),
        pending=_strings(stored, "pending"),
        partition=_integer(stored, "partition") or 0,
        known=number_of(stored["known"]) if "known" in stored else 0.0,
        n_searches=_integer(stored, "n_searches") or 0,
        n_purchases=_integer(stored, "n_purchases") or 0,
        last_search_ts=_integer(stored, "last_search_ts"),
        last_purchase_ts=_integer(stored, "last_purchase_ts"),
        made_at=_integer(stored, "made_at"),
        made_from=_pair(stored, "made_from"),
        interests_value=_wire(stored, "interests"),
        candidates_value=_wire(stored, "candidates"),
        vectors=read_vectors(point),
        noise=_counts(stored, "noise"),
    )


def read_vectors(point: qdrant.RetrievedPoint | qdrant.ScoredPoint) -> dict[str, NDArray[np.float32]]:
    """The named vectors that came with a point: [d] for a dense one, [k, d] for several. Read-only arrays."""
    return {name: _array(output) for name, output in point.vectors.vectors.vectors.items()}


def value_of(value: qdrant.Value) -> JSON:
    """The JSON value that a protobuf `Value` stands for."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "list_value":
        return [value_of(v) for v in value.list_value.values]
    if kind == "struct_value":
        return {name: value_of(v) for name, v in value.struct_value.fields.items()}
    scalar: str | int | float | bool = getattr(value, kind)
    return scalar


def number_of(value: qdrant.Value) -> float:
    """A number as a float: Qdrant may give one without a fraction back as a whole number."""
    return float(value.double_value or value.integer_value)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A length-delimited protobuf field: its tag, its length, its bytes."""
    return tag + _varint(len(content)) + content


def dense_vector(vector: Vector) -> qdrant.DenseVector:
    """A `DenseVector` message of a [d] float32 array."""
    data = np.ascontiguousarray(vector, dtype=np.float32).tobytes()
    return qdrant.DenseVector.FromString(delimited(_PACKED, data))


def _tag(field: int) -> bytes:
    """The tag of a length-delimited field."""
    return _varint(field << 3 | 2)


def _varint(n: int) -> bytes:
    if n < len(_SHORT_VARINTS):
        return _SHORT_VARINTS[n]
    groups = b""
    while n >= len(_SHORT_VARINTS):  # two groups of seven bits at once
        groups += _CONTINUED[n & 16383]
        n >>= 14
    return groups + _SHORT_VARINTS[n]


_SHORT_VARINTS = [bytes((n,)) for n in range(128)]
_SHORT_VARINTS += [bytes((n & 127 | 128, n >> 7)) for n in range(128, 16384)]
_CONTINUED = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(16384)]

POINTS_FIELD = _tag(3)
"""`UpsertPoints.points`."""

_POINT_ID, _POINT_PAYLOAD, _POINT_VECTORS = _tag(1), _tag(3), _tag(4)
_ID_UUID = _tag(2)
_NAMED_VECTORS = _tag(2)
_ENTRY_KEY, _ENTRY_VALUE = _tag(1), _tag(2)
_ELEMENT = _tag(1)  # of MultiDenseVector.vectors, ListValue.values, NamedVectors.vectors and Struct.fields
_PACKED = _tag(1)  # DenseVector.data
_VECTOR_DENSE, _VECTOR_MULTI_DENSE = _tag(101), _tag(103)
_STRING, _STRUCT, _LIST = _tag(4), _tag(6), _tag(7)
_DOUBLE = struct.Struct("<cd")


def _point(id_: str, version: int, vectors: Sequence[bytes], payload: Payload) -> WirePoint:
    parts = [delimited(_POINT_ID, delimited(_ID_UUID, id_.encode()))]
    for name, value in payload.items():
        _add_field(parts, name, value)
    _add_field(parts, "version", version)
    # Named vectors are sent even when there are none: a point without the field is refused.
    size = sum(map(len, vectors))
    named = _NAMED_VECTORS + _varint(size)
    parts += (_POINT_VECTORS, _varint(len(named) + size), named, *vectors)
    return WirePoint(b"".join(parts))


def _add_field(parts: list[bytes], name: str, value: "JSON | bytes") -> None:
    """Adds an entry of a point's payload, in pieces: a state is not copied more than once."""
    content = _value(value)
    parts += (_field_start(name, len(content)), content)


@lru_cache(maxsize=4096)  # most fields are numbers, of a few sizes
def _field_start(name: str, size: int) -> bytes:
    """What comes before a value of so many bytes."""
    start = _entry_start(name) + _varint(size)
    return _POINT_PAYLOAD + _varint(len(start) + size) + start


def _dense(name: str, vector: Vector, id_: str) -> bytes:
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"point {id_}: vector {name!r} has shape {vector.shape}; it needs to be [d]")
    return _dense_start(name, 4 * vector.size) + _finite(name, vector, id_).tobytes()


@lru_cache(maxsize=64)
def _dense_start(name: str, size: int) -> bytes:
    """What comes before the numbers of a vector, which are so many bytes."""
    return delimited(_ELEMENT, _entry(name, delimited(_VECTOR_DENSE, delimited(_PACKED, bytes(size)))))[:-size]


def _sparse(name: str, words: Words) -> bytes:
    sparse = qdrant.Vector(sparse=qdrant.SparseVector(values=words.weights.tolist(), indices=words.ids.tolist()))
    return delimited(_ELEMENT, _entry(name, sparse.SerializeToString()))


def _multi(name: str, vectors: NDArray[np.float32], id_: str) -> bytes:
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"point {id_}: vectors {name!r} have shape {vectors.shape}; they need to be [k, d]")
    start, row_start = _multi_starts(name, *vectors.shape)
    return start + b"".join([row_start + row.tobytes() for row in _finite(name, vectors, id_)])


@lru_cache(maxsize=64)
def _multi_starts(name: str, rows: int, dimension: int) -> tuple[bytes, bytes]:
    """What comes before the first of so many vectors, and before the numbers of each."""
    row = delimited(_ELEMENT, delimited(_PACKED, bytes(4 * dimension)))
    whole = delimited(_ELEMENT, _entry(name, delimited(_VECTOR_MULTI_DENSE, row * rows)))
    return whole[: -rows * len(row)], row[: -4 * dimension]


def _finite(name: str, vectors: NDArray[np.float32], id_: str) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    flat = vectors.reshape(-1)
    # One product instead of a test of each number: NaN and infinities survive a sum of squares.
    if not math.isfinite(flat.dot(flat)):
        raise ValueError(f"point {id_}: vector {name!r} is not finite; was zero divided by its norm?")
    return vectors


def _entry(name: str, value: bytes) -> bytes:
    """An entry of a protobuf map."""
    return _entry_start(name) + _varint(len(value)) + value


@lru_cache(maxsize=256)
def _entry_start(name: str) -> bytes:
    return delimited(_ENTRY_KEY, name.encode()) + _ENTRY_VALUE


def _value(value: "JSON | bytes") -> bytes:
    """The bytes of a `qdrant.Value`. The commonest kinds come first."""
    if isinstance(value, str):
        return delimited(_STRING, value.encode())
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} can't be a payload value: JSON has no such number")
        return _DOUBLE.pack(b"\x11", value)
    if isinstance(value, bool):
        return b"\x28\x01" if value else b"\x28\x00"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} can't be a payload value: Qdrant's whole numbers have 64 bits")
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, WireValue):
        return value
    if isinstance(value, bytes):
        return delimited(_STRING, pybase64.b64encode(value))
    if value is None:
        return b"\x08\x00"
    if isinstance(value, dict):
        fields = [delimited(_ELEMENT, _entry(name, _value(v))) for name, v in value.items()]
        return delimited(_STRUCT, b"".join(fields))
    if isinstance(value, list | tuple):
        return delimited(_LIST, b"".join([delimited(_ELEMENT, _value(v)) for v in value]))
    raise TypeError(f"{type(value).__name__} can't be a payload value; str, int, float, bool, list, dict can")


_SHARE_START = delimited(_ELEMENT, _entry("share", _DOUBLE.pack(b"\x11", 0.0)))[:-8]
_SHARE = struct.Struct(f"<{len(_SHARE_START)}sd")


def _interest(share: float, texts: Iterable[str]) -> bytes:
    """An interest as an element of a list."""
    listed = delimited(_LIST, b"".join([_element(text) for text in texts]))
    fields = _SHARE.pack(_SHARE_START, share) + delimited(_ELEMENT, _entry("texts", listed))
    return delimited(_ELEMENT, delimited(_STRUCT, fields))


@lru_cache(maxsize=32_768)  # titles and queries are the same for many people
def _element(text: str) -> bytes:
    """A text as an element of a list."""
    return delimited(_ELEMENT, delimited(_STRING, text.encode()))


def _array(output: qdrant.VectorOutput) -> NDArray[np.float32]:
    kind = output.WhichOneof("vector")
    if kind == "dense":
        return _unpacked(output.dense)
    if kind == "multi_dense":
        return np.stack([_unpacked(row) for row in output.multi_dense.vectors])
    # Servers before 1.17 answer in the older field: all numbers in one list, and how many vectors they are.
    flat = np.array(output.data, dtype=np.float32)
    return flat.reshape(output.vectors_count, -1) if output.vectors_count else flat


def _unpacked(vector: qdrant.DenseVector) -> NDArray[np.float32]:
    # Packed floats on the wire are the array's memory, after a tag and a length.
    wire = vector.SerializeToString()
    return np.frombuffer(wire, dtype=np.float32, offset=1 + len(_varint(4 * len(vector.data))))


# An absent entry of a protobuf map is made by looking at it, hence the tests with `in`.


def _integer(stored: Stored, name: str) -> int | None:
    return int(stored[name].integer_value) if name in stored else None


def _pair(stored: Stored, name: str) -> tuple[float, float] | None:
    if name not in stored:
        return None
    first, second = stored[name].list_value.values
    return number_of(first), number_of(second)


def _base64(stored: Stored, name: str) -> bytes:
    return pybase64.b64decode(stored[name].string_value, validate=True) if name in stored else b""


def _strings(stored: Stored, name: str) -> tuple[str, ...]:
    return tuple(v.string_value for v in stored[name].list_value.values) if name in stored else ()


def _counts(stored: Stored, name: str) -> dict[str, int]:
    if name not in stored:
        return {}
    return {reason: int(n.integer_value) for reason, n in stored[name].struct_value.fields.items()}


def _wire(stored: Stored, name: str) -> WireValue:
    return WireValue(stored[name].SerializeToString()) if name in stored else NO_ITEMS


def _objects(value: WireValue) -> list[dict[str, JSON]]:
    items = qdrant.Value.FromString(value).list_value.values
    return [{key: value_of(v) for key, v in item.struct_value.fields.items()} for item in items]
