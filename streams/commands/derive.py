"""`afterglow derive`: what readers see, derived anew from what is stored."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.rederivation import Derived


@click.command("derive")
@click.option(
    "--statistics", is_flag=True, help="Only have the statistics across users made anew, from the topics' beginning."
)
@as_json
@with_settings
def command(settings: Settings, statistics: bool, as_json: bool) -> None:
    """Derive every profile anew after a change of the settings `derivation`: no replay, no Kafka.

    Interests, vectors and candidates of the generation in force are made by the settings of this command; what is
    stored of the events stays as it is. Live workers go on meanwhile, by the settings that they were started with:
    start them again with the new ones first, or they bring back the old for whoever does something. Interrupted, run
    it again.

    With --statistics, `afterglow statistics` reads all events once more; readers keep the old ones until the first new
    ones are there, within seconds, and see those grow.
    """
    if statistics:
        _make_statistics_anew(settings, as_json)
        return
    logging.getLogger("sinks.retry").setLevel(logging.WARNING)  # it waits for Qdrant, and has to say so
    with _progress() as report:
        derived = asyncio.run(_derive(settings, report))
    if as_json:
        print_json(derived)
    else:
        rate = derived.profiles / max(derived.seconds, 1e-9)
        click.secho(
            f"{derived.profiles:,} profiles of generation {derived.generation} are derived anew", fg="green", bold=True
        )
        click.echo(
            f"in {derived.seconds:,.1f} s ({rate:,.0f}/s); {derived.redone:,} again, since they were written meanwhile"
        )


async def _derive(settings: Settings, report: Callable[[int, int], None]) -> Derived:
    from streams.existing import asked, open_existing
    from streams.rederivation import derive_all

    async with asked(settings) as client:
        return await derive_all(await open_existing(settings, client), client, report)


def _make_statistics_anew(settings: Settings, as_json: bool) -> None:
    from streams.existing import asked
    from streams.generations import generation_in_force
    from streams.statistics.renewal import make_anew

    async def ask() -> tuple[str, bool]:
        async with asked(settings) as client:
            name = await generation_in_force(settings, client)
            return name, await make_anew(client, name, replicated=settings.qdrant.replication_factor > 1)

    name, begun = asyncio.run(ask())
    if not begun:
        raise click.ClickException(f"generation {name} has no statistics: `afterglow statistics` keeps them")
    if as_json:
        print_json({"generation": name, "begun": True})
    else:
        click.echo(
            f"the statistics of generation {name} are being made anew; `afterglow status` shows how far they are"
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("deriving", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=max(of, 1))
