"""Qdrant on one machine, as a child process on loopback ports, its data in a directory.

A `qdrant` binary where `AFTERGLOW_QDRANT_BIN` or the PATH has one, else our own service over Qdrant's engine
(`deploy.qdrant`). The two store differently, so each has a folder of its own: what one has stored, the other
doesn't see.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc

from deploy.ports import LOOPBACK, kept_ports

_KEEPING_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20)}
"""Lets glibc keep the memory of one request for the next: a tenth of the embedded service's CPU went into giving it
back to the kernel and taking it anew."""


class QdrantUnavailable(Exception):
    """Qdrant can't be started; the message says what to do."""


def find_binary() -> Path | None:
    """The Qdrant server to run: `AFTERGLOW_QDRANT_BIN`, else the PATH's `qdrant`, else None (the embedded
    service).

    Raises QdrantUnavailable when the variable names something that can't be run.
    """
    named = os.environ.get("AFTERGLOW_QDRANT_BIN")
    found = shutil.which(named or "qdrant")
    if named and not found:
        raise QdrantUnavailable(f"AFTERGLOW_QDRANT_BIN={named} is no program that can be run. Correct it, or unset it.")
    return Path(found).absolute() if found else None


class QdrantServer:
    """One Qdrant whose data and ports live in `directory`: `prepare`, run `command` as a child, wait until it
    `answers`.
    """

    def __init__(self, directory: Path) -> None:
        self.binary = find_binary()
        self.directory = directory.absolute()
        self._storage = self.directory / ("server" if self.binary else "embedded")
        self._ports: dict[str, int] = {}

    def prepare(self) -> None:
        """Choose the ports and make the directories. Raises PortTaken."""
        self._ports = kept_ports(self.directory / "ports.json", ["grpc", "http"])
        self._storage.mkdir(exist_ok=True)

    @property
    def address(self) -> str:
        """host:port of its gRPC service."""
        return f"{LOOPBACK}:{self._ports['grpc']}"

    @property
    def command(self) -> list[str]:
        if self.binary:
            return [str(self.binary)]
        port = str(self._ports["grpc"])
        # -P: a folder `deploy` where we were started is not ours.
        return [sys.executable, "-P", "-m", "deploy.qdrant", "--data-dir", str(self._storage), "--port", port]

    @property
    def environment(self) -> Mapping[str, str]:
        if not self.binary:
            return _KEEPING_MEMORY
        return {
            "QDRANT__SERVICE__HOST": LOOPBACK,
            "QDRANT__SERVICE__GRPC_PORT": str(self._ports["grpc"]),
            "QDRANT__SERVICE__HTTP_PORT": str(self._ports["http"]),
            "QDRANT__STORAGE__STORAGE_PATH": str(self._storage / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self._storage / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }

    def answers(self, timeout_seconds: float = 1.0) -> bool:
        """Whether its gRPC service answers a health check now."""
        return answers(self.address, timeout_seconds)


def answers(address: str, timeout_seconds: float = 1.0) -> bool:
    """Whether a Qdrant without TLS answers a health check at this address (host:port of gRPC) within the time."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # no back-off left by an earlier probe
    with grpc.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary("/qdrant.Qdrant/HealthCheck")
        try:
            check(b"", timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return True
