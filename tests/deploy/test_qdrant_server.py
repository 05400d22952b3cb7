"""A `qdrant` binary is run as its own documentation says; without one, our service is."""

import sys
import time
from pathlib import Path

import pytest

from deploy.children import Child, wait_until
from deploy.qdrant_server import QdrantServer, QdrantUnavailable

# Stands for the server's binary: it answers the health check on the port that the environment names.
BINARY = """\
#!{python}
import concurrent.futures, os
import grpc

assert os.environ["QDRANT__TELEMETRY_DISABLED"] == "true"
assert os.environ["QDRANT__STORAGE__STORAGE_PATH"] == {storage!r}
check = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("qdrant.Qdrant", {{"HealthCheck": check}})])
server.add_insecure_port(os.environ["QDRANT__SERVICE__HOST"] + ":" + os.environ["QDRANT__SERVICE__GRPC_PORT"])
server.start()
server.wait_for_termination()
"""


def test_a_binary_is_run_on_the_kept_port_until_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    binary = tmp_path / "qdrant"
    binary.write_text(BINARY.format(python=sys.executable, storage=str(data / "server" / "storage")))
    binary.chmod(0o755)
    monkeypatch.setenv("AFTERGLOW_QDRANT_BIN", str(binary))
    server = QdrantServer(data)
    server.prepare()
    assert not server.answers()
    child = Child("qdrant", server.command, log=tmp_path / "log", environment=server.environment)
    try:
        deadline = time.monotonic() + 60
        while not server.answers():
            assert child.exit_code is None, child.last_lines()
            assert wait_until(deadline)
    finally:
        child.stop(0)
    again = QdrantServer(data)
    again.prepare()
    assert again.address == server.address


def test_the_path_s_qdrant_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "qdrant"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.delenv("AFTERGLOW_QDRANT_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert QdrantServer(tmp_path / "data").binary == binary


def test_without_a_binary_our_own_service_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFTERGLOW_QDRANT_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    server = QdrantServer(tmp_path)
    server.prepare()
    port = server.address.removeprefix("127.0.0.1:")
    assert server.command[2:] == ["-m", "deploy.qdrant", "--data-dir", str(tmp_path / "embedded"), "--port", port]
    assert not [name for name in server.environment if name.startswith("QDRANT")]


def test_a_variable_that_names_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_QDRANT_BIN", str(tmp_path / "missing"))
    with pytest.raises(QdrantUnavailable, match=r"AFTERGLOW_QDRANT_BIN=.*missing is no program"):
        QdrantServer(tmp_path)
