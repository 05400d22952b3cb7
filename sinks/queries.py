"""What is asked for by a text: its meaning, its words, and how those are taken to be spelt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sinks.clicks import ClickTable, query_hash
from sinks.spelling import Vocabulary, respelt
from sinks.wire import Vector
from sinks.words import Words, query_words


class Query(NamedTuple):
    """A text somebody asks for."""

    vector: Vector  # unit, [d], of the text as it was typed
    hash: int  # `sinks.clicks.query_hash`
    words: Words  # `sinks.words.query_words`
    read_as: str | None = None  # the text whose words and hash these are; None: as it was typed


class Lexicon(Protocol):
    """What is asked of a catalogue."""

    async def known_of(self, words: Sequence[str]) -> set[str]: ...


async def understood(
    text: str,
    vector: Vector,
    *,
    key: Callable[[str], str],
    catalogue: Lexicon,
    vocabulary: Vocabulary,
    clicks: ClickTable,
) -> Query:
    """The query; misspelt words are read as what the catalogue spells like that.

    Never where others clicked something after the same query, nor a word that they clicked something after, nor one
    that an available product has, though the vocabulary hasn't heard of it yet. What is read otherwise is looked for by
    its words and by what others clicked after it. The vector stays that of what was typed, so that a wrong reading
    hides nothing that meaning finds; and meaning reads a misspelt word well enough: on hardware-search-relevance and
    game-searches the vector of the reading finds no more.

    `key` makes of a text the key by which profiles remember it. Raises what the catalogue does.
    """

    def clicked(text: str) -> bool:
        return len(clicks.of(query_hash(key(text)))[0]) > 0

    readings = {} if clicked(text) else vocabulary.doubts(text)
    doubtful = [word for word in readings if not clicked(word)]
    known = await catalogue.known_of(doubtful) if doubtful else set()
    readings = {word: readings[word] for word in doubtful if word not in known}
    if not readings:
        return Query(vector, query_hash(key(text)), query_words(text))
    read_as = respelt(text, readings)
    return Query(vector, query_hash(key(read_as)), query_words(read_as), read_as)
