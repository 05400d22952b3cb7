"""Kafka, Qdrant, and an encoding worker as real processes, each to be killed, frozen and started by itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
from faults.proxy import Proxy

from deploy.children import Child, wait_until
from deploy.kafka import Kafka
from deploy.qdrant_server import QdrantServer
from encoders import protocol

TESTS: Final = Path(__file__).parents[1]
START_SECONDS: Final = 120.0


class Process:
    """A command that is started again and again, on the same addresses."""

    def __init__(
        self,
        name: str,
        command: Callable[[], list[str]],
        *,
        log: Path,
        environment: Callable[[], Mapping[str, str]] = dict,
        answers: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._answers = answers
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it; None while it runs."""
        return self._child.exit_code if self._child is not None else None

    def start(self) -> None:
        """Returns at once: see `wait`."""
        assert not self.runs, f"{self.name} runs already"
        self._child = Child(self.name, self._command(), log=self.log, environment=self._environment())

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.runs, f"{self.name} ended: {self.told()}"
            assert wait_until(deadline), f"{self.name} doesn't answer: {self.told()}"

    def wait_until_it_says(self, words: str, timeout_seconds: float = 60.0) -> None:
        """Until its log has these words, since its first start."""
        deadline = time.monotonic() + timeout_seconds
        while words not in self.log.read_text():
            assert self.runs, f"{self.name} ended: {self.told()}"
            assert wait_until(deadline), f"{self.name} doesn't say {words!r}: {self.told()}"

    def wait_for_end(self, timeout_seconds: float = 60.0) -> int:
        """Its exit code, negative for a signal."""
        assert self._child is not None
        deadline = time.monotonic() + timeout_seconds
        while (code := self._child.exit_code) is None:
            assert wait_until(deadline), f"{self.name} doesn't end: {self.told()}"
        return code

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(timeout_seconds=30)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def told(self) -> str:
        return "" if self._child is None else "\n".join(self._child.last_lines(40))


class Services:
    """Started, and answering. Workers reach Qdrant through the proxy, whoever judges them directly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "secret").write_text(os.urandom(32).hex() + "\n")
        self._kafka, self._qdrant = Kafka(folder / "kafka"), QdrantServer(folder / "qdrant")
        self._kafka.prepare()
        self._qdrant.prepare()
        self.encoder_address = f"unix://{folder}/encoder.sock"
        self.proxy = Proxy()
        self.kafka = Process(
            "kafka", lambda: self._kafka.command, log=folder / "kafka.log", answers=self._kafka.answers
        )
        self.qdrant = Process(
            "qdrant",
            lambda: self._qdrant.command,
            log=folder / "qdrant.log",
            environment=lambda: self._qdrant.environment,
            answers=self._qdrant.answers,
        )
        self.encoder = Process(
            "encoder",
            lambda: [sys.executable, "-P", "-m", "streams", "encoder"],
            log=folder / "encoder.log",
            environment=lambda: self.environment,
            answers=self._encodes,
        )

    @property
    def bootstrap_servers(self) -> str:
        return self._kafka.bootstrap_servers

    @property
    def qdrant_address(self) -> str:
        return self._qdrant.address

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "AFTERGLOW_QDRANT_ADDRESS": self.proxy.address,
            "AFTERGLOW_ENCODER_ADDRESS": self.encoder_address,
            "AFTERGLOW_SECRET_FILE": str(self.folder / "secret"),
            "AFTERGLOW_DATA_DIR": str(self.folder / "none"),
            "OPENBLAS_NUM_THREADS": "1",
        }

    @property
    def all(self) -> tuple[Process, ...]:
        return self.kafka, self.qdrant, self.encoder

    def heal(self) -> None:
        """Everything runs and answers again, the proxy passes all, and no late write is under way."""
        self.proxy.faults.clear()
        for process in self.all:
            if not process.runs:
                process.start()
        for process in self.all:
            process.wait()
        self.proxy.land_late_ones()

    def _encodes(self) -> bool:
        with grpc.insecure_channel(self.encoder_address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                channel.unary_unary(protocol.method(protocol.DESCRIBE))(b"", timeout=1)
            except grpc.RpcError:
                return False
        return True


@contextmanager
def running_services(folder: Path) -> Iterator[Services]:
    services = Services(folder)
    services.proxy.start(services.qdrant_address)
    try:
        services.heal()
        yield services
    finally:
        for process in services.all:
            process.kill()
        services.proxy.stop()
