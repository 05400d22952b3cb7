"""Where trained models are kept, and what of a retraining survives a crash.

    models/20261128-201530/            a model: whole, since training makes it by one renaming
    models/20261128-201530.partial/    a training under way, which goes on from there
    models/task.json                   what the retraining under way is to do; absent: none is
    models/attempts.json               the newest trainings that were done, and what each came to
    models/last.json                   what the last retraining came to
    models/lock                        held while one is at work

Files are replaced whole. Nothing is deleted that a generation's record names, nor what somebody else put here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from encoders.locks import Held, locked
from encoders.training.pairs import Unwritable
from encoders.training.whole_files import replace_whole
from streams.rollout.attempts import Attempt, with_attempt
from streams.rollout.task import Outcome, Task

_T = TypeVar("_T")

_TASK: Final = "task.json"
_ATTEMPTS: Final = "attempts.json"
_LAST: Final = "last.json"
_LOCK: Final = "lock"
_MADE_HERE: Final = re.compile(r"\d{8}-\d{6}(\.partial)?")


class AtWork(RuntimeError):
    """Another retraining holds the folder."""


class ModelsFolder:
    """Safe for one process at a time: `held`. What can't be written raises Unwritable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises AtWork where another process holds it; a killed one holds nothing. OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / _LOCK))
            except Held:
                raise AtWork(f"another `afterglow retrain` is at work in {self.folder}: let it finish") from None
            yield

    def path(self, name: str) -> Path:
        return self.folder.resolve() / name

    def task(self) -> Task | None:
        """What is under way; None where nothing is, or another version wrote it."""
        return self._read(_TASK, Task)

    def begin(self, task: Task) -> None:
        self._write(_TASK, task)

    def attempts(self) -> list[Attempt]:
        """The newest last; none where another version wrote them."""
        return self._read(_ATTEMPTS, list[Attempt]) or []

    def last(self) -> Outcome | None:
        return self._read(_LAST, Outcome)

    def finish(self, outcome: Outcome, task: Task | None = None) -> None:
        """Nothing is under way any more; `task` was. What came of it first: it may be told twice, but is never lost."""
        if task is not None:
            self._write(_ATTEMPTS, with_attempt(self.attempts(), task, outcome))
        self._write(_LAST, outcome)
        (self.folder / _TASK).unlink(missing_ok=True)

    def abandon(self, task: Task) -> None:
        """It is given up. A model that it has made stays until `tidy`: a generation may need it."""
        (self.folder / _TASK).unlink(missing_ok=True)
        shutil.rmtree(self.path(f"{task.name}.partial"), ignore_errors=True)

    def holds(self, source: str) -> bool:
        """Whether a model's source is a folder that was made here."""
        path = Path(source)
        return bool(source) and path.resolve().parent == self.folder.resolve() and _is_made_here(path)

    def tidy(self, needed: Collection[str]) -> None:
        """Deletes what was made here but models of these sources, of the task under way, and of the newest attempt."""
        kept = {Path(source).name for source in needed if self.holds(source)}
        task, attempts = self.task(), self.attempts()
        if task is not None:
            kept |= {task.name, f"{task.name}.partial"}
        if attempts:
            kept.add(attempts[-1].task.name)
        for found in self.folder.iterdir():
            if found.is_dir() and _is_made_here(found) and found.name not in kept:
                shutil.rmtree(found, ignore_errors=True)

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        try:
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _write(self, name: str, content: object) -> None:
        written = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        path = self.folder / name
        try:
            replace_whole(path, lambda beside: beside.write_bytes(written))
        except OSError as error:
            raise Unwritable(path, error) from error


def _is_made_here(path: Path) -> bool:
    return _MADE_HERE.fullmatch(path.name) is not None
