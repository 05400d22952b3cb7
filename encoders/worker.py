"""The encoding worker: the one process of a host that owns the device, serving every other over a local socket.

It answers nothing until the model is loaded: until then a client finds nobody there, and waits. A socket is served by
one worker at a time (a lock beside it, which the kernel lets go of however the worker ends); what a killed one left
behind is removed. SIGTERM and SIGINT drain: calls under way are answered, new ones refused.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from encoders import protocol
from encoders.errors import EncodingFailed, ModelError
from encoders.pipeline import EncodingPipeline, LoadedModel
from encoders.protocol import EncodeRequest, ModelDescription
from encoders.recipe import locate
from encoders.text import MAX_CHARACTERS

_log = logging.getLogger(__name__)

_SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", protocol.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", protocol.MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 32),  # further calls of a connection wait in the client
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CPU_TOKEN_BUDGET: Final = 1024
_CUDA_TOKEN_BUDGET: Final = 32_768
_DRAIN_SECONDS: Final = 30.0
_LONGEST_SOCKET_PATH: Final = 100

Until = Callable[[ModelDescription], Coroutine[Any, Any, None]]
"""Awaited with the model that is served; it is no longer to be when that returns."""


class AddressTaken(Exception):
    """Another worker serves the address."""


def serve(
    *,
    address: str,
    model: str = "",
    device: str = "auto",
    token_budget: int = 0,
    cache_entries: int = 100_000,
    threads: int = 1,
    query_prefix: str | None = None,
    product_prefix: str | None = None,
    until: Until | None = None,
) -> bool:
    """Loads the model and serves until SIGTERM or SIGINT; blocks. To be called once, in a process's main thread.

    With `until` it serves no longer than that allows either, and drains then as well. Returns whether that ended it.

    `address`: "unix:///path/to.sock" (mode 0600; folders are made) or "host:port", without encryption: a loopback or
    private one. `model`: a folder, a hub name in the local cache, or "" for the packaged MiniLM. `token_budget`: tokens
    of a forward pass, 0 for 1,024 on a CPU and 32,768 on a GPU. `cache_entries`: vectors kept. `threads`: CPU threads
    of the model and the tokenizer, 0 for all. A prefix of None is the model's own prompt, if it has one.
    Raises ValueError, ModelError, AddressTaken, OSError; ExceptionGroup when the device is lost.
    """
    for setting, value in (("token_budget", token_budget), ("cache_entries", cache_entries), ("threads", threads)):
        if value < 0:
            raise ValueError(f"{setting} is {value}: it can't be negative")
    locate(model)  # a wrong name is said at once, not after seconds of imports
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizer's threads; read at its first use
    with _owned(address):
        import torch

        from encoders.model import load

        torch.set_num_threads(threads)
        loaded = load(model, device=device, query_prefix=query_prefix, product_prefix=product_prefix)
        on_gpu = loaded.description.device.startswith("cuda")
        budget = token_budget or (_CUDA_TOKEN_BUDGET if on_gpu else _CPU_TOKEN_BUDGET)
        return asyncio.run(_serve(address, loaded, budget, cache_entries, depth=2 if on_gpu else 1, until=until))


async def _serve(
    address: str, model: LoadedModel, token_budget: int, cache_entries: int, *, depth: int, until: Until | None
) -> bool:
    pipeline = EncodingPipeline(
        model,
        token_budget=token_budget,
        cache_entries=cache_entries,
        waiting_limit=max(1024, token_budget),  # a second or so of work: nobody waits much longer than that
        depth=depth,
    )
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(pipeline),))
    if server.add_insecure_port(address) == 0:
        raise OSError(f"can't listen on {address}")
    path = _socket_path(address)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working = asyncio.create_task(pipeline.run())
    stopping = asyncio.create_task(stop.wait())
    await server.start()
    if path is not None:
        path.chmod(0o600)
    description = pipeline.description
    _log.info(
        "event=ready address=%s model=%s identity=%s dimension=%d device=%s token_budget=%d",
        address,
        description.name,
        description.identity,
        description.dimension,
        description.device,
        token_budget,
    )
    ending = {working, stopping}
    if until is not None:
        ending.add(asyncio.create_task(until(description)))
    ended, others = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        await server.stop(grace=None)
    else:
        _log.info("event=draining waiting=%d", pipeline.statistics().waiting)
        await server.stop(grace=_DRAIN_SECONDS)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in ended:
        task.result()
    _log.info("event=stopped texts=%d", pipeline.statistics().texts)
    return not stop.is_set()


def _handlers(pipeline: EncodingPipeline) -> grpc.GenericRpcHandler:
    """The three methods, over raw bytes: gRPC needs no generated code for that."""

    async def describe(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return msgspec.msgpack.encode(pipeline.description)

    async def statistics(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return msgspec.msgpack.encode(pipeline.statistics())

    async def encode(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = msgspec.msgpack.decode(message, type=EncodeRequest)
        except msgspec.MsgspecError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an Encode request: {error}")
        if len(request.texts) > protocol.MAX_TEXTS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"{len(request.texts)} texts, at most {protocol.MAX_TEXTS} a call"
            )
        for i, text in enumerate(request.texts):
            if not 0 < len(text) <= MAX_CHARACTERS:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"texts[{i}] has {len(text)} characters: 1 to {MAX_CHARACTERS} can be encoded",
                )
        serving = pipeline.description
        if request.identity != serving.identity:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"vectors of model {request.identity} are wanted, but the worker now serves {serving.identity}"
                f" ({serving.name}): start the worker with the former model, or restart what asked",
            )
        try:
            vectors = await pipeline.encode(request.texts, request.kind)
        except EncodingFailed as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        return vectors.astype("<f4", copy=False).tobytes()

    return grpc.method_handlers_generic_handler(
        protocol.SERVICE,
        {
            protocol.DESCRIBE: grpc.unary_unary_rpc_method_handler(describe),
            protocol.ENCODE: grpc.unary_unary_rpc_method_handler(encode),
            protocol.STATISTICS: grpc.unary_unary_rpc_method_handler(statistics),
        },
    )


def _socket_path(address: str) -> Path | None:
    if not address.startswith("unix:"):
        return None
    return Path(address.removeprefix("unix:").removeprefix("//"))


@contextlib.contextmanager
def _owned(address: str) -> Iterator[None]:
    """Makes this process the only worker at a socket, and removes the socket that a killed one left."""
    path = _socket_path(address)
    if path is None:
        yield
        return
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise OSError(f"the socket path {path} is longer than {_LONGEST_SOCKET_PATH} bytes: choose a shorter one")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AddressTaken(f"another encoding worker serves {address}") from None
        path.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def main() -> int:
    """`python -m encoders.worker`: 0 after a drain, 1 when it can't serve, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m encoders.worker", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--address", required=True, help="unix:///path/to.sock or host:port")
    parser.add_argument("--model", default="", help="folder or cached hub name (default: the packaged MiniLM)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--token-budget", type=int, default=0, help="tokens of a forward pass (0: by device)")
    parser.add_argument("--cache-entries", type=int, default=100_000, help="vectors kept")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (0: all)")
    parser.add_argument("--query-prefix", default=None, help="put before a query (default: the model's own)")
    parser.add_argument("--product-prefix", default=None, help="put before a product's text (default: the model's own)")
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
    )
    try:
        serve(**vars(options))
    except ValueError as error:
        parser.error(str(error))
    except (ModelError, AddressTaken, OSError) as error:
        _log.error("event=cannot_serve error=%r", str(error))
        return 1
    except ExceptionGroup as errors:
        _log.error("event=failed error=%r", errors, exc_info=errors)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
