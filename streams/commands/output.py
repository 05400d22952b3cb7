"""How commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec


def print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their content; numbers to the right. The last column isn't padded."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    numeric = [bool(rows) and all(isinstance(row[index], int) for row in rows) for index in range(len(titles))]
    click.secho(_line(titles, widths, numeric), bold=True)
    for row in cells:
        click.echo(_line(row, widths, numeric))


def tell_reading(read_as: str | None) -> None:
    """Beside the result, how the query was read where that isn't as it was typed."""
    if read_as is not None:
        click.secho(f"read as: {read_as}", dim=True, err=True)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "  ".join(padded).rstrip()
