"""What verification finds, by user, and the verdict that it comes to."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

import msgspec

from streams.verification.comparison import Unexplained

LISTED: Final = 20
"""Users whose differences are told one by one, the worst first."""


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One user's profile that is not what the log says. `events` is by how many events it is off."""

    point: str
    events: int
    what: list[str]
    user: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared, and what came out. `differences` are the worst, `different` counts all of them.

    `not_comparable` counts, by reason, the ledgers of which a part can't be judged by the log.
    """

    generation: str
    users: int
    events: int
    different: int
    differences: list[Difference]
    not_comparable: dict[str, int]
    not_understood: int
    seconds: float


class Findings:
    """What was found, by the id of the user's point."""

    def __init__(self) -> None:
        self.differences: dict[str, list[str]] = defaultdict(list)
        self.events: Counter[str] = Counter()
        self.unexplained: dict[str, list[Unexplained]] = defaultdict(list)
        self.names: dict[str, str] = {}
        self.not_comparable: Counter[str] = Counter()
        self.waiting: dict[str, set[str]] = {}  # for products that are known, although nothing is due

    def add(self, point: str, what: str, events: int = 0) -> None:
        """A difference; by how many events the profile is off."""
        self.differences[point].append(what)
        self.events[point] += events

    def is_about(self, point: str) -> bool:
        return point in self.differences or point in self.unexplained or point in self.waiting

    def verdict(self, generation: str, *, users: int, events: int, not_understood: int, seconds: float) -> Verdict:
        """Of what was found by now, the worst first."""
        worst = sorted(self.differences, key=lambda point: (-self.events[point], -len(self.differences[point]), point))
        return Verdict(
            generation=generation,
            users=users,
            events=events,
            different=len(worst),
            differences=[
                Difference(
                    point=point, events=self.events[point], what=self.differences[point], user=self.names.get(point)
                )
                for point in worst[:LISTED]
            ],
            not_comparable=dict(self.not_comparable),
            not_understood=not_understood,
            seconds=seconds,
        )
