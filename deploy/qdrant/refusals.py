"""Why a request is refused, with the gRPC code that a Qdrant server answers in the same case."""

from __future__ import annotations

import grpc

_INVALID_INPUT = (
    "Bad ",
    "Expected",
    "Invalid",
    "Missing",
    "No appropriate index",
    "No range index",
    "Not existing vector name",
    "Payload type does not match",
    "Unable to infer type",
    "Validation",
    "Vector dimension error",
    "Wrong",
)


class Refused(Exception):
    """A request that is answered with `code` and this message instead of a result."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refused:
    """The request itself is wrong: sent again, it would be refused again."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {message}")


def not_found(message: str) -> Refused:
    """The collection, alias or point that the request names isn't there."""
    return Refused(grpc.StatusCode.NOT_FOUND, f"Not found: {message}")


def no_collection(name: str) -> Refused:
    """The server's own words for a collection that doesn't exist; clients look for them."""
    return not_found(f"Collection `{name}` doesn't exist!")


def collection_exists(name: str) -> Refused:
    """The name is taken by a collection."""
    return Refused(grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")


def unserved(what: str) -> Refused:
    """Something that a Qdrant server does and the embedded service doesn't."""
    return Refused(
        grpc.StatusCode.UNIMPLEMENTED,
        f"The embedded Qdrant of Afterglow doesn't serve {what}; a Qdrant server does: "
        "start one and give its address with --qdrant.",
    )


class EngineFailed(Exception):
    """The engine can't go on in this process, as after a full disk; what it has acknowledged is in its log of writes,
    and the next start applies it.
    """


def is_for_good(error: Exception) -> bool:
    """Whether the engine refuses every further write of a collection, until it is opened anew."""
    return "Not recovered from previous error" in str(error)


def from_engine(error: Exception) -> Refused:
    """The engine raises bare `Exception`: only its words tell bad input from a fault of its own."""
    message = str(error)
    if message.startswith("No point with id"):
        return not_found(message)
    if "Shard is not initialized" in message:
        return not_found("the collection was deleted meanwhile")
    if isinstance(error, ValueError) or message.startswith(_INVALID_INPUT):
        return invalid(message)
    return Refused(grpc.StatusCode.INTERNAL, f"Service internal error: {message}")
