"""Large nested payload values are kept as one string, until somebody looks inside them.

The engine takes a payload apart value by value, at 2 to 6 microseconds each: twenty candidates with their reasons cost
more than everything else about a profile. So a top-level list or object of some size is stored as the bytes of its own
protobuf message in base64, and given back the same way, at memcpy speed.

Nobody can tell: before a request looks inside a field (a filter, an index, an order, a selector of a part of it), the
field is laid open, once and for good, in every point of the collection (`Collection.lay_open`), and never packed again.
"""

from __future__ import annotations

import binascii
from collections.abc import Container, Iterable, Iterator

from qdrant_client import grpc as wire

PACKED_FROM_BYTES = 128
MARK = "\0packed:"


def packed(key: str, kind: str | None, value: wire.Value, open_fields: Container[str]) -> str | None:
    """The string to store for a top-level payload value, or None where it is stored as it is."""
    if kind == "string_value":
        if not value.string_value.startswith(MARK):
            return None  # else it would be taken for a packed one
    elif kind not in ("list_value", "struct_value") or key in open_fields:
        return None
    content = value.SerializeToString()
    if kind != "string_value" and len(content) < PACKED_FROM_BYTES:
        return None
    return MARK + binascii.b2a_base64(content, newline=False).decode("ascii")


def unpack_into(target: wire.Value, text: str) -> None:
    """Undo `packed`; `text` begins with `MARK`."""
    target.MergeFromString(binascii.a2b_base64(text[len(MARK) :]))


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
    """Every payload path that a filter looks at."""
    for conditions in (condition.must, condition.should, condition.must_not, condition.min_should.conditions):
        for one in conditions:
            kind = one.WhichOneof("condition_one_of")
            if kind in ("field", "is_empty", "is_null"):
                yield getattr(one, kind).key
            elif kind == "nested":
                yield one.nested.key
            elif kind == "filter":
                yield from paths_in(one.filter)


def parts_in(selector: wire.WithPayloadSelector) -> Iterator[str]:
    """Paths of a selector that go inside a field; whole fields need no laying open."""
    for path in (*selector.include.fields, *selector.exclude.fields):
        if is_part(path):
            yield path
