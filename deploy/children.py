"""A child process that can't outlive its parent, in a process group of its own, with its output in a log
file.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import tether

TAIL_BYTES = 16_384


class Child:
    """A started command; its output is appended to `log`.

    Its own session, so that the terminal's Ctrl-C doesn't reach it: the parent decides. On Linux it is killed
    when the *thread* that made it ends: make it in one that lasts as long as it should.

    Raises OSError when the log can't be opened. A command that can't be started ends at once, with the reason
    in the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        niceness: int = 0,
    ) -> None:
        """`niceness` is that of nice(1): above 0, it leaves the cores to whoever else wants them."""
        self.name = name
        self.log = log
        self._killed = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        if niceness > os.getpriority(os.PRIO_PROCESS, 0):  # less than one's own is for root to give
            with contextlib.suppress(ProcessLookupError):  # it has ended already, and says why
                os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of what this child has written, without blank lines."""
        with self.log.open("rb") as written:
            end = written.seek(0, os.SEEK_END)
            written.seek(max(self._log_start, end - TAIL_BYTES))
            text = written.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-count:]

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait()

    def terminate(self) -> None:
        """Ask it to drain and end (SIGTERM to it, not to what it started)."""
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to its whole group, and return when it is gone.

        Also for a child that has ended itself, and may have left others behind.
        """
        if not self._killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: zombies only, on macOS
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            self._killed = True

    def stop(self, timeout_seconds: float) -> bool:
        """Drain, then kill what is left after the deadline. False when it had to be killed."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        drained = self.exit_code is not None
        self.kill()
        return drained


def ends(exit_code: int) -> str:
    """How a process ended, in words: `exit code 1`, `killed by SIGKILL`."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def wait_until(deadline: float, pause_seconds: float = 0.05) -> bool:
    """Sleep a little; False once `deadline` (time.monotonic seconds) has passed."""
    time.sleep(pause_seconds)
    return time.monotonic() < deadline
