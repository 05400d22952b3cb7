"""`afterglow verify`: whether the stored profiles are what the log says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.verification.findings import Verdict
    from streams.verification.judge import Progress


@click.command("verify")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Judge only N users, chosen by hash: the same ones every time.  [default: all]",
)
@click.option(
    "--generation",
    metavar="NAME",
    help="Judge this one: another than readers see, or one that is still being replayed.  [default: what readers see]",
)
@click.option("--show-users", is_flag=True, help="Name users by their ids, not only by the ids of their points.")
@as_json
@with_settings
def command(settings: Settings, sample: int | None, generation: str | None, show_users: bool, as_json: bool) -> None:
    """Compare every stored profile with the events it comes from.

    Reads the topics from where the generation begins, as a member of no group, recomputes each profile by a second
    implementation, and compares counts, sums, history, weights, what is pending, and what readers see. Each profile is
    judged by the events up to its own offset, so it runs beside live workers. It changes nothing.

    Exit code 1 on any difference, and where there is nothing to judge by: a log whose beginning is gone
    (retention), no encoding worker, another model.

    Counted apart, and no difference, is what the log can't decide: a sum with a product whose text was changed after it
    was bought, as far as that can have moved it; interests of an earlier catalogue; what is left of a topic that was
    made anew. docs/guarantees.md says more.
    """
    from streams.generations import resolved
    from streams.verification.verification import verify

    if generation is not None:
        settings = msgspec.structs.replace(settings, generation=generation)
    with _progress() as report:
        verdict = verify(resolved(settings), sample=sample, report=report)
    if not show_users:
        unnamed = [msgspec.structs.replace(difference, user=None) for difference in verdict.differences]
        verdict = msgspec.structs.replace(verdict, differences=unnamed)
    if as_json:
        print_json(verdict)
    else:
        _print(verdict)
    if verdict.different:
        raise click.exceptions.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A line on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=max(progress.of, 1),
                completed=progress.records,
                description=f"{progress.records:,} events read, {progress.users:,} users judged",
            )

        yield report


def _print(verdict: Verdict) -> None:
    if verdict.different:
        click.secho(f"{verdict.different:,} of {verdict.users:,} users differ", fg="red", bold=True)
        worst = verdict.differences[0]
        click.echo(f"the worst: {worst.point}" + (f" (user {worst.user})" if worst.user is not None else ""))
        for what in worst.what[:20]:
            click.echo(f"  {what}")
        if len(worst.what) > 20:
            click.echo(f"  and {len(worst.what) - 20} things more")
        for other in verdict.differences[1:]:
            name = other.point if other.user is None else f"{other.point} (user {other.user})"
            click.echo(f"also {name}: {other.what[0]}")
    else:
        click.secho("no difference", fg="green", bold=True)
    click.echo()
    click.echo(f"generation  {verdict.generation}")
    click.echo(f"compared    {verdict.users:,} users, {verdict.events:,} events, in {verdict.seconds:,.1f} s")
    for reason, count in sorted(verdict.not_comparable.items()):
        click.echo(f"apart       {count:,}: {reason}")
    if verdict.not_understood:
        click.echo(f"apart       {verdict.not_understood:,} records that are no event (dead letters)")
