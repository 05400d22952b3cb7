"""What every end-to-end test stands on: one real Kafka and one Qdrant for the whole session."""

import time
from collections.abc import Iterator

import pytest

from deploy.children import Child, wait_until
from deploy.kafka import running_kafka
from deploy.qdrant_server import QdrantServer


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka, shared by the session: name your topics and groups as nobody else
    does.
    """
    with running_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running.bootstrap_servers


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Qdrant (gRPC), shared by the session: name your collections as nobody else does."""
    directory = tmp_path_factory.mktemp("qdrant")
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
