"""A test kit: an encoder without a model, for tests of what uses one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.errors import EncoderError
from encoders.protocol import EncoderStatistics, ModelDescription, TextKind
from encoders.text import clean


class WordHashEncoder:
    """The API of `EncoderClient`, in process: a text is the sum of one fixed random direction for each of its words.

    Deterministic across processes and machines. Texts that share words are alike, in proportion; others are nearly
    orthogonal (cosine about 1/sqrt(dimension)). Case is ignored, as is `kind`.
    """

    def __init__(self, dimension: int = 384) -> None:
        self._description = ModelDescription("word-hash", f"word-hash-{dimension}", dimension, "cpu")
        self._texts = 0

    async def describe(self) -> ModelDescription:
        return self._description

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Unit float32 vectors [n, dimension]. Raises EncoderError for a text of which `clean` leaves nothing."""
        self._texts += len(texts)
        rows = [self._vector(i, text) for i, text in enumerate(texts)]
        return np.array(rows, np.float32).reshape(len(rows), self._description.dimension)

    async def statistics(self) -> EncoderStatistics:
        return EncoderStatistics(
            texts=self._texts,
            cache_hits=0,
            joined=0,
            encoded=self._texts,
            tokens=0,
            batches=0,
            compute_seconds=0.0,
            waiting=0,
            waiting_limit=0,
            cached=0,
            uptime_seconds=0.0,
        )

    async def close(self) -> None:
        """Nothing to close."""

    def _vector(self, index: int, text: str) -> NDArray[np.float64]:
        words = clean(text).casefold().split()
        if not words:
            raise EncoderError(f"texts[{index}] is {text[:80]!r}, of which cleaning leaves nothing: leave it out")
        total = np.zeros(self._description.dimension)
        for word in words:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
            total += np.random.default_rng(seed).standard_normal(self._description.dimension)
        unit: NDArray[np.float64] = total / np.linalg.norm(total)
        return unit
