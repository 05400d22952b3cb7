"""What crosses the socket between `EncoderClient` and the worker: names, messages, limits.

Messages are msgpack; vectors are the bytes of a C-ordered little-endian float32 array.
"""

from enum import IntEnum
from typing import Final

import msgspec

DESCRIBE: Final = "Describe"
ENCODE: Final = "Encode"
STATISTICS: Final = "Statistics"
SERVICE: Final = "afterglow.Encoder"

MAX_TEXTS: Final = 1024
"""Texts of one Encode call. A client cuts longer sequences up; a worker refuses more."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Above what MAX_TEXTS cleaned texts, or their vectors of 4,096 dimensions, take."""


class TextKind(IntEnum):
    """What a text is: it decides which of the model's prefixes is put before it."""

    QUERY = 0
    PRODUCT = 1


class ModelDescription(msgspec.Struct, frozen=True):
    """The model a worker has loaded.

    `identity` is a hash of weights, configuration, tokenizer, pooling, length limit and prefixes: equal iff vectors
    may be compared. Device and number format don't enter it.
    """

    name: str
    identity: str
    dimension: int
    device: str
    source: str = ""
    """What to load it from again: a folder, a hub name, or "" for the packaged model."""
    query_prefix: str = ""
    product_prefix: str = ""


class EncodeRequest(msgspec.Struct, frozen=True, array_like=True):
    """Cleaned, non-empty texts of one kind. The worker answers n * dimension float32, or FAILED_PRECONDITION if its
    model is not the one of `identity`."""

    identity: str
    kind: TextKind
    texts: list[str]


class EncoderStatistics(msgspec.Struct, frozen=True):
    """Counters since the worker started, and the present depth of its queue."""

    texts: int
    """Texts asked for and answered or being answered."""
    cache_hits: int
    """Answered from the cache."""
    joined: int
    """Not in the cache, but already waiting on behalf of somebody else, or of the same request."""
    encoded: int
    """Texts the model has encoded."""
    tokens: int
    """Tokens the model has encoded."""
    batches: int
    """Forward passes."""
    compute_seconds: float
    """Time in which at least one batch was with the model."""
    waiting: int
    """Texts admitted and not encoded yet."""
    waiting_limit: int
    """Texts that may wait; beyond it requests wait for room."""
    cached: int
    """Vectors in the cache."""
    uptime_seconds: float
    """Since the model was loaded."""


def method(name: str) -> str:
    return f"/{SERVICE}/{name}"
