"""Everything that runs on one machine: Kafka, Qdrant, the encoding worker and the workers, as one thing to
start and stop.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.data_directory import DataDirectory
from deploy.kafka import Kafka
from deploy.qdrant_server import QdrantServer
from deploy.supervisor import RestartPolicy, Service, Stage, Supervisor

BEHIND_THE_OTHERS: Final = 10
"""Niceness of what profiles don't wait for: it is seconds behind by design, and a batch of it holds a core for long."""


class NothingListens(Exception):
    """An address that was given doesn't accept connections."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything listens."""

    kafka: str  # host:port,…
    qdrant: str  # host:port of gRPC
    encoder: str  # unix:///path or host:port


@dataclass(frozen=True, slots=True)
class Programs:
    """What the stack runs beside Kafka and Qdrant, and how it is told; all is called with the endpoints in force."""

    encoder: Sequence[str]
    worker: Sequence[str]
    statistics: Sequence[str]
    environment: Callable[[Endpoints], Mapping[str, str]]
    make_topics: Callable[[Endpoints], None]
    workers_ready: Callable[[Endpoints, int], bool]


class Stack:
    """Starts what isn't given an address, in a data directory. A context manager: inside it, all is ready.

    Entering raises AlreadyRunning (the directory is in use), NothingListens, KafkaUnavailable,
    QdrantUnavailable, PortTaken, and ServiceFailed. Leaving drains everything, and raises ServiceFailed where something
    couldn't be kept running meanwhile. See `Supervisor` for what is guaranteed.
    """

    def __init__(
        self,
        data_dir: Path,
        programs: Programs,
        *,
        kafka: str | None = None,
        qdrant: str | None = None,
        encoder: str | None = None,
        workers: int = 1,
        report: Callable[[str], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._directory = DataDirectory(data_dir)
        self._programs = programs
        self._kafka = Kafka(self._directory.path / "kafka") if kafka is None else None
        self._qdrant = QdrantServer(self._directory.path / "qdrant") if qdrant is None else None
        self._given = Endpoints(kafka or "", qdrant or "", encoder or self._directory.encoder_address())
        self._workers = workers
        self._report = report
        self._policy = policy
        self._exit = ExitStack()
        self._supervisor: Supervisor | None = None
        self._stop_asked = 0
        self.endpoints = self._given

    @property
    def logs(self) -> Path:
        return self._directory.logs

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(self._directory.locked())
            self.endpoints = self._prepare()
            supervisor = Supervisor(
                self._stages(self.endpoints), logs=self.logs, report=self._report, policy=self._policy
            )
            self._supervisor = supervisor
            for _ in range(self._stop_asked):
                supervisor.ask_to_stop()
            entered.callback(supervisor.stop)
            supervisor.start()
            self._exit = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()
        if error is None:
            self.wait()

    def wait(self) -> None:
        """Return when all has been stopped, after `ask_to_stop`. Raises ServiceFailed when it stopped by itself."""
        if self._supervisor is not None:
            self._supervisor.wait()

    def ask_to_stop(self) -> None:
        """Drain; asked again, kill. Returns at once; callable from signal handlers, and before all is ready."""
        self._stop_asked += 1
        if self._supervisor is not None:
            self._supervisor.ask_to_stop()

    @property
    def stopping(self) -> bool:
        return self._stop_asked > 0

    def pids(self) -> dict[str, int]:
        """The process ids of what runs now: `kafka`, `qdrant`, `encoder`, `worker-1`, …, `statistics`."""
        return {} if self._supervisor is None else self._supervisor.pids()

    def _prepare(self) -> Endpoints:
        kafka, qdrant = self._given.kafka, self._given.qdrant
        if self._kafka is not None:
            self._kafka.prepare()
            kafka = self._kafka.bootstrap_servers
        elif not any(accepts_connections(server) for server in kafka.split(",")):
            raise NothingListens(f"Nothing listens at {kafka}, the address given for Kafka. Start it, or correct it.")
        if self._qdrant is not None:
            self._qdrant.prepare()
            qdrant = self._qdrant.address
        elif not accepts_connections(qdrant):
            raise NothingListens(f"Nothing listens at {qdrant}, the address given for Qdrant. Start it, or correct it.")
        return Endpoints(kafka, qdrant, self._given.encoder)

    def _stages(self, endpoints: Endpoints) -> list[Stage]:
        environment = self._programs.environment(endpoints)
        services: list[Service] = []
        if self._kafka is not None:
            services.append(Service("kafka", self._kafka.command, ready=self._kafka.answers))
        if self._qdrant is not None:
            services.append(
                Service("qdrant", self._qdrant.command, self._qdrant.environment, ready=self._qdrant.answers)
            )
        services.append(
            Service(
                "encoder",
                self._programs.encoder,
                environment,
                ready=lambda: accepts_connections(endpoints.encoder),
                drain_seconds=45.0,  # it gives the calls under way 30
            )
        )
        workers = [
            Service(
                f"worker-{number}",
                self._programs.worker,
                environment,
                ready=lambda: self._programs.workers_ready(endpoints, self._workers),
            )
            for number in range(1, self._workers + 1)
        ]
        statistics = Service("statistics", self._programs.statistics, environment, niceness=BEHIND_THE_OTHERS)
        return [Stage(services, then=lambda: self._programs.make_topics(endpoints)), Stage([*workers, statistics])]


def accepts_connections(address: str, timeout_seconds: float = 2.0) -> bool:
    """Whether something listens at `unix:///path` or `host:port`."""
    try:
        if address.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(timeout_seconds)
                probe.connect(address.removeprefix("unix://"))
        else:
            host, _, port = address.strip().rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout_seconds).close()
    except OSError:
        return False
    return True
