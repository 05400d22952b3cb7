"""Queries as they might have been typed as well. Pure: drawn from the generator that is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

_SHARE: Final = 0.3  # of queries that are changed
_KEYS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LETTERS: Final = 4  # a word this long can be misspelt and still be read


_Way: TypeAlias = Callable[[Sequence[str], np.random.Generator], Sequence[str]]


class Augmentation:
    """Says a query as somebody else put it, misspells a word, leaves one out, puts them in another order, or puts a
    brand or category of the shop before.
    """

    def __init__(self, companions: Mapping[str, Sequence[str]] | None, rewritten: Mapping[str, Sequence[str]]) -> None:
        """`companions`: by product id the shop's own words for where it belongs, that people put into queries; None:
        queries aren't changed but for `rewritten`: by query, other ways to say it.
        """
        self._companions = companions
        self._rewritten = rewritten

    def of(self, query: str, product_id: str, chance: np.random.Generator) -> str:
        """The query that led to this product, changed in one way, or as it is."""
        if chance.random() >= _SHARE:
            return query
        ways = self._ways(query, product_id)
        if not ways:
            return query
        return " ".join(ways[int(chance.integers(len(ways)))](query.split(), chance)) or query

    def _ways(self, query: str, product_id: str) -> list[_Way]:
        ways: list[_Way] = []
        if self._companions is not None:
            ways += [self._misspelt, self._shorter, self._reordered]
            if words_of := self._companions.get(product_id):
                ways.append(lambda words, chance: [words_of[int(chance.integers(len(words_of)))], *words])
        if others := self._rewritten.get(query):
            ways.append(lambda _, chance: others[int(chance.integers(len(others)))].split())
        return ways

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
