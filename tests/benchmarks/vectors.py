"""Vectors that are known before anything is measured: of real texts by the real model, or made."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.client import TextKind
from encoders.model import Model, load
from encoders.pipeline import EncodingPipeline
from encoders.protocol import ModelDescription
from encoders.text import clean

Vectors = NDArray[np.float32]

_DIMENSION = 384
_CLUSTERS = 500
_CPU_TOKEN_BUDGET = 1024  # the encoding worker's


class KnownTexts:
    """The API of `EncoderClient`, in process: looks each text up. For parts that measure what comes after encoding."""

    def __init__(self, texts: Sequence[str], vectors: Vectors, model: ModelDescription) -> None:
        self._row_of = {clean(text): row for row, text in enumerate(texts)}
        self.vectors = vectors
        self._model = model

    async def describe(self) -> ModelDescription:
        return self._model

    async def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        return self.vectors[[self._row_of[clean(text)] for text in texts]]


def real(texts: Sequence[str], kind: TextKind = TextKind.PRODUCT) -> KnownTexts:
    """Encoded by the default model, in this process; once for the same texts."""
    return KnownTexts(texts, _encoded(tuple(texts), kind), default_model().description)


def made(texts: Sequence[str], seed: int = 1) -> KnownTexts:
    """Some hundred directions and noise around them: like products are alike, as real ones are."""
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((len(texts), _DIMENSION), np.float32)
    vectors += 1.2 * chance.standard_normal((_CLUSTERS, _DIMENSION), np.float32)[np.arange(len(texts)) % _CLUSTERS]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return KnownTexts(texts, vectors, ModelDescription("made", f"made-{seed}", _DIMENSION, "cpu"))


@cache
def default_model() -> Model:
    """On the CPU, with one thread."""
    torch.set_num_threads(1)
    return load(device="cpu")


def through_pipeline(
    model: Model, texts: Sequence[str], kind: TextKind, *, token_budget: int = _CPU_TOKEN_BUDGET, depth: int = 1
) -> Vectors:
    """What the encoding worker does without its socket: cleaning, an empty cache, tokens, batches, float32 rows."""

    async def encode() -> Vectors:
        pipeline = EncodingPipeline(
            model,
            token_budget=token_budget,
            cache_entries=len(texts),
            waiting_limit=max(1024, token_budget),
            depth=depth,
        )
        working = asyncio.create_task(pipeline.run())
        vectors = await pipeline.encode([clean(text) for text in texts], kind)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return vectors

    return asyncio.run(encode())


@cache
def _encoded(texts: tuple[str, ...], kind: TextKind) -> Vectors:
    """By as many processes as there are cores: one of many threads is slower where others measure."""
    cores = os.cpu_count() or 1
    parts = [texts[core::cores] for core in range(cores)]
    vectors = np.empty((len(texts), _DIMENSION), np.float32)
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as processes:
        for core, part in enumerate(processes.map(_encoded_part, parts, itertools.repeat(kind))):
            vectors[core::cores] = part
    return vectors


def _encoded_part(texts: tuple[str, ...], kind: TextKind) -> Vectors:
    return through_pipeline(default_model(), texts, kind)
