"""Files that are there whole or not at all, whatever kills the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` makes a file beside it, which then takes its place, on disk. Raises OSError; `path` is then as before."""
    beside = path.with_name(f"{path.name}.new")
    try:
        write(beside)
        to_disk(beside)
        beside.replace(path)
        to_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
