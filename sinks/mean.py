"""The mean of a generation's catalogue, kept beside its record."""

import binascii
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient

from sinks.collections import MEAN_POINT, read_point, statistics_collection
from sinks.points import Payload, payload_point
from sinks.retry import RetryPolicy
from sinks.wire import Vector
from sinks.writes import Write, write

_NO_LANDMARKS = np.zeros((0, 0), np.int8)


class Mean(NamedTuple):
    """The mean μ of the catalogue's unit vectors, which queries are centred by."""

    version: int
    n: int
    """The number of products it was made from."""
    vector: Vector
    """[d] float32, not of unit length."""
    landmarks: NDArray[np.int8] = _NO_LANDMARKS
    """[m, d], m up to 256: what `sinks.support.landmarks_of` made with it; m is 0 where it was stored without."""


async def read_mean(
    client: AsyncQdrantClient, name: str, *, replicated: bool = False, retry: RetryPolicy | None = None
) -> Mean | None:
    """The mean of a generation's products; None if there is none yet.

    Raises:
        PermanentSinkError: Qdrant refused the call for good.
    """
    stored = await read_point(
        client, statistics_collection(name), MEAN_POINT, replicated=replicated, retry=retry or RetryPolicy()
    )
    if stored is None:
        return None
    data = binascii.a2b_base64(stored["vector"].string_value, strict_mode=True)
    vector = np.frombuffer(data, "<f4")
    landmarks = np.frombuffer(binascii.a2b_base64(stored["landmarks"].string_value), np.int8)
    return Mean(stored["version"].integer_value, stored["n"].integer_value, vector, landmarks.reshape(-1, len(vector)))


async def write_mean(
    client: AsyncQdrantClient,
    name: str,
    mean: Mean,
    *,
    replaces: int | None,
    replicated: bool = False,
    retry: RetryPolicy | None = None,
) -> bool:
    """Replace the mean that was read in version `replaces` (None: there was none), as `sinks.writes.write` does.

    Returns:
        Whether `mean` is stored. If not, another worker's is: read that.

    Raises:
        ValueError: the vector is not finite.
        PermanentSinkError: Qdrant refused the call for good.
    """
    if not np.isfinite(mean.vector).all():
        raise ValueError(f"the mean of {mean.n} products of generation {name!r} is not finite")
    payload: Payload = {
        "n": mean.n,
        "vector": np.ascontiguousarray(mean.vector, "<f4").tobytes(),
        "landmarks": mean.landmarks.tobytes(),
    }
    point = payload_point(MEAN_POINT, mean.version, payload)
    (mine,) = await write(
        client,
        statistics_collection(name),
        [Write(MEAN_POINT, mean.version, replaces, point)],
        replicated=replicated,
        retry=retry,
    )
    return mine
