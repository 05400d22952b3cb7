"""Queries as they might have been typed as well. Pure: drawn from the generator that is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_SHARE: Final = 0.3  # of queries that are changed
_KEYS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LETTERS: Final = 4  # a word this long can be misspelt and still be read


class Augmentation:
    """Misspells a word, leaves one out, puts them in another order, or puts a brand or category of the shop before."""

    def __init__(self, companions: Mapping[str, Sequence[str]]) -> None:
        """`companions`: by product id the shop's own words for where it belongs, that people put into queries."""
        self._companions = companions

    def of(self, query: str, product_id: str, chance: np.random.Generator) -> str:
        """The query that led to this product, changed in one way, or as it is."""
        if chance.random() >= _SHARE:
            return query
        words = query.split()
        ways = [self._misspelt, self._shorter, self._reordered]
        if self._companions.get(product_id):
            words_of = self._companions[product_id]
            ways.append(lambda words, chance: [words_of[int(chance.integers(len(words_of)))], *words])
        return " ".join(ways[int(chance.integers(len(ways)))](words, chance)) or query

    @staticmethod
    def _misspelt(words: Sequence[str], chance: np.random.Generator) -> list[str]:
        long = [i for i, word in enumerate(words) if len(word) >= _LETTERS]
        if not long:
            return list(words)
        changed = list(words)
        i = long[int(chance.integers(len(long)))]
        word, at = words[i], int(chance.integers(len(words[i]) - 1))
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        missing, twice = word[:at] + word[at + 1 :], word[: at + 1] + word[at:]
        beside = word[:at] + _beside(word[at], chance) + word[at + 1 :]
        changed[i] = (swapped, missing, twice, beside)[int(chance.integers(4))]
        return changed

    @staticmethod
    def _shorter(words: Sequence[str], chance: np.random.Generator) -> list[str]:
        if len(words) < 2:
            return list(words)
        out = int(chance.integers(len(words)))
        return [*words[:out], *words[out + 1 :]]

    @staticmethod
    def _reordered(words: Sequence[str], chance: np.random.Generator) -> list[str]:
        return [words[i] for i in chance.permutation(len(words))]


def _beside(letter: str, chance: np.random.Generator) -> str:
    row = next((row for row in _KEYS if letter in row), "")
    if not row:
        return letter
    at = row.index(letter) + (1 if chance.random() < 0.5 else -1)
    return row[min(max(at, 0), len(row) - 1)]
