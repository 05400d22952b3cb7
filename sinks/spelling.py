"""How a query's words are spelt in the catalogue, so that a misspelt one finds what the right one finds. Pure.

A word that no product has is read as the word of the catalogue that is most likely meant, by a noisy channel
(Kernighan, Church and Gale 1990): how common the word is times how likely the error. An edit is a letter too many, too
few, another, or two swapped (optimal string alignment, by the library RapidFuzz). What runs two words together is read
as the two.

Only alphabets are read so, Latin, Greek, Cyrillic and Armenian, from four letters on: where a character is a syllable
or a word, another character is another word. Letters beside a digit are a model's name or a code, and stay.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from sinks.words import singular

MOST_WORDS: Final = 50_000
"""Words that are held at most, those of the most products: 48,000 products of electronics have 14,000, 54,667 of a
home-improvement shop as many."""

_LETTER: Final = r"[^\W\d_]"
_WORD: Final = re.compile(rf"(?<![^\W_])(?:{_LETTER})+(?![^\W_])")  # no letter or digit beside it
_ALPHABETIC: Final = re.compile(r"[\u0000-\u058f\u1e00-\u1fff]+")

_LEAST_READ: Final = 4  # letters of a word that may be misspelt: of three, a third of it would be guessed
_TWO_EDITS_FROM: Final = 7  # letters
_LEAST_PART: Final = 3  # letters of each of two words run together

# What an error costs beside the first edit, as a natural logarithm, like how common a word is.
_SECOND_EDIT: Final = 3.0
_FIRST_LETTER: Final = 3.0  # people seldom mistake it
_RUN_TOGETHER: Final = 1.5


class Vocabulary:
    """The words of a catalogue, case-folded, and how many products have each."""

    def __init__(self, products: Mapping[str, int]) -> None:
        self.products = dict(sorted(products.items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS])
        self._known = {singular(word) for word in self.products}
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word in self.products:
            if len(word) >= _LEAST_PART:
                self._by_length[len(word)].append(word)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Of the products with these texts."""
        products: Counter[str] = Counter()
        for text in texts:
            products.update(set(_words(text)))
            if len(products) > 4 * MOST_WORDS:
                products = Counter(dict(products.most_common(2 * MOST_WORDS)))
        return cls({word: n for word, n in products.items() if _ALPHABETIC.fullmatch(word)})

    def doubts(self, text: str) -> dict[str, str]:
        """Words of `text` that are not in the vocabulary, case-folded, and what each is most likely meant to be.

        Words that nothing is like are left out. A few milliseconds for each, at most.
        """
        readings = {}
        for word in dict.fromkeys(_words(text)):
            if len(word) >= _LEAST_READ and singular(word) not in self._known and _ALPHABETIC.fullmatch(word):
                reading = self._likeliest(word)
                if reading is not None:
                    readings[word] = reading
        return readings

    def _likeliest(self, word: str) -> str | None:
        edits = 1 if len(word) < _TWO_EDITS_FROM else 2
        likely: list[tuple[float, str]] = []
        for length in range(len(word) - edits, len(word) + edits + 1):
            words = self._by_length.get(length, ())
            for other, distance, _ in extract(word, words, scorer=OSA.distance, score_cutoff=edits, limit=None):
                errors = _SECOND_EDIT * (distance - 1) + _FIRST_LETTER * (other[0] != word[0])
                likely.append((self._commonness(other) - errors, other))
        for at in range(_LEAST_PART, len(word) - _LEAST_PART + 1):
            both = min(self._commonness(word[:at]), self._commonness(word[at:]))
            if both > 0.0:
                likely.append((both - _RUN_TOGETHER, f"{word[:at]} {word[at:]}"))
        return max(likely)[1] if likely else None

    def _commonness(self, word: str) -> float:
        """0 of a word that no product has."""
        return math.log1p(self.products.get(word, 0))


NO_VOCABULARY: Final = Vocabulary({})
"""Of a catalogue of which nothing is known: nothing is in doubt."""


def respelt(text: str, readings: Mapping[str, str]) -> str:
    """`text` with these words (case-folded) in place of their readings; everything else as it was typed."""
    return _WORD.sub(lambda match: readings.get(match[0].casefold(), match[0]), text)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
