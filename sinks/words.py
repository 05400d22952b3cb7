"""The words of a text as a sparse vector, so that products are found by them as well as by meaning. Pure.

BM25 (Robertson and Zaragoza 2009, eq. 3.15): a product has what its words weigh in it, a query each of its words once;
Qdrant multiplies by how rare a word is in the catalogue (the collection's modifier IDF).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_K1: Final = 0.6
_B: Final = 0.3
_USUAL_LENGTH: Final = 10.0  # words of a product; a catalogue's own mean would have to be known before its products
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")  # letters or digits: "60in." and "60 in" are the same words


class Words(NamedTuple):
    """A sparse vector, parallel; `ids` ascending, each once."""

    ids: NDArray[np.uint32]
    weights: NDArray[np.float32]


def words_of(text: str) -> list[str]:
    """In lower case, without a plural's s: runs of letters, and runs of digits."""
    return [singular(word) for word in _WORD.findall(text.casefold())]


def product_words(text: str) -> Words:
    """What each word weighs in a product's text: tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / usual length))."""
    counts = Counter(words_of(text))
    damping = _K1 * (1.0 - _B + _B * counts.total() / _USUAL_LENGTH)
    return _vector({word: times * (_K1 + 1.0) / (times + damping) for word, times in counts.items()})


def query_words(text: str) -> Words:
    """Each word of a query, once."""
    return _vector(dict.fromkeys(words_of(text), 1.0))


def singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _vector(weights: dict[str, float]) -> Words:
    by_id: dict[int, float] = {}
    for word, weight in weights.items():
        id_ = crc32(word.encode())
        by_id[id_] = by_id.get(id_, 0.0) + weight
    ids = sorted(by_id)
    return Words(np.array(ids, np.uint32), np.array([by_id[id_] for id_ in ids], np.float32))
