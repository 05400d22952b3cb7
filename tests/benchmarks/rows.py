"""What a benchmark tells: one row for each thing measured, with the goal it is held against."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

DATA: Final = Path(os.environ.get("AFTERGLOW_DATA", Path(__file__).parents[3] / "shared" / "data"))


class Bound(msgspec.Struct, frozen=True):
    """What is asked of a row: of its ratio, where it has one, else of its value. A `floor` of None is none."""

    goal: float
    floor: float | None
    better: Literal["higher", "lower"] = "higher"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`value` is the median of the rounds; `spread` the lowest and the highest of what is bounded.

    `ratio` is to what it is held against, measured in turn in the same run.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    against: str = ""
    ratio: float | None = None
    bound: Bound | None = None
    note: str = ""

    @property
    def judged(self) -> float:
        return self.value if self.ratio is None else self.ratio

    @property
    def meets_goal(self) -> bool | None:
        return None if self.bound is None else self._reaches(self.bound.goal)

    @property
    def below_floor(self) -> bool | None:
        return None if self.bound is None or self.bound.floor is None else not self._reaches(self.bound.floor)

    def as_json(self, machine: str) -> dict[str, Any]:
        bound = self.bound
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "spread": self.spread,
            "against": self.against,
            "ratio": self.ratio,
            "goal": bound and bound.goal,
            "floor": bound and bound.floor,
            "better": bound and bound.better,
            "meets_goal": self.meets_goal,
            "below_floor": self.below_floor,
            "note": self.note,
            "machine": machine,
        }

    def _reaches(self, bound: float) -> bool:
        assert self.bound is not None
        return self.judged >= bound if self.bound.better == "higher" else self.judged <= bound


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`quick` measures a tenth, once: to see that it works, not to believe the figures."""

    rounds: int = 3
    quick: bool = False
    data: Path = DATA

    def scaled(self, number: int) -> int:
        return max(1, number // 10) if self.quick else number


class NotHere(Exception):
    """A part that can't be measured on this machine; the text says why."""


def side_by_side(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The ratio of two medians, and the lowest and highest of the rounds' own ratios. Both in rounds, in turn."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ours) / statistics.median(theirs), (min(ratios), max(ratios))


def figure(value: float) -> str:
    """Three digits of it, or all of a larger one's whole ones."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """This machine, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} cores of {_processor()}, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    return next((line for line in _cpuinfo() if line), platform.machine())


def _cpuinfo() -> Iterator[str]:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(":")[2].strip()
