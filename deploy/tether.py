"""Tie a command's life to its parent's: `python tether.py PARENT_PID COMMAND [ARGUMENT…]`.

On Linux the kernel is asked to send SIGKILL to this process when the thread that started it ends (prctl's
PR_SET_PDEATHSIG), then the command takes this process's place: same pid, the request stays. Processes that
the command starts itself don't inherit the request: `deploy.reaper` covers those, and systems other than
Linux.

Imports nothing of the project, so that it starts in milliseconds (`python -I -S tether.py`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:  # it died before the request was made: no signal will come
            sys.exit(f"the parent {parent} is gone: {command[0]} is not started")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} can't be started: {error.strerror}")


if __name__ == "__main__":
    main()
