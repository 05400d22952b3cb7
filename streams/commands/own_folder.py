"""A folder among the temporary files for one command, and for no longer than its process lives."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from encoders.locks import Held, locked

_PREFIX: Final = "afterglow-own-"
_LOCK: Final = "lock"


@contextmanager
def own_folder() -> Iterator[Path]:
    """Deleted in the end; what a killed process left is deleted by the next one that comes here.

    Its path is short enough for a socket.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(Held, OSError):  # in use, just being made, or another user's
            if (left / _LOCK).exists():
                with locked(left / _LOCK):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with locked(folder / "new"):
            (folder / "new").rename(folder / _LOCK)  # nobody finds it and can take it
            yield folder
