"""Loopback ports, chosen once and kept in the data directory, so that a restart has the same addresses."""

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the ports that Linux, macOS and Windows give to outgoing connections: one of those could take a kept
# port.
LOWEST, HIGHEST = 20_000, 32_000


class PortTaken(Exception):
    """A kept port is in use by somebody else."""


def kept_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """The port of each name, from `file`; free ones are chosen and written there where it doesn't exist yet.

    Raises PortTaken when a kept port is in use now: call it before the service starts.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(_free_ports(names)) + "\n")
        fresh.replace(file)
    ports: dict[str, int] = json.loads(file.read_text())
    for name in names:
        if not is_free(ports[name]):
            raise PortTaken(
                f"Port {ports[name]} ({name}, kept in {file}) is used by another process. "
                f"Stop that process, or set another port in {file}."
            )
    return ports


def is_free(port: int) -> bool:
    """Whether a service could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: not held up by TIME_WAIT
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    chosen: dict[str, int] = {}
    candidates = random.SystemRandom().sample(range(LOWEST, HIGHEST), 500)
    for name in names:
        chosen[name] = next(port for port in candidates if port not in chosen.values() and is_free(port))
    return chosen
