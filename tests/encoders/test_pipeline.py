"""The pipeline over a model whose vectors are known and whose speed the test decides."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.errors import DeviceLost, EncodingFailed
from encoders.pipeline import EncodingPipeline
from encoders.protocol import ModelDescription, TextKind


class Letters:
    """A model: token ids are the text's characters, the vector counts "a" and "b". Runs while `gate` is set."""

    description = ModelDescription("letters", "letters", 2, "cpu")
    padded = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[str]] = []

    def input_text(self, text: str, kind: TextKind) -> str:
        return text if kind is TextKind.QUERY else f"p:{text}"

    def tokenise(self, texts: list[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]

    def launch(self, texts: Sequence[Sequence[int]]) -> "LettersBatch":
        self.gate.wait()
        self.batches.append(["".join(map(chr, ids)) for ids in texts])
        if any("!" in text for text in self.batches[-1]):
            raise FloatingPointError("an exclamation mark")
        if any("#" in text for text in self.batches[-1]):
            raise DeviceLost("a hash sign")
        return LettersBatch(self.batches[-1])

    @property
    def encoded(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


class LettersBatch:
    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def vectors(self) -> NDArray[np.float32]:
        return np.array([expected(text) for text in self._texts], np.float32)


def expected(text: str) -> list[int]:
    return [text.count("a"), text.count("b")]


@asynccontextmanager
async def running(
    model: Letters, *, token_budget: int = 8, cache_entries: int = 100, waiting_limit: int = 100, depth: int = 1
) -> AsyncIterator[EncodingPipeline]:
    pipeline = EncodingPipeline(
        model, token_budget=token_budget, cache_entries=cache_entries, waiting_limit=waiting_limit, depth=depth
    )
    work = asyncio.create_task(pipeline.run())
    try:
        yield pipeline
    finally:
        model.gate.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def settled(pipeline: EncodingPipeline) -> None:
    """Until nothing changes any more: everybody waits for the gate or for room."""
    for _ in range(20):
        await asyncio.sleep(0.002)


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    async with running(Letters()) as pipeline:
        vectors = await pipeline.encode(["aab", "b", "aaaaaaaaaaaaaaaaaaaa", "b", "ab"], TextKind.QUERY)
    assert vectors.tolist() == [[2, 1], [0, 1], [20, 0], [0, 1], [1, 1]]


async def test_no_texts_no_vectors() -> None:
    async with running(Letters()) as pipeline:
        assert (await pipeline.encode([], TextKind.QUERY)).shape == (0, 2)


async def test_a_text_is_encoded_once_for_all_who_ask_meanwhile_and_later() -> None:
    model = Letters()
    async with running(model) as pipeline:
        model.gate.clear()
        calls = [asyncio.create_task(pipeline.encode(["aab", "b"], TextKind.QUERY)) for _ in range(3)]
        await settled(pipeline)
        model.gate.set()
        for vectors in await asyncio.gather(*calls):
            assert vectors.tolist() == [[2, 1], [0, 1]]
        await pipeline.encode(["b"], TextKind.QUERY)
        statistics = pipeline.statistics()
    assert sorted(model.encoded) == ["aab", "b"]
    assert (statistics.texts, statistics.joined, statistics.cache_hits, statistics.encoded) == (7, 4, 1, 2)
    assert (statistics.tokens, statistics.waiting, statistics.cached) == (4, 0, 2)


async def test_kinds_do_not_share_vectors() -> None:
    model = Letters()
    async with running(model) as pipeline:
        await pipeline.encode(["a"], TextKind.QUERY)
        await pipeline.encode(["a"], TextKind.PRODUCT)
    assert model.encoded == ["a", "p:a"]


async def test_texts_of_several_callers_share_a_batch() -> None:
    model = Letters()
    async with running(model) as pipeline:
        model.gate.clear()
        calls = [asyncio.create_task(pipeline.encode([text], TextKind.QUERY)) for text in ("first", "aa", "bb", "ab")]
        await settled(pipeline)
        model.gate.set()
        await asyncio.gather(*calls)
    assert model.batches == [["aa", "first"], ["bb", "ab"]]


async def test_callers_beyond_the_limit_wait_and_are_answered() -> None:
    model = Letters()
    async with running(model, waiting_limit=5) as pipeline:
        model.gate.clear()
        texts = [[f"{'a' * n}{caller}" for n in range(20)] for caller in range(4)]
        calls = [asyncio.create_task(pipeline.encode(mine, TextKind.QUERY)) for mine in texts]
        await settled(pipeline)
        assert pipeline.statistics().waiting == 5
        model.gate.set()
        for mine, vectors in zip(texts, await asyncio.gather(*calls), strict=True):
            assert vectors.tolist() == [expected(text) for text in mine]
    assert len(model.encoded) == 80


async def test_what_nobody_waits_for_any_more_is_not_encoded() -> None:
    model = Letters()
    async with running(model, token_budget=1) as pipeline:
        model.gate.clear()
        kept = asyncio.create_task(pipeline.encode(["a", "b"], TextKind.QUERY))
        dropped = asyncio.create_task(pipeline.encode(["b", "ab", "ba"], TextKind.QUERY))
        await settled(pipeline)
        dropped.cancel()
        await asyncio.gather(dropped, return_exceptions=True)
        model.gate.set()
        assert (await kept).tolist() == [[1, 0], [0, 1]]
        await settled(pipeline)
        assert pipeline.statistics().waiting == 0
        assert (await pipeline.encode(["ab"], TextKind.QUERY)).tolist() == [[1, 1]]
    assert model.encoded == ["a", "b", "ab"]


async def test_a_batch_that_fails_fails_those_in_it_alone() -> None:
    model = Letters()
    async with running(model, token_budget=1) as pipeline:
        with pytest.raises(EncodingFailed, match="FloatingPointError: an exclamation mark"):
            await pipeline.encode(["a", "!"], TextKind.QUERY)
        assert (await pipeline.encode(["b"], TextKind.QUERY)).tolist() == [[0, 1]]
        assert pipeline.statistics().waiting == 0


async def test_a_lost_device_ends_the_pipeline() -> None:
    pipeline = EncodingPipeline(Letters(), token_budget=8, cache_entries=0)
    work = asyncio.create_task(pipeline.run())
    call = asyncio.create_task(pipeline.encode(["#"], TextKind.QUERY))
    with pytest.raises(ExceptionGroup) as ended:
        await work
    assert isinstance(ended.value.exceptions[0], DeviceLost)
    call.cancel()


requests = st.lists(st.lists(st.text("ab", min_size=1, max_size=12), max_size=8), max_size=8)


@settings(max_examples=50, deadline=None)
@given(requests, st.integers(1, 20), st.integers(1, 6), st.integers(1, 2))
def test_every_distinct_text_is_encoded_exactly_once_within_the_budget(
    calls: list[list[str]], budget: int, limit: int, depth: int
) -> None:
    model = Letters()

    async def answers() -> list[NDArray[np.float32]]:
        async with running(model, token_budget=budget, waiting_limit=limit, depth=depth) as pipeline:
            return await asyncio.gather(*(pipeline.encode(texts, TextKind.QUERY) for texts in calls))

    for texts, vectors in zip(calls, asyncio.run(answers()), strict=True):
        assert vectors.tolist() == [expected(text) for text in texts]
    assert Counter(model.encoded) == Counter({text for texts in calls for text in texts})
    assert all(len(batch) == 1 or len("".join(batch)) <= budget for batch in model.batches)
