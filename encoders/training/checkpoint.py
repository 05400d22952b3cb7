"""What a killed training goes on from, and that one at a time works on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from encoders.locks import Held, locked
from encoders.training.files import load_state, save_state
from encoders.training.model_card import Parent
from encoders.training.options import Options
from encoders.training.pairs import Examples, OtherTraining, TrainingError, Unwritable


class Checkpoint:
    """A file in the folder `partial`, of one training: the same parent, examples and options."""

    def __init__(self, partial: Path, fingerprint: str) -> None:
        """Raises OtherTraining where the file is of another training."""
        self._path = partial / "checkpoint.pt"
        self._fingerprint = fingerprint
        self._state = load_state(self._path)
        if self._state is not None and self._state["fingerprint"] != fingerprint:
            raise OtherTraining(partial)

    def state(self, seed: int) -> dict[str, Any] | None:
        """What was written last, where it was by the training of this seed."""
        return self._state if self._state is not None and self._state["seed"] == seed else None

    def finished(self) -> list[dict[str, Any]]:
        """Weights of the trainings of the seeds before, and what each found."""
        return [] if self._state is None else list(self._state["finished"])

    def write(self, seed: int, finished: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
        """Raises Unwritable; the file is then as it was."""
        with writing(self._path):
            save_state(
                self._path,
                {**state, "fingerprint": self._fingerprint, "seed": seed, "finished": [dict(one) for one in finished]},
            )

    def is_left(self) -> bool:
        """Whether this training was begun before, and did not end."""
        return self._state is not None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def fingerprint(examples: Examples, parent: Parent, options: Options, rewritten: Mapping[str, Sequence[str]]) -> str:
    """Of all that shapes a training."""
    digest = hashlib.sha256(msgspec.json.encode([parent, options]))
    for part in (sorted(examples.products.items()), examples.pairs, sorted(rewritten.items())):
        digest.update(msgspec.msgpack.encode(part))
    digest.update(str([len(probes) for probes in (examples.validation, examples.returning, examples.test)]).encode())
    return digest.hexdigest()


@contextmanager
def working_on(partial: Path, out: Path) -> Iterator[None]:
    """Makes the folder `partial`, and holds it alone; at the end it is gone where nothing is left in it.

    Raises TrainingError where another process holds it; who is killed holds nothing.
    """
    lock = partial / "lock"
    with writing(partial):
        partial.mkdir(parents=True, exist_ok=True)
    try:
        with locked(lock):
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()
                    partial.rmdir()
    except Held:
        raise TrainingError(
            f"another training is making {out}: let it finish, or give another --out ({lock} is held)"
        ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError is raised as Unwritable."""
    try:
        yield
    except OSError as error:
        raise Unwritable(path, error) from error
