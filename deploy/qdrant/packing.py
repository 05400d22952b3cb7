"""What nobody looks inside is kept as one string in a point's payload, and taken apart only for whoever reads it.

The engine takes a payload apart value by value, at 1 to 8 microseconds each, and a vector number by number: they cost
more than all else about a profile. So the payload's fields, but for long strings, are stored together as the bytes that
they are on the wire, in base64, and given back the same way. So are the vectors of a collection that was made without a
graph: its points are there to be read by id.

Nobody can tell: before a request looks inside a field (a filter, an index, an order, a selector of a part of it) or
changes it, or looks at vectors (a query), these are laid open, once and for good, in every point of the collection
(`Collection.lay_open`), and never packed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import pybase64
from qdrant_client import grpc as wire

PACKED: Final = "\0packed"
"""The payload field with what is packed."""

PACKED_PATH: Final = f'"{PACKED}"'
"""The same in a selector of the engine."""

VECTORS: Final = "\0vectors"
"""Stands for a point's vectors where fields are named that are, or are to be, laid open."""

LONG_STRING_BYTES: Final = 128
"""From this length on a string costs less as it is than in base64."""


class Contents(NamedTuple):
    """What is packed in one point."""

    fields: bytes
    """Entries of a payload, as they lie in a `qdrant.RetrievedPoint` or a `ScoredPoint`."""
    vectors: bytes
    """A serialised `messages.KeptVectors`, or nothing."""

    def packed(self) -> str:
        """The string to store."""
        return f"{pybase64.b64encode_as_string(self.fields)}.{pybase64.b64encode_as_string(self.vectors)}"

    def divided(self, fields: Iterable[str]) -> tuple[wire.RetrievedPoint, Contents]:
        """A point with only those of these fields that are packed; and what stays packed."""
        opened, kept = wire.RetrievedPoint(), wire.RetrievedPoint.FromString(self.fields)
        for name in fields:
            if name in kept.payload:
                opened.payload[name].CopyFrom(kept.payload[name])
                del kept.payload[name]
        return opened, Contents(kept.SerializeToString(), b"" if VECTORS in fields else self.vectors)


def fields_in(text: str) -> bytes:
    """`Contents.fields` of a stored string."""
    return pybase64.b64decode(text[: text.index(".")], validate=True)


def vectors_in(text: str) -> bytes:
    """`Contents.vectors` of a stored string."""
    return pybase64.b64decode(text[text.index(".") + 1 :], validate=True)


def field_of(path: str) -> str:
    """The top-level field that a JSON path begins with."""
    if path.startswith('"'):
        return path[1:].partition('"')[0]
    return path.partition(".")[0].partition("[")[0]


def fields_of(paths: Iterable[str]) -> set[str]:
    return {field_of(path) for path in paths}


def is_part(path: str) -> bool:
    """Whether a path goes inside a field."""
    return path not in (field_of(path), f'"{field_of(path)}"')


def paths_in(condition: wire.Filter) -> Iterator[str]:
    """Every payload path that a filter looks at, and `VECTORS` if it looks at these."""
    for conditions in (condition.must, condition.should, condition.must_not, condition.min_should.conditions):
        for one in conditions:
            kind = one.WhichOneof("condition_one_of")
            if kind in ("field", "is_empty", "is_null"):
                yield getattr(one, kind).key
            elif kind == "nested":
                yield one.nested.key
            elif kind == "filter":
                yield from paths_in(one.filter)
            elif kind == "has_vector":
                yield VECTORS


def parts_in(selector: wire.WithPayloadSelector) -> Iterator[str]:
    """Paths of a selector that go inside a field; whole fields need no laying open."""
    for path in (*selector.include.fields, *selector.exclude.fields):
        if is_part(path):
            yield path
