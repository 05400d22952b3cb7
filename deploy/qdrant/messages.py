"""Points of an upsert as far as they need be taken apart: Qdrant's own wire format, read as other messages.

A field that holds a message is, on the wire, a run of bytes. Declared as `bytes`, it is neither parsed nor checked, and
no objects are made of it: a payload value is carried on as it is, and a vector's numbers lie in memory side by side.
What a message doesn't declare is kept, and is there when the message is serialised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from qdrant_client import grpc as wire

_FILE: Final = "afterglow/embedded_qdrant.proto"
_PACKAGE: Final = "afterglow.embedded_qdrant"

_FIELDS: Final = {
    # A qdrant.UpsertPoints, and its qdrant.PointStruct.
    "Upsert": (("points", 3, "Point", True),),
    "Point": (("id", 1, ".qdrant.PointId", False), ("payload", 3, "bytes", True), ("vectors", 4, "Vectors", False)),
    "Entry": (("key", 1, "string", False), ("value", 2, "bytes", False)),  # of a payload
    "Vectors": (("vector", 1, "Vector", False), ("vectors", 2, "NamedVectors", False)),
    "NamedVectors": (("vectors", 1, "NamedVector", True),),
    "NamedVector": (("key", 1, "string", False), ("value", 2, "Vector", False)),
    "Vector": (("dense", 101, "bytes", False), ("multi_dense", 103, "MultiVector", False)),
    "MultiVector": (("vectors", 1, "bytes", True),),
    # What this service keeps.
    "KeptVectors": (("vectors", 1, "KeptVector", True),),
    "KeptVector": (("name", 1, "string", False), ("numbers", 2, "bytes", False)),
}
"""Each message's fields: name, number, type, and whether there may be many."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name=_FILE, package=_PACKAGE, dependency=[wire.PointId.DESCRIPTOR.file.name]
    )
    for message, fields in _FIELDS.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, many in fields:
            field = declared.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
            if kind in ("bytes", "string"):
                field.type = field.TYPE_BYTES if kind == "bytes" else field.TYPE_STRING
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = kind if kind.startswith(".") else f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


_CLASS: Final = _classes()

Message: TypeAlias = Any
"""One of the messages above: protobuf makes their classes at run time."""

Point: Final[Message] = _CLASS["Point"]
Entry: Final[Message] = _CLASS["Entry"]
Vectors: Final[Message] = _CLASS["Vectors"]
KeptVectors: Final[Message] = _CLASS["KeptVectors"]


class Upsert(NamedTuple):
    """A `qdrant.UpsertPoints`."""

    points: Sequence[Message]
    rest: wire.UpsertPoints
    """The request without its points."""
    size: int
    """Of the request, bytes."""


def upsert(content: bytes) -> Upsert:
    """Raises `DecodeError` for bytes of another kind."""
    request = _CLASS["Upsert"].FromString(content)
    points = list(request.points)
    request.ClearField("points")
    return Upsert(points, wire.UpsertPoints.FromString(request.SerializeToString()), len(content))
