"""The page of figures: a section for each part, replaced when that is measured anew; whatever else is in it stays."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.rows import Row, figure, machine

_SECTION: Final = re.compile(r"^## ", re.MULTILINE)
_HEAD: Final = (
    "| what | measured | held against | ratio | rounds | goal | floor | |",
    "|---|---:|---|---:|---|---:|---:|---|",
)


def with_section(page: str, part: str, what: str, rows: Sequence[Row], rounds: int) -> str:
    """`page`, as Markdown, with the section of this part as it was measured now: in its place, or at the end."""
    sections = _SECTION.split(page)
    mine = "\n".join(_section(part, what, rows, rounds))
    for number, section in enumerate(sections[1:], start=1):
        if section.partition("\n")[0] == part:
            sections[number] = mine
            break
    else:
        sections.append(mine)
    return "## ".join(section.rstrip() + "\n\n" for section in sections).rstrip() + "\n"


def _section(part: str, what: str, rows: Sequence[Row], rounds: int) -> Iterator[str]:
    times = "one round" if rounds == 1 else f"medians of {rounds} rounds, with the lowest and the highest"
    yield from (
        part,
        "",
        f"{what} Measured on {datetime.now(UTC):%Y-%m-%d} at {_commit()}, {times}, on {machine()}.",
        "",
    )
    notes: dict[str, list[str]] = {}
    yield from _HEAD
    for row in rows:
        bound = row.bound
        sign = "" if bound is None else "≥ " if bound.better == "higher" else "≤ "
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
        cells = [
            row.name + (f" [{list(notes).index(row.note) + 1}]" if row.note else ""),
            f"{figure(row.value)} {row.unit}",
            row.against,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.spread is None or rounds == 1 else f"{figure(row.spread[0])}–{figure(row.spread[1])}",
            "" if bound is None else f"{sign}{bound.goal:g}",
            "" if bound is None or bound.floor is None else f"{sign}{bound.floor:g}",
            _verdict(row),
        ]
        yield f"| {' | '.join(cells)} |"
    if notes:
        yield ""
        yield from (f"[{number}] {note}.  " for number, note in enumerate(notes, start=1))


def _verdict(row: Row) -> str:
    if row.bound is None:
        return ""
    return "met" if row.meets_goal else "**below the floor**" if row.below_floor else "not met"


def _commit() -> str:
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() or "a commit unknown"
