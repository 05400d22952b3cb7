"""The vocabulary of a generation is stored, replaced only by who has read it, and read again after a minute."""

from __future__ import annotations

import uuid

import pytest

from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.opening import open_generation
from sinks.spelling import NO_VOCABULARY, Vocabulary
from sinks.vocabulary import RecentVocabulary, VocabularyStore

pytestmark = pytest.mark.end_to_end


async def test_a_vocabulary_is_stored_and_read_again_after_a_minute(qdrant: str) -> None:
    client, name, now = connect(qdrant), f"words-{uuid.uuid4().hex[:8]}", 0.0
    await open_generation(client, Generation(name, Model("m", "i", 4), "f", {}, 1))
    store = VocabularyStore(client, name)
    recent = RecentVocabulary(store, clock=lambda: now)
    assert await recent.get() is NO_VOCABULARY
    assert await store.write(Vocabulary({"boots": 2, "水筒": 1}), 3, replaces=None)
    assert not await store.write(Vocabulary({"other": 1}), 3, replaces=None)
    first = await store.read()
    assert first is not None
    assert (first.n, first.vocabulary.products) == (3, {"boots": 2, "水筒": 1})
    now = 59.0
    assert (await recent.get()).products == {}
    now = 60.0
    assert (await recent.get()).products == {"boots": 2, "水筒": 1}
    assert await store.write(Vocabulary({"tents": 5}), 9, replaces=first.version)
    now = 121.0
    assert (await recent.get()).products == {"tents": 5}
    await client.close()
