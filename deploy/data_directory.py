"""What `afterglow up` keeps in its data directory besides the services' data: a lock, the secret, a socket,
the logs.
"""

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET_BYTES = 32
LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes on Linux, 104 on macOS


class AlreadyRunning(Exception):
    """Another `up` works on this data directory."""


class DataDirectory:
    """The directory is made, for its owner only, where it doesn't exist."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = self.path / "logs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; the system lets go of it when this process ends, however that is.

        Raises AlreadyRunning.
        """
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise AlreadyRunning(
                    f"{self.path} is in use by an `afterglow up` with pid {lock.read().strip() or 'unknown'}. "
                    "Stop that one, or choose another --data-dir."
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def encoder_address(self) -> str:
        """`unix://` address of the encoding worker's socket.

        In the directory; where that path is too long for a socket, in a folder of this user's among the
        temporary files. Raises PermissionError when somebody else's is there.
        """
        socket = self.path / "encoder.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"afterglow-{os.getuid()}-{digest}"
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
                raise PermissionError(f"{folder} is open to other users: choose a shorter --data-dir.")
            socket = folder / socket.name
        return f"unix://{socket}"


def ensure_secret(file: Path) -> None:
    """Make the HMAC secret where there is none: 32 random bytes, as hex, readable by its owner only.

    No point can be found again without it: it is whole and on the disk before this returns, and never
    replaced.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as written:
            written.write(secrets.token_hex(SECRET_BYTES) + "\n")
            written.flush()
            os.fsync(written.fileno())
        os.link(fresh, file)  # unlike a rename, never over one that somebody else has just made
    except FileExistsError:
        pass
    finally:
        Path(fresh).unlink()
