"""Texts encoded per second, beside sentence-transformers' `encode` with batches of 32 and the same threads.

    python tests/benchmarks/encoder.py [--threads 1] [--rounds 5] [--token-budget 1024]

Unique, real texts from AFTERGLOW_DATA (default ../shared/data): queries of game-searches, titles of
hardware-search-relevance. Ours is the worker's whole pipeline (cleaning, cache look-up, tokens, batches, float32 rows),
its cache empty. Both sides run in turn in every round and medians are compared, so that other load hits both.
"""

import argparse
import asyncio
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.model import Model, load
from encoders.pipeline import EncodingPipeline
from encoders.protocol import TextKind
from encoders.recipe import locate
from encoders.text import clean

DATA = Path(os.environ.get("AFTERGLOW_DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = {
    "queries": ("game-searches/searches.jsonl.gz", "query", 1000),
    "titles": ("hardware-search-relevance/products.jsonl.gz", "title", 400),
}


def unique_texts(name: str) -> list[str]:
    file, field, count = SETS[name]
    with gzip.open(DATA / file) as lines:
        texts = list(dict.fromkeys(clean(json.loads(line)[field]) for line in lines))
    return [text for text in texts[:: max(1, len(texts) // count)] if text][:count]


def ours(model: Model, token_budget: int, texts: list[str]) -> NDArray[np.float32]:
    async def encode() -> NDArray[np.float32]:
        pipeline = EncodingPipeline(model, token_budget=token_budget, cache_entries=len(texts))
        work = asyncio.create_task(pipeline.run())
        vectors = await pipeline.encode([clean(text) for text in texts], TextKind.QUERY)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return vectors

    return asyncio.run(encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--token-budget", type=int, default=1024)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.stderr.write(f"no data in {DATA}: set AFTERGLOW_DATA\n")
        return 1
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    from sentence_transformers import SentenceTransformer

    model = load(device="cpu")
    theirs = SentenceTransformer(str(locate("")[0]), device="cpu")
    for name in SETS:
        texts = unique_texts(name)
        sides: dict[str, Callable[[], NDArray[np.float32]]] = {
            "sentence-transformers": lambda texts=texts: theirs.encode(texts, batch_size=32, normalize_embeddings=True),
            "afterglow": lambda texts=texts: ours(model, options.token_budget, texts),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        cpu_seconds: dict[str, list[float]] = {side: [] for side in sides}
        vectors = {side: encode() for side, encode in sides.items()}
        for _ in range(options.rounds):
            for side, encode in sides.items():
                wall, cpu = time.perf_counter(), time.process_time()
                encode()
                seconds[side].append(time.perf_counter() - wall)
                cpu_seconds[side].append(time.process_time() - cpu)
        cosine = float((vectors["afterglow"] * vectors["sentence-transformers"]).sum(1).min())
        for clock, times in (("wall", seconds), ("CPU", cpu_seconds)):
            rates = {side: len(texts) / statistics.median(times[side]) for side in sides}
            for side, rate in rates.items():
                ratio = rate / rates["sentence-transformers"]
                sys.stdout.write(f"{name:8} {clock:5} {side:22} {rate:7.0f}/s  x{ratio:.2f}\n")
        sys.stdout.write(f"{name:8} least cosine to sentence-transformers in float32: {cosine:.6f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
