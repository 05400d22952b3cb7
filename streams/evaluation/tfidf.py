"""A TF-IDF vector space in place of the transformer: how much the meaning of texts is worth beyond their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from encoders.protocol import TextKind

_WORDS: Final = 2048
_NUMBERS: Final = 1 << 26  # of all products: 256 MB


class TfidfEncoder:
    """The API of `EncoderClient`, in process. A text without any word of the catalogue is the vector of zeros."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts` are the catalogue's: its most frequent words are the dimensions, at most 2,048, and fewer where there
        are more than 32,768 of them.
        """
        self._space = TfidfVectorizer(
            max_features=min(_WORDS, _NUMBERS // len(texts)), token_pattern=r"(?u)\b\w+\b", dtype=np.float32
        )
        self._space.fit(texts)

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._space.transform(texts).toarray()
        return vectors
