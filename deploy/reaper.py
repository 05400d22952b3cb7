"""The process that outlives a killed `up` by a moment, to kill what it left: whole process groups.

For any POSIX system. It reads one line a child from a pipe whose only writer is the supervisor: `+PGID` when
a child starts, `-PGID` when the child and its group are gone. When the writer is gone, however it ended, what
is still listed gets SIGKILL. A group that starts between its birth and its line is covered by `deploy.tether`
alone, on Linux.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import IO


def reap(lines: Iterable[bytes]) -> None:
    """Follow `lines` to their end, then kill every process group still listed."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


class Reaper:
    """Owns the reaper process. `close` (or the owner's death) makes it kill what is listed, and end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._pipe: IO[bytes] = self._process.stdin

    def watch(self, group: int) -> None:
        self._tell(b"+%d\n" % group)

    def forget(self, group: int) -> None:
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        self._process.wait()

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: the tether is still there
            self._pipe.write(line)
            self._pipe.flush()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reap(sys.stdin.buffer)
