"""How far a command of several stages is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Shows what a long command is doing, and how much of how much of it is done.

    A bar with the time that is left on a terminal's standard error; elsewhere a line for each thing that begins.
    """
    if not sys.stderr.isatty():
        told = ""

        def tell(what: str, _: int, __: int) -> None:
            nonlocal told
            if what != told:
                told = what
                click.echo(what, err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=max(of, 1))
