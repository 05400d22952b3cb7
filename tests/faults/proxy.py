"""Between the workers and Qdrant: passes calls on as raw bytes, and misbehaves when it is told to.

A `Fault` is of one generation, and says what happens to a call; it hits a `share` of them. Faults of writes hit upserts
only: the server applies them, and the caller doesn't learn it, or learns it wrongly.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

import grpc

UPSERT: Final = "/qdrant.Points/Upsert"
_NAME_BYTES: Final = 100  # the collection's name comes first
_UNLIMITED: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class Kind(StrEnum):
    SLOW = "slow"  # every call takes `seconds` longer
    REFUSE = "refuse"  # UNAVAILABLE, nothing done
    LIMIT = "limit"  # RESOURCE_EXHAUSTED with `retry-after`, nothing done
    TIME_OUT = "time out"  # an upsert is applied, and never answered
    LOSE = "lose"  # an upsert is applied, and the connection seems to break before the answer
    LAND_LATE = "land late"  # an upsert is refused, and applied up to `seconds` later all the same


@dataclass(frozen=True)
class Fault:
    kind: Kind
    seconds: float = 0.0
    share: float = 1.0


class Proxy:
    """Listens on a loopback port of its own from `start` to `stop`. `faults`, by generation, may be set at any time."""

    def __init__(self, seed: int = 0) -> None:
        self.faults: dict[str, Fault] = {}
        self.hits: Counter[tuple[str, Kind]] = Counter()
        """How many calls each kind of fault has hit, by generation."""
        self.address = ""
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._late: set[asyncio.Task[None]] = set()

    def start(self, upstream: str) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(upstream), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def land_late_ones(self) -> None:
        """Returns when no write is under way any more that its sender believes lost."""
        asyncio.run_coroutine_threadsafe(self._landed(), self._loop).result(60)

    async def _serve(self, upstream: str) -> None:
        self._channel = grpc.aio.insecure_channel(upstream, options=_UNLIMITED)
        self._server = grpc.aio.server(options=_UNLIMITED)
        self._server.add_generic_rpc_handlers((_Handler(self._answer),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def _close(self) -> None:
        await self._landed()
        await self._server.stop(grace=None)
        await self._channel.close()

    async def _landed(self) -> None:
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _answer(self, method: str, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        fault = self._fault_of(method, request)
        if fault is None:
            return await self._forward(method, request, context)
        match fault.kind:
            case Kind.SLOW:
                await asyncio.sleep(fault.seconds)
                return await self._forward(method, request, context)
            case Kind.REFUSE:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, "connection refused")
            case Kind.LIMIT:
                context.set_trailing_metadata((("retry-after", "1"),))
                await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded: too many requests")
            case Kind.TIME_OUT:
                self._later(request, 0.0)
                await asyncio.Event().wait()
            case Kind.LOSE:
                await asyncio.shield(self._later(request, 0.0))
                await _abort(context, grpc.StatusCode.UNAVAILABLE, "Socket closed")
            case Kind.LAND_LATE:
                self._later(request, self._chance.uniform(0.0, fault.seconds))
                await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        raise AssertionError("abort returned")

    def _fault_of(self, method: str, request: bytes) -> Fault | None:
        beginning = request[:_NAME_BYTES]
        for generation, fault in self.faults.copy().items():
            if f"--{generation}".encode() not in beginning:
                continue
            of_writes = fault.kind in (Kind.TIME_OUT, Kind.LOSE, Kind.LAND_LATE)
            if (of_writes and method != UPSERT) or self._chance.random() >= fault.share:
                return None
            self.hits[generation, fault.kind] += 1
            return fault
        return None

    async def _forward(self, method: str, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            answer: bytes = await self._channel.unary_unary(method)(request, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            await _abort(context, error.code(), error.details() or "")
        return answer

    def _later(self, upsert: bytes, seconds: float) -> asyncio.Task[None]:
        """Applies it after that time, whatever becomes of its sender; lost where Qdrant is away."""

        async def land() -> None:
            await asyncio.sleep(seconds)
            try:
                await self._channel.unary_unary(UPSERT)(upsert, timeout=30)
            except grpc.aio.AioRpcError:
                return

        task = self._loop.create_task(land())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, answer) -> None:
        self._answer = answer

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await self._answer(call.method, request, context)

        return grpc.unary_unary_rpc_method_handler(answer)


async def _abort(context: grpc.aio.ServicerContext, code: grpc.StatusCode, details: str) -> NoReturn:
    await context.abort(code, details)
    raise AssertionError("abort returned")
