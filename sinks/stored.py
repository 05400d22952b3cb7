"""Points as Qdrant gives them back: profiles, vectors, payloads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pybase64
from numpy.typing import NDArray
from qdrant_client import grpc as qdrant

from sinks.wire import JSON, NO_ITEMS, WireValue, number_of, value_of, varint

Stored: TypeAlias = Mapping[str, qdrant.Value]
"""A payload as it comes back: the map of a `RetrievedPoint` or `ScoredPoint`."""


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
    return np.frombuffer(wire, dtype=np.float32, offset=1 + len(varint(4 * len(vector.data))))


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
