"""A Qdrant of one's own, for a test that the session's would mix with others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.children import Child, wait_until
from deploy.qdrant_server import QdrantServer


@contextmanager
def running_qdrant(directory: Path) -> Iterator[str]:
    """host:port of gRPC."""
    server = QdrantServer(directory)
    server.prepare()
    child = Child("qdrant", server.command, log=directory / "qdrant.log", environment=server.environment)
    try:
        deadline = time.monotonic() + 60
        while not server.answers():
            assert child.exit_code is None, "\n".join(child.last_lines())
            assert wait_until(deadline), "\n".join(["no answer in 60 s", *child.last_lines()])
        yield server.address
    finally:
        child.stop(timeout_seconds=10)
