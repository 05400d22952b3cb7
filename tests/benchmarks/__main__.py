"""`afterglow bench`, or `PYTHONPATH=tests python -m benchmarks`: measures parts of Afterglow, and prints one table."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
from benchmarks.page import with_section
from benchmarks.rows import DATA, NotHere, Options, Row, figure, machine

PARTS: Final = {
    "encoder": "Texts a second, beside sentence-transformers; a Zipf stream through the socket; a GPU.",
    "worker": "A live worker beside the encoder alone, and a plain consumer; CPU an event; two workers.",
    "freshness": "From produced to readable in Qdrant.",
    "writes": "A profile written, beside a bare upsert; bytes stored.",
    "candidates": "Candidates refreshed, by the size of the catalogue.",
    "recommender": "Reads by id and by query, beside bare Qdrant.",
    "memory": "A worker's memory over a million events.",
    "growth": "Cost an event by users, catalogue and history.",
    "pressure": "A slow Qdrant, a slow encoder, a burst: memory bounded, nothing lost.",
    "replay": "A replay beside a live worker, by the size of the log and events a profile.",
}


def measured(part: str, options: Options) -> Iterator[Row]:
    """Rows as they come. A part that can't be measured here says so on standard error."""
    measure: Callable[[Options], Iterator[Row]] = importlib.import_module(f"benchmarks.{part}").measure
    try:
        yield from measure(options)
    except NotHere as reason:
        click.echo(f"{part}: {reason}", err=True)


def line(row: Row) -> str:
    told = [f"{row.name:<44}", f"{figure(row.value):>9} {row.unit:<12}"]
    if row.ratio is not None:
        told.append(f"x{row.ratio:<6.2f} {row.against}")
    if row.bound is not None:
        sign = "≥" if row.bound.better == "higher" else "≤"
        verdict = "goal met" if row.meets_goal else "BELOW THE FLOOR" if row.below_floor else "below the goal"
        floor = "" if row.bound.floor is None else f", floor {row.bound.floor:g}"
        told.append(f"[{sign} {row.bound.goal:g}{floor}: {verdict}]")
    if row.spread is not None:
        told.append(f"({figure(row.spread[0])} to {figure(row.spread[1])})")
    if row.note:
        told.append(row.note)
    return " ".join(told)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often each side is measured.")
@click.option("--quick", is_flag=True, help="A tenth of the work, once: to see that it runs.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), default=DATA, help="The folder of real data.")
@click.option(
    "--page",
    "page_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A page of Markdown whose sections of these parts are made anew.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line a row.")
def main(parts: tuple[str, ...], rounds: int, quick: bool, data: Path, page_file: Path | None, as_json: bool) -> None:
    """Measure PARTs, by default all. Exits 1 where a figure is below its floor."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in workers; read when a part imports numpy
    options = Options(rounds=1 if quick else rounds, quick=quick, data=data)
    below_floor = False
    for part in parts or PARTS:
        rows = []
        for row in measured(part, options):
            rows.append(row)
            below_floor |= bool(row.below_floor)
            click.echo(json.dumps(row.as_json(machine())) if as_json else line(row))
        if page_file is not None and rows:
            before = page_file.read_text() if page_file.exists() else "# Performance\n"
            page_file.write_text(with_section(before, part, PARTS[part], rows, options.rounds))
    sys.exit(1 if below_floor else 0)


main.help = f"{main.help}\n\n\b\nParts:\n" + "\n".join(f"  {part:<12} {what}" for part, what in PARTS.items())

if __name__ == "__main__":
    main(prog_name="afterglow bench")
