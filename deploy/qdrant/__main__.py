"""`python -m deploy.qdrant --data-dir DIR [--port P] [--address-file FILE]`: serve until SIGTERM or SIGINT.

Prints nothing to stdout; logs to stderr. Exit codes: 0 stopped, 1 couldn't serve (folder in use or unreadable, port
taken, disk full: stderr says which), 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.qdrant.catalogue import Catalogue, FolderInUse, UnreadableFolder, replace_file
from deploy.qdrant.compaction import keep_compact
from deploy.qdrant.refusals import EngineFailed
from deploy.qdrant.server import start

log = logging.getLogger("deploy.qdrant")

GRACE_SECONDS = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.qdrant", description="An embedded Qdrant on 127.0.0.1.")
    parser.add_argument("--data-dir", type=Path, required=True, help="where collections are kept")
    parser.add_argument("--port", type=int, default=0, help="gRPC port on 127.0.0.1 (default 0: any free one)")
    parser.add_argument("--address-file", type=Path, help="written with host:port once it answers")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with asyncio.Runner(loop_factory=_event_loop()) as runner:
            runner.run(serve(options.data_dir, options.port, options.address_file))
    except (FolderInUse, UnreadableFolder, OSError, RuntimeError) as error:
        sys.stderr.write(f"embedded Qdrant: {error}\n")
        return 1
    except EngineFailed as error:
        with contextlib.suppress(OSError):  # the log's disk may be the full one
            sys.stderr.write(f"embedded Qdrant: ends, since it can't write: {error}\n")
            sys.stderr.flush()
        os._exit(1)  # at once, as by kill -9: nothing of what failed may be flushed
    return 0


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one (not on Windows): a write is a dozen turns of the loop."""
    try:
        import uvloop
    except ImportError:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


async def serve(data_dir: Path, port: int, address_file: Path | None) -> None:
    """Serve until a signal; then finish what is under way, flush, and give the folder back.

    Raises EngineFailed, without any of that.
    """
    catalogue = Catalogue(data_dir)
    try:
        server, points, bound = await start(catalogue, port)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        compacting = asyncio.create_task(keep_compact(catalogue))
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)  # a request is thousands of objects without a cycle among them
        log.info("embedded Qdrant serves %s on 127.0.0.1:%d", data_dir, bound)
        if address_file is not None:
            replace_file(address_file, f"127.0.0.1:{bound}\n".encode())
        stopped = asyncio.create_task(stopping.wait())
        failing = asyncio.create_task(points.failure())
        await asyncio.wait({stopped, compacting, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            raise EngineFailed(failing.result())
        if compacting.done() and (error := compacting.exception()) is not None:
            raise EngineFailed(str(error)) from error
        await server.stop(GRACE_SECONDS)
        await points.finish_writes()
        stopped.cancel()
        failing.cancel()
        compacting.cancel()
    except EngineFailed:
        raise
    except BaseException:
        await catalogue.close()
        raise
    await catalogue.close()


if __name__ == "__main__":
    sys.exit(main())
