"""Where a running `afterglow up` listens: a file in its data directory, by which other commands find it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` writes once everything listens, and removes when it stops."""

    pid: int
    kafka: str
    qdrant: str
    encoder: str
    secret_file: str


def addresses_file(data_dir: Path) -> Path:
    return data_dir / "addresses.json"


def write_addresses(data_dir: Path, addresses: Addresses) -> None:
    """Publish the addresses: a reader sees the whole file, or the one before."""
    file = addresses_file(data_dir)
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(addresses)) + b"\n")
    draft.replace(file)


def read_addresses(data_dir: Path) -> Addresses | None:
    """The running `up` of this data directory; None where there is none, or only what a killed one left.

    Raises `ValueError`, naming the file, where it can't be understood.
    """
    file = addresses_file(data_dir)
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Addresses)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} can't be understood ({error}); remove it and start `afterglow up` again") from None
    return found if _runs(found.pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
