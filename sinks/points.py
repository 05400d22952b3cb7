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
from functools import lru_cache
from typing import NewType, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qdrant_client import grpc as qdrant

from sinks.wire import (
    DOUBLE,
    ELEMENT,
    JSON,
    LIST,
    PACKED,
    STRING,
    STRUCT,
    Vector,
    WireValue,
    delimited,
    entry,
    entry_start,
    serialised,
    tag,
    varint,
)
from sinks.words import Words

Payload: TypeAlias = "Mapping[str, JSON | bytes]"
"""A point's payload; bytes (of the top level) become a base64 string, a `WireValue` goes as it is."""

WirePoint = NewType("WirePoint", bytes)
"""One serialised `qdrant.PointStruct`."""

POINTS_FIELD = tag(3)
"""`UpsertPoints.points`."""

_POINT_ID, _POINT_PAYLOAD, _POINT_VECTORS = tag(1), tag(3), tag(4)
_ID_UUID = tag(2)
_NAMED_VECTORS = tag(2)
_VECTOR_DENSE, _VECTOR_MULTI_DENSE = tag(101), tag(103)


def interests_value(interests: Iterable[tuple[float, Iterable[str]]]) -> WireValue:
    """`interests` of a profile's payload, of shares and texts: what `wire_value` gives, in a fifth of the time."""
    return WireValue(delimited(LIST, b"".join([_interest(share, texts) for share, texts in interests])))


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


def _point(id_: str, version: int, vectors: Sequence[bytes], payload: Payload) -> WirePoint:
    parts = [delimited(_POINT_ID, delimited(_ID_UUID, id_.encode()))]
    for name, value in payload.items():
        _add_field(parts, name, value)
    _add_field(parts, "version", version)
    # Named vectors are sent even when there are none: a point without the field is refused.
    size = sum(map(len, vectors))
    named = _NAMED_VECTORS + varint(size)
    parts += (_POINT_VECTORS, varint(len(named) + size), named, *vectors)
    return WirePoint(b"".join(parts))


def _add_field(parts: list[bytes], name: str, value: "JSON | bytes") -> None:
    """Adds an entry of a point's payload, in pieces: a state is not copied more than once."""
    content = serialised(value)
    parts += (_field_start(name, len(content)), content)


@lru_cache(maxsize=4096)  # most fields are numbers, of a few sizes
def _field_start(name: str, size: int) -> bytes:
    """What comes before a value of so many bytes."""
    start = entry_start(name) + varint(size)
    return _POINT_PAYLOAD + varint(len(start) + size) + start


def _dense(name: str, vector: Vector, id_: str) -> bytes:
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"point {id_}: vector {name!r} has shape {vector.shape}; it needs to be [d]")
    return _dense_start(name, 4 * vector.size) + _finite(name, vector, id_).tobytes()


@lru_cache(maxsize=64)
def _dense_start(name: str, size: int) -> bytes:
    """What comes before the numbers of a vector, which are so many bytes."""
    return delimited(ELEMENT, entry(name, delimited(_VECTOR_DENSE, delimited(PACKED, bytes(size)))))[:-size]


def _sparse(name: str, words: Words) -> bytes:
    sparse = qdrant.Vector(sparse=qdrant.SparseVector(values=words.weights.tolist(), indices=words.ids.tolist()))
    return delimited(ELEMENT, entry(name, sparse.SerializeToString()))


def _multi(name: str, vectors: NDArray[np.float32], id_: str) -> bytes:
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"point {id_}: vectors {name!r} have shape {vectors.shape}; they need to be [k, d]")
    start, row_start = _multi_starts(name, *vectors.shape)
    return start + b"".join([row_start + row.tobytes() for row in _finite(name, vectors, id_)])


@lru_cache(maxsize=64)
def _multi_starts(name: str, rows: int, dimension: int) -> tuple[bytes, bytes]:
    """What comes before the first of so many vectors, and before the numbers of each."""
    row = delimited(ELEMENT, delimited(PACKED, bytes(4 * dimension)))
    whole = delimited(ELEMENT, entry(name, delimited(_VECTOR_MULTI_DENSE, row * rows)))
    return whole[: -rows * len(row)], row[: -4 * dimension]


def _finite(name: str, vectors: NDArray[np.float32], id_: str) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    flat = vectors.reshape(-1)
    # One product instead of a test of each number: NaN and infinities survive a sum of squares.
    if not math.isfinite(flat.dot(flat)):
        raise ValueError(f"point {id_}: vector {name!r} is not finite; was zero divided by its norm?")
    return vectors


_SHARE_START = delimited(ELEMENT, entry("share", DOUBLE.pack(b"\x11", 0.0)))[:-8]
_SHARE = struct.Struct(f"<{len(_SHARE_START)}sd")


def _interest(share: float, texts: Iterable[str]) -> bytes:
    """An interest as an element of a list."""
    listed = delimited(LIST, b"".join([_element(text) for text in texts]))
    fields = _SHARE.pack(_SHARE_START, share) + delimited(ELEMENT, entry("texts", listed))
    return delimited(ELEMENT, delimited(STRUCT, fields))


@lru_cache(maxsize=32_768)  # titles and queries are the same for many people
def _element(text: str) -> bytes:
    """A text as an element of a list."""
    return delimited(ELEMENT, delimited(STRING, text.encode()))
