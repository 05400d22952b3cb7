"""What was refused and why, counted by kind, in bounded memory."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from streams.events import InvalidEvent

MAX_KINDS: Final = 50
_PARTICULARS: Final = re.compile(r"0x\w+|'[^']*'|\"[^\"]*\"|\d[\d.:TZ-]*")


class Refusal(msgspec.Struct, kw_only=True):
    """One kind of refusal: how many, and the first of them as an example."""

    field: str
    reason: str
    count: int
    example: str


class Refusals:
    """Counts refusals whose field and reason are the same but for numbers and quoted texts as one kind.

    Kinds beyond the first 50 are counted together, as one.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], Refusal] = {}
        self.count = 0

    def add(self, error: InvalidEvent, where: str) -> None:
        """Count one; `where` is what a reader finds it by: file and line, or topic, partition and offset."""
        self.count += 1
        kind = error.field, _PARTICULARS.sub("…", error.reason)
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = "", ""
        if (known := self._kinds.get(kind)) is not None:
            known.count += 1
        else:
            reason = error.reason if kind[0] else f"other reasons, first: {error}"
            self._kinds[kind] = Refusal(field=kind[0], reason=reason, count=1, example=where)

    def listed(self) -> list[Refusal]:
        """The kinds, the most frequent first."""
        return sorted(self._kinds.values(), key=lambda refusal: -refusal.count)
