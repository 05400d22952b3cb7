"""Kafka, Qdrant, encoder, workers and statistics as one thing: what starts, what it is told, what is refused."""

import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.data_directory import AlreadyRunning
from deploy.stack import Endpoints, NothingListens, Programs, Stack, accepts_connections
from deploy.supervisor import RestartPolicy, ServiceFailed

ENCODER = """
    import os, pathlib, socket, time
    path = os.environ["ENCODER"].removeprefix("unix://")
    pathlib.Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    time.sleep(600)
"""
WORKER = """
    import os, pathlib, time
    pathlib.Path(os.environ["WORKERS"], str(os.getpid())).write_text(os.environ["KAFKA"])
    time.sleep(600)
"""


def programs(workers: Path, topics: list[Endpoints]) -> Programs:
    """Scripts that stand for the encoding worker (it listens) and a worker (it leaves what it was told in a file)."""
    workers.mkdir(exist_ok=True)

    def environment(endpoints: Endpoints) -> Mapping[str, str]:
        return {"ENCODER": endpoints.encoder, "KAFKA": endpoints.kafka, "WORKERS": str(workers)}

    return Programs(
        encoder=[sys.executable, "-c", textwrap.dedent(ENCODER)],
        worker=[sys.executable, "-c", textwrap.dedent(WORKER)],
        statistics=[sys.executable, "-c", "import time; time.sleep(1000)"],
        environment=environment,
        make_topics=topics.append,
        workers_ready=lambda endpoints, count: len(list(workers.iterdir())) == count,
    )


@pytest.fixture
def listener() -> Iterator[str]:
    """An address that accepts connections, given in place of a Kafka or a Qdrant."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_only_what_has_no_address_is_started(tmp_path: Path, listener: str) -> None:
    topics: list[Endpoints] = []
    reports: list[str] = []
    stack = Stack(
        tmp_path,
        programs(tmp_path / "told", topics),
        kafka=listener,
        qdrant=listener,
        workers=2,
        report=reports.append,
    )
    with stack:
        assert set(stack.pids()) == {"encoder", "worker-1", "worker-2", "statistics"}
        assert stack.endpoints == Endpoints(listener, listener, f"unix://{tmp_path}/encoder.sock")
        assert topics == [stack.endpoints]
        assert [file.read_text() for file in (tmp_path / "told").iterdir()] == [listener, listener]
        second = Stack(tmp_path, programs(tmp_path / "told", []), kafka=listener, qdrant=listener, report=print)
        with pytest.raises(AlreadyRunning), second:
            pass
    assert reports[0] == "encoder is ready"
    assert sorted(reports[1:]) == ["statistics is ready", "worker-1 is ready", "worker-2 is ready"]
    assert not accepts_connections(stack.endpoints.encoder)


@pytest.mark.parametrize("given", ["kafka", "qdrant"])
def test_an_address_where_nothing_listens_is_named(tmp_path: Path, listener: str, given: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
    addresses = {"kafka": listener, "qdrant": listener, given: nowhere}
    stack = Stack(tmp_path, programs(tmp_path / "told", []), report=print, **addresses)  # type: ignore[arg-type]
    with pytest.raises(NothingListens, match=f"{nowhere}, the address given for {given.capitalize()}"), stack:
        pass
    assert stack.pids() == {}


def test_leaving_tells_what_could_not_be_kept_running(tmp_path: Path, listener: str) -> None:
    stack = Stack(
        tmp_path,
        programs(tmp_path / "told", []),
        kafka=listener,
        qdrant=listener,
        report=print,
        policy=RestartPolicy(most_restarts=0),
    )

    def lose_a_worker() -> None:
        with stack:
            os.kill(stack.pids()["worker-1"], signal.SIGKILL)
            while stack.pids():
                time.sleep(0.05)

    with pytest.raises(ServiceFailed, match=r"(?s)worker-1 can.t be kept running.*killed by SIGKILL"):
        lose_a_worker()


def test_a_stop_asked_for_before_the_start_starts_nothing_lasting(tmp_path: Path, listener: str) -> None:
    stack = Stack(tmp_path, programs(tmp_path / "told", []), kafka=listener, qdrant=listener, report=print)
    stack.ask_to_stop()
    with stack:
        stack.wait()
        assert stack.stopping
        assert stack.pids() == {}
    assert list((tmp_path / "told").iterdir()) == []


@pytest.mark.end_to_end
def test_a_second_start_finds_the_same_kafka_with_its_topics(tmp_path: Path, listener: str) -> None:
    def make_topics(endpoints: Endpoints) -> None:
        admin = AdminClient({"bootstrap.servers": endpoints.kafka})
        if "kept" not in admin.list_topics(timeout=30).topics:
            admin.create_topics([NewTopic("kept", 3, 1)])["kept"].result(30)

    def start() -> Stack:
        told = programs(tmp_path / "told", [])
        made = Programs(
            told.encoder, told.worker, told.statistics, told.environment, make_topics, lambda endpoints, count: True
        )
        return Stack(tmp_path, made, qdrant=listener, report=print)

    with start() as first:
        address = first.endpoints.kafka
        assert set(first.pids()) == {"kafka", "encoder", "worker-1", "statistics"}
    assert not accepts_connections(address)
    with start() as second:
        assert second.endpoints.kafka == address
        metadata = AdminClient({"bootstrap.servers": address}).list_topics(timeout=30)
        assert len(metadata.topics["kept"].partitions) == 3
