"""The catalogue's vocabulary in Qdrant: made by workers as the catalogue grows, read by whoever is asked a text.

One point of `statistics--NAME`, beside the generation's record:

========================================  ==================================================================
`00000000-0000-0000-0000-000000000006`    `words` (base64 of zstd of msgpack: the words, the products that each is
                                          in), `n` (products it was made when there were so many), `version`
========================================  ==================================================================
"""

from __future__ import annotations

import asyncio
import binascii
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import zstandard
from qdrant_client import AsyncQdrantClient

from sinks.collections import read_point, statistics_collection
from sinks.points import payload_point
from sinks.retry import RetryPolicy
from sinks.spelling import NO_VOCABULARY, Vocabulary
from sinks.writes import Write, new_version, write

_POINT: Final = "00000000-0000-0000-0000-000000000006"
_RECENT_SECONDS: Final = 60.0


class StoredVocabulary(NamedTuple):
    version: int
    n: int
    """Products that there were when it was made."""
    vocabulary: Vocabulary


class VocabularyStore:
    """Of one generation. Raises PermanentSinkError, and transient errors when `retry` gives up."""

    def __init__(
        self, client: AsyncQdrantClient, generation: str, *, replicated: bool = False, retry: RetryPolicy | None = None
    ) -> None:
        self._client = client
        self._collection = statistics_collection(generation)
        self._replicated = replicated
        self._retry = retry or RetryPolicy()

    async def read(self) -> StoredVocabulary | None:
        """None where there is none yet."""
        stored = await read_point(
            self._client, self._collection, _POINT, replicated=self._replicated, retry=self._retry
        )
        if stored is None:
            return None
        vocabulary = await asyncio.to_thread(_decoded, stored["words"].string_value)
        return StoredVocabulary(stored["version"].integer_value, stored["n"].integer_value, vocabulary)

    async def write(self, vocabulary: Vocabulary, n: int, *, replaces: int | None) -> bool:
        """In place of the one of version `replaces` (None: there was none). False: somebody else's is there."""
        version = new_version()
        words = await asyncio.to_thread(_encoded, vocabulary)
        only = Write(_POINT, version, replaces, payload_point(_POINT, version, {"n": n, "words": words}))
        (mine,) = await write(self._client, self._collection, [only], replicated=self._replicated, retry=self._retry)
        return mine


class RecentVocabulary:
    """A vocabulary read when it is asked for, and again when that is a minute ago. Safe for many tasks."""

    def __init__(self, store: VocabularyStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._vocabulary = NO_VOCABULARY
        self._good_until = -1.0
        self._reading = asyncio.Lock()

    async def get(self) -> Vocabulary:
        """`NO_VOCABULARY` where there is none. Raises as the store does."""
        async with self._reading:
            if self._clock() >= self._good_until:
                stored = await self._store.read()
                self._vocabulary = NO_VOCABULARY if stored is None else stored.vocabulary
                self._good_until = self._clock() + _RECENT_SECONDS
            return self._vocabulary


def _encoded(vocabulary: Vocabulary) -> bytes:
    products = vocabulary.products
    return zstandard.compress(msgspec.msgpack.encode((list(products), list(products.values()))))


def _decoded(data: str) -> Vocabulary:
    words, products = msgspec.msgpack.decode(
        zstandard.decompress(binascii.a2b_base64(data)), type=tuple[list[str], list[int]]
    )
    return Vocabulary(dict(zip(words, products, strict=True)))
