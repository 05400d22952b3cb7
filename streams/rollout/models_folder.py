"""Where trained models are kept, and what of a retraining survives a crash.

    models/20261128-201530/            a model: whole, since training makes it by one renaming
    models/20261128-201530.partial/    a training under way, which goes on from there
    models/task.json                   what the retraining under way is to do; absent: none is
    models/last.json                   what the last one came to
    models/lock                        held while one is at work

Files are replaced whole. Nothing here is deleted that a generation's record names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from encoders.locks import Held, locked
from streams.rollout.drift import Drift
from streams.rollout.judgement import Judgement
from streams.training.topics import Extent

_T = TypeVar("_T")

_TASK: Final = "task.json"
_LAST: Final = "last.json"
_LOCK: Final = "lock"


class AtWork(RuntimeError):
    """Another retraining holds the folder."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A retraining that was decided on. The same task does the same again: a killed one goes on by it."""

    name: str  # of the model's folder
    began_at: int  # ms
    generation: str  # that readers saw when it began
    parent: str  # identity of its model
    why: list[str]
    drift: Drift
    extent: Extent  # of the topics: what is learned from, and judged by
    cut: int  # event time, ms: what happened from then on is not learned from, and judged by
    validation_from: int  # event time, ms: what happened from then until the cut tells when to stop
    options: dict[str, str | int | float | bool]  # of the training


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a retraining came to."""

    outcome: str  # "rolled out", "kept", "refused", "too little" or "failed"
    at: int  # ms
    why: str
    generation: str  # that readers see now
    model: str | None = None  # the folder of the new one
    drift: Drift | None = None
    judgement: Judgement | None = None
    dropped: list[str] = []  # generations
    seconds: float = 0.0


class ModelsFolder:
    """Safe for one process at a time: `held`."""

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

    def last(self) -> Outcome | None:
        return self._read(_LAST, Outcome)

    def finish(self, outcome: Outcome) -> None:
        """Nothing is under way any more. The outcome first: it may be told twice, but is never lost."""
        self._write(_LAST, outcome)
        (self.folder / _TASK).unlink(missing_ok=True)

    def abandon(self, task: Task) -> None:
        """It is given up. A model that it has made stays until `tidy`: a generation may need it."""
        (self.folder / _TASK).unlink(missing_ok=True)
        shutil.rmtree(self.path(f"{task.name}.partial"), ignore_errors=True)

    def holds(self, source: str) -> bool:
        """Whether a model's source is a folder in here."""
        return bool(source) and Path(source).resolve().parent == self.folder.resolve()

    def tidy(self, needed: Collection[str]) -> None:
        """Deletes models but those of these sources, of the task under way, and of the last outcome."""
        kept = {Path(source).name for source in needed if self.holds(source)}
        task, last = self.task(), self.last()
        if task is not None:
            kept |= {task.name, f"{task.name}.partial"}
        if last is not None and last.model is not None:
            kept.add(Path(last.model).name)
        for found in self.folder.iterdir():
            if found.is_dir() and found.name not in kept:
                shutil.rmtree(found, ignore_errors=True)

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        try:
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _write(self, name: str, content: msgspec.Struct) -> None:
        beside = self.folder / f"{name}.new"
        try:
            with beside.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.folder / name)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
