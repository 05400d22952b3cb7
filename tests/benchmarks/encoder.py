"""The encoder beside sentence-transformers, a stream of searches through its socket, and a GPU where there is one.

The encoder is the worker's whole pipeline (cleaning, cache look-up, tokens, batches, float32 rows) with an empty cache;
texts are unique and real. Both sides run in turn, in every round, on the same texts with the same threads.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import numpy as np
import torch
from benchmarks.real_data import unique_texts
from benchmarks.rows import Bound, NotHere, Options, Row, side_by_side
from benchmarks.vectors import Vectors, default_model, through_pipeline
from machine import ENVIRONMENT, until

from encoders.client import EncoderClient, TextKind
from encoders.model import load
from encoders.recipe import locate

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

UNIQUE_QUERIES: Final = 1000
UNIQUE_TITLES: Final = 400
THEIR_BATCH: Final = 32

DISTINCT_QUERIES: Final = 20_000
STREAM: Final = 500_000
UNCACHED_SAMPLE: Final = 10_000
AT_ONCE: Final = 256  # texts a call: a live worker's batch at half load
IN_FLIGHT: Final = 2

GPU_TOKEN_BUDGET: Final = 32_768  # the encoding worker's, and its depth
GPU_DEPTH: Final = 2


def measure(options: Options) -> Iterator[Row]:
    os.environ["RAYON_NUM_THREADS"] = "1"  # of the tokenizers of both sides
    queries, titles = _queries(options), _titles(options)
    theirs = _sentence_transformers("cpu")
    ours = default_model()
    yield from _unique(
        options,
        "queries",
        _spread(queries, options.scaled(UNIQUE_QUERIES)),
        Bound(3.2, 2.5),
        partial(through_pipeline, ours, kind=TextKind.QUERY),
        theirs,
    )
    yield from _unique(
        options,
        "product titles",
        _spread(titles, options.scaled(UNIQUE_TITLES)),
        Bound(2.7, 2.2),
        partial(through_pipeline, ours, kind=TextKind.PRODUCT),
        theirs,
    )
    yield _zipf(options, [*queries, *_made_queries(titles, queries)])
    if torch.cuda.is_available():
        yield from _gpu(options, queries)
    else:
        click.echo("encoder: no GPU that torch can use: its rows are left out", err=True)


def _unique(
    options: Options,
    what: str,
    texts: list[str],
    bound: Bound,
    encode: Callable[[Sequence[str]], Vectors],
    theirs: SentenceTransformer,
) -> Iterator[Row]:
    """The rate of both sides, and how far the vectors are apart."""
    ours_rates, their_rates = [], []
    vectors, exact = encode(texts), _encoded_by(theirs, texts)  # both warm
    for _ in range(options.rounds):
        ours_rates.append(_rate(lambda: encode(texts), len(texts)))
        their_rates.append(_rate(lambda: _encoded_by(theirs, texts), len(texts)))
    ratio, spread = side_by_side(ours_rates, their_rates)
    yield Row(
        name=f"encoder, unique {what}, CPU",
        value=float(np.median(ours_rates)),
        unit="texts/s",
        against=f"sentence-transformers, batch {THEIR_BATCH}: {np.median(their_rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=bound,
        note=f"{len(texts):,} texts, one thread each",
    )
    yield _likeness(f"unique {what}", vectors, exact)


def _likeness(what: str, vectors: Vectors, exact: Vectors) -> Row:
    least = float((vectors * exact).sum(axis=1).min())
    return Row(
        name=f"encoder, least cosine of {what}",
        value=least,
        unit="cosine",
        against="float32 of the same model",
        bound=Bound(0.9999, 0.9999),
        note=f"{least:.6f}, the least of {len(exact):,} texts",
    )


def _zipf(options: Options, queries: list[str]) -> Row:
    """Both sides begin with a process that has encoded nothing yet."""
    if len(queries) < DISTINCT_QUERIES:
        raise NotHere(f"{len(queries):,} distinct queries, and the stream is of {DISTINCT_QUERIES:,}")
    distinct = queries[: options.scaled(DISTINCT_QUERIES)]
    chance = np.random.default_rng(7)
    chance.shuffle(distinct)
    weights = 1.0 / np.arange(1, len(distinct) + 1)
    drawn = chance.choice(len(distinct), options.scaled(STREAM), p=weights / weights.sum())
    stream = [distinct[row] for row in drawn]
    sample = stream[: options.scaled(UNCACHED_SAMPLE)]
    cached_rates, uncached_rates, warm_rates = [], [], []
    for _ in range(options.rounds):
        with _encoding_worker(cache_entries=100_000) as address:
            cached_rates.append(asyncio.run(_streamed(address, stream)))
            warm_rates.append(asyncio.run(_streamed(address, stream[-len(stream) // 10 :])))
        with _encoding_worker(cache_entries=0) as address:
            uncached_rates.append(asyncio.run(_streamed(address, sample)))
    ratio, spread = side_by_side(cached_rates, uncached_rates)
    return Row(
        name="encoder, Zipf stream through the socket, cached",
        value=float(np.median(cached_rates)),
        unit="texts/s",
        against=f"uncached: {np.median(uncached_rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=Bound(10, 6),
        note=(
            f"{len(stream):,} searches of {len(distinct):,} queries, from an empty cache (once it has all: "
            f"{np.median(warm_rates):,.0f}/s); {AT_ONCE} a call, {IN_FLIGHT} in flight; uncached is the rate of the "
            f"first {len(sample):,}; what is under way is encoded once by both"
        ),
    )


def _gpu(options: Options, queries: list[str]) -> Iterator[Row]:
    """One process with the GPU, without a socket, beside sentence-transformers on the same."""
    ours = load(device="cuda")
    theirs = _sentence_transformers("cuda")
    encode = partial(through_pipeline, ours, queries, TextKind.QUERY, token_budget=GPU_TOKEN_BUDGET, depth=GPU_DEPTH)
    some = queries[: len(queries) // 4]
    ours_rates, their_rates = [], []
    vectors, exact = encode()[: len(some)], _encoded_by(_sentence_transformers("cpu"), some[:1000])
    _encoded_by(theirs, some)
    for _ in range(options.rounds):
        ours_rates.append(_rate(encode, len(queries)))
        their_rates.append(_rate(lambda: _encoded_by(theirs, some), len(some)))
    ratio, spread = side_by_side(ours_rates, their_rates)
    name, rate = torch.cuda.get_device_name(), float(np.median(ours_rates))
    note = f"{len(queries):,} texts, one process"
    yield Row(
        name=f"encoder, unique queries, {name}",
        value=rate,
        unit="texts/s",
        against=f"sentence-transformers, batch {THEIR_BATCH}: {np.median(their_rates):,.0f}/s",
        ratio=ratio,
        spread=spread,
        bound=Bound(8, 4),
        note=note,
    )
    yield Row(
        name=f"encoder, rate of one process, {name}",
        value=rate,
        unit="texts/s",
        spread=(min(ours_rates), max(ours_rates)),
        bound=Bound(100_000, 50_000),
        note=note,
    )
    yield _likeness(f"unique queries, {name}", vectors[: len(exact)], exact)


async def _streamed(address: str, stream: Sequence[str]) -> float:
    """Texts a second, the stream cut into calls as a worker's batches cut it."""
    client = EncoderClient(address)
    await client.describe()
    calls = iter([stream[start : start + AT_ONCE] for start in range(0, len(stream), AT_ONCE)])

    async def caller() -> None:
        for texts in calls:
            await client.encode(texts, TextKind.QUERY)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    seconds = time.perf_counter() - began
    await client.close()
    return len(stream) / seconds


@contextmanager
def _encoding_worker(*, cache_entries: int) -> Iterator[str]:
    """The address of an `afterglow encoder` on the CPU that has encoded something else already."""
    with tempfile.TemporaryDirectory() as folder:
        socket, log = Path(folder) / "encoder.sock", Path(folder) / "encoder.log"
        environment = {
            **ENVIRONMENT,
            "AFTERGLOW_DATA_DIR": folder,
            "AFTERGLOW_ENCODER_CACHE_ENTRIES": str(cache_entries),
            "AFTERGLOW_ENCODER_DEVICE": "cpu",
        }
        command = [sys.executable, "-P", "-m", "streams", "encoder", "--address", f"unix://{socket}"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            until(lambda: socket.exists() or process.poll() is not None, 60)
            assert process.poll() is None, log.read_text()
            asyncio.run(_streamed(f"unix://{socket}", [f"warm-up {n}" for n in range(AT_ONCE)]))
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()


def _queries(options: Options) -> list[str]:
    return list(
        dict.fromkeys(
            [
                *unique_texts(options.data, "game-searches/searches", "query"),
                *unique_texts(options.data, "hardware-search-relevance/judgements", "query"),
                *unique_texts(options.data, "shop-searches/searches", "query"),
            ]
        )
    )


def _titles(options: Options) -> list[str]:
    return unique_texts(options.data, "hardware-search-relevance/products", "title")


def _made_queries(titles: Sequence[str], known: Sequence[str]) -> list[str]:
    """The first three words of titles: as long as typed ones are, where there are too few of those."""
    made = dict.fromkeys(" ".join(title.split()[:3]) for title in titles)
    typed = set(known)
    return [query for query in made if query not in typed]


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """So many of them, from beginning to end."""
    return list(texts[:: max(1, len(texts) // count)][:count])


def _sentence_transformers(device: str) -> SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as missing:
        raise NotHere("sentence-transformers is not installed: `pip install sentence-transformers`") from missing
    transformers_logging.disable_progress_bar()
    return SentenceTransformer(str(locate("")[0]), device=device)


def _encoded_by(theirs: SentenceTransformer, texts: Sequence[str]) -> Vectors:
    return theirs.encode(list(texts), batch_size=THEIR_BATCH, normalize_embeddings=True)


def _rate(encode: Callable[[], object], texts: int) -> float:
    began = time.perf_counter()
    encode()
    return texts / (time.perf_counter() - began)
