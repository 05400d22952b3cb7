"""From texts to vectors on behalf of many callers at once, without a socket.

    texts -> cache -> already under way? -> room -> tokens (own thread) -> batch by budget -> device (own threads)

Each stage hands on to the next; only `_room` bounds them: at most `waiting_limit` texts are between admission and
their vector, whoever asked for them, and a caller beyond that waits its turn.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.batching import next_batch
from encoders.cache import VectorCache
from encoders.errors import DeviceLost, EncodingFailed
from encoders.protocol import EncoderStatistics, ModelDescription, TextKind

_log = logging.getLogger(__name__)

_TOKENISED_AT_ONCE = 1024


class DeviceBatch(Protocol):
    """A batch under way on the device."""

    def vectors(self) -> NDArray[np.float32]: ...


class LoadedModel(Protocol):
    """What the pipeline needs of `encoders.model.Model`."""

    @property
    def description(self) -> ModelDescription: ...

    @property
    def padded(self) -> bool: ...

    def input_text(self, text: str, kind: TextKind) -> str: ...

    def tokenise(self, texts: list[str]) -> list[list[int]]: ...

    def launch(self, texts: Sequence[Sequence[int]]) -> DeviceBatch: ...


class _Request:
    """One call of `encode`: rows are filled in from the cache and from batches until none is missing."""

    __slots__ = ("abandoned", "done", "missing", "vectors")

    def __init__(self, count: int, dimension: int, done: asyncio.Future[None]) -> None:
        self.vectors = np.empty((count, dimension), np.float32)
        self.missing = count
        self.done = done
        self.abandoned = False

    def fill(self, row: int, vector: NDArray[np.float32]) -> None:
        self.vectors[row] = vector
        self.missing -= 1
        if self.missing == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done() and not self.abandoned:
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class _Pending:
    """One text being encoded, and the rows that wait for it."""

    key: str
    rows: list[tuple[_Request, int]]
    tokens: list[int] = field(default_factory=list)

    def wanted(self) -> bool:
        return any(not request.abandoned for request, _ in self.rows)


class EncodingPipeline:
    """Encodes for many tasks of one event loop; owns the model and its threads. `run` must be running.

    `token_budget`: tokens of one forward pass, exceeded only by a single text longer than it. `waiting_limit`: texts
    admitted and not encoded yet. `depth`: batches with the device at a time; 2 keeps a GPU busy while the host
    prepares the next one.
    """

    def __init__(
        self, model: LoadedModel, *, token_budget: int, cache_entries: int, waiting_limit: int = 1024, depth: int = 1
    ) -> None:
        self._model = model
        self._budget = token_budget
        self._waiting_limit = waiting_limit
        self._cache = VectorCache(cache_entries, model.description.dimension)
        self._under_way: dict[str, _Pending] = {}
        self._arrived: deque[_Pending] = deque()
        self._tokenised: list[_Pending] = []
        self._arrival = asyncio.Event()
        self._ready = asyncio.Event()
        self._room = asyncio.Semaphore(waiting_limit)
        self._device_slots = asyncio.Semaphore(depth)
        self._started = time.monotonic()
        self._texts = self._hits = self._joined = self._encoded = self._tokens = self._batches = 0
        self._computing = 0
        self._computing_since = 0.0
        self._compute_seconds = 0.0

    @property
    def description(self) -> ModelDescription:
        return self._model.description

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Unit float32 rows [n, dimension], in the order of `texts`, which are clean and not empty.

        Waits for room as long as it takes. If the caller is cancelled, what only it wanted and is not with the device
        yet is dropped. Raises EncodingFailed.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = _Request(len(texts), self.description.dimension, done)
        if not texts:
            return request.vectors
        try:
            for row, text in enumerate(texts):
                await self._admit(request, row, self._model.input_text(text, kind))
            await done
        except BaseException:
            request.abandoned = True
            raise
        return request.vectors

    async def run(self) -> None:
        """Does the work until it is cancelled. A batch that fails fails its requests alone; DeviceLost, or a bug, ends
        the whole (as an ExceptionGroup): the process should go then, and be started anew."""
        with (
            ThreadPoolExecutor(1, "tokenise") as tokeniser,
            ThreadPoolExecutor(1, "launch") as launcher,
            ThreadPoolExecutor(1, "collect") as collector,
        ):
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._tokenise(tokeniser))
                stages.create_task(self._compute(launcher, collector, stages))

    def statistics(self) -> EncoderStatistics:
        running = time.monotonic() - self._computing_since if self._computing else 0.0
        return EncoderStatistics(
            texts=self._texts,
            cache_hits=self._hits,
            joined=self._joined,
            encoded=self._encoded,
            tokens=self._tokens,
            batches=self._batches,
            compute_seconds=self._compute_seconds + running,
            waiting=len(self._under_way),
            waiting_limit=self._waiting_limit,
            cached=len(self._cache),
            uptime_seconds=time.monotonic() - self._started,
        )

    async def _admit(self, request: _Request, row: int, key: str) -> None:
        self._texts += 1
        if self._answered_or_joined(request, row, key):
            return
        if self._room.locked():
            await self._room.acquire()
            if self._answered_or_joined(request, row, key):  # somebody else was faster while this one waited
                self._room.release()
                return
        else:
            await self._room.acquire()
        pending = _Pending(key, [(request, row)])
        self._under_way[key] = pending
        self._arrived.append(pending)
        self._arrival.set()

    def _answered_or_joined(self, request: _Request, row: int, key: str) -> bool:
        vector = self._cache.get(key)
        if vector is not None:
            self._hits += 1
            request.fill(row, vector)
            return True
        pending = self._under_way.get(key)
        if pending is not None:
            self._joined += 1
            pending.rows.append((request, row))
            return True
        return False

    async def _tokenise(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrival.wait()
            texts = [self._arrived.popleft() for _ in range(min(len(self._arrived), _TOKENISED_AT_ONCE))]
            if not self._arrived:
                self._arrival.clear()
            tokens = await loop.run_in_executor(executor, self._model.tokenise, [text.key for text in texts])
            for text, ids in zip(texts, tokens, strict=True):
                text.tokens = ids
            self._tokenised += texts
            self._ready.set()

    async def _compute(
        self, launcher: ThreadPoolExecutor, collector: ThreadPoolExecutor, stages: asyncio.TaskGroup
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._device_slots.acquire()
            batch = await self._next_batch()
            self._computing_started()
            try:
                launched = await loop.run_in_executor(launcher, self._model.launch, [text.tokens for text in batch])
            except DeviceLost:
                raise
            except Exception as error:
                self._failed(batch, error)
                continue
            stages.create_task(self._collect(batch, launched, collector))

    async def _collect(self, batch: list[_Pending], launched: DeviceBatch, executor: ThreadPoolExecutor) -> None:
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(executor, launched.vectors)
        except DeviceLost:
            raise
        except Exception as error:
            self._failed(batch, error)
            return
        self._batches += 1
        self._encoded += len(batch)
        self._tokens += sum(len(text.tokens) for text in batch)
        for text, vector in zip(batch, vectors, strict=True):
            self._cache.put(text.key, vector)
            for request, row in text.rows:
                request.fill(row, vector)
        self._left(batch)
        self._computing_ended()

    async def _next_batch(self) -> list[_Pending]:
        while True:
            await self._ready.wait()
            unwanted = [text for text in self._tokenised if not text.wanted()]
            self._left(unwanted)
            waiting = [text for text in self._tokenised if text.wanted()] if unwanted else self._tokenised
            chosen = next_batch([len(text.tokens) for text in waiting], self._budget, padded=self._model.padded)
            taken = set(chosen)
            self._tokenised = [text for i, text in enumerate(waiting) if i not in taken]
            if not self._tokenised:
                self._ready.clear()
            if chosen:
                return [waiting[i] for i in chosen]

    def _failed(self, batch: list[_Pending], error: Exception) -> None:
        longest = max(batch, key=lambda text: len(text.tokens))
        _log.error(
            "event=batch_failed texts=%d longest_tokens=%d error=%r",
            len(batch),
            len(longest.tokens),
            error,
            exc_info=error,
        )
        for text in batch:
            for request, _ in text.rows:
                request.fail(EncodingFailed(f"{type(error).__name__}: {error}"))
        self._left(batch)
        self._computing_ended()

    def _left(self, texts: list[_Pending]) -> None:
        for text in texts:
            del self._under_way[text.key]
            self._room.release()

    def _computing_started(self) -> None:
        if self._computing == 0:
            self._computing_since = time.monotonic()
        self._computing += 1

    def _computing_ended(self) -> None:
        self._computing -= 1
        if self._computing == 0:
            self._compute_seconds += time.monotonic() - self._computing_since
        self._device_slots.release()
