"""`afterglow generations`: which there are, which one readers see, letting them see another one, and dropping one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from streams.commands.moments import shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from sinks.collections import Generation
    from streams.inventory import Inventory, Listed
    from streams.succession import Activated, CatchingUp


@click.group("generations", invoke_without_command=True)
@as_json
@with_settings
@click.pass_context
def command(ctx: click.Context, /, settings: Settings, *, as_json: bool) -> None:
    """List the generations; let readers see another one; drop one.

    A generation is all profiles and products as one model, and one set of half-lives and weights, made them.
    `afterglow replay` makes another one.
    """
    if ctx.invoked_subcommand is None:
        _list(settings, as_json=as_json)
    given = {name: value for name, value in ctx.params.items() if value}
    ctx.default_map = dict.fromkeys(("list", "activate", "drop"), given)  # what is given here counts there


@command.command("list")
@as_json
@with_settings
def list_(settings: Settings, as_json: bool) -> None:
    """Show every generation: whether readers see it, how it was made, what it holds, and what its group misses."""
    _list(settings, as_json=as_json)


@command.command("activate")
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if the replay that began it has not completed it.")
@click.option("--wait/--no-wait", default=True, help="Return when live workers have caught up what it misses.")
@as_json
@with_settings
def activate(settings: Settings, name: str, force: bool, wait: bool, as_json: bool) -> None:
    """Let readers see the generation NAME: at once, all of it.

    Live workers follow within seconds and go on in its group, which catches up what came in while another one was
    seen. So this is also the way back from a generation that disappoints.
    """
    activated, generation = asyncio.run(_activate(settings, name, force=force))
    if not as_json:
        _tell(activated)
    caught_up = activated.missing == 0
    if wait and activated.missing and activated.workers:
        from streams.succession import catch_up

        with _progress() as report:
            catch_up(settings, generation, report)
        caught_up = True
        if not as_json:
            click.echo("its workers have caught up")
    if as_json:
        print_json({**msgspec.structs.asdict(activated), "caught_up": caught_up})


@command.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@as_json
@with_settings
def drop(settings: Settings, name: str, yes: bool, as_json: bool) -> None:
    """Delete the generation NAME: its profiles, its products, and the offsets of its group.

    Refused for the one that readers see, and while somebody is in its group. Nothing brings it back but a replay.
    """
    asyncio.run(_drop(settings, name, asked=not yes))
    if as_json:
        print_json({"dropped": name})
    else:
        click.secho(f"generation {name} is dropped", fg="green", bold=True)


def _list(settings: Settings, *, as_json: bool) -> None:
    inventory = asyncio.run(_look(settings))
    if as_json:
        print_json(inventory)
    else:
        _print(inventory)


async def _look(settings: Settings) -> Inventory:
    from streams.existing import asked
    from streams.inventory import look

    async with asked(settings) as client:
        return await look(settings, client)


async def _activate(settings: Settings, name: str, *, force: bool) -> tuple[Activated, Generation]:
    from streams.existing import asked, open_existing
    from streams.succession import activate

    async with asked(settings) as client:
        activated = await activate(settings, client, name, force=force)
        return activated, (await open_existing(settings, client, name)).generation


async def _drop(settings: Settings, name: str, *, asked: bool) -> None:
    from streams import existing
    from streams.succession import drop, require_unused

    async with existing.asked(settings) as client:
        if asked:
            await require_unused(settings, client, name)
            if not sys.stdin.isatty():
                raise click.UsageError(f"dropping {name} deletes it for good, and nobody can be asked here: give --yes")
            click.confirm(f"Delete all profiles and products of generation {name}, for good?", abort=True, err=True)
        await drop(settings, client, name)


def _print(inventory: Inventory) -> None:
    if not inventory.generations:
        click.echo("there is no generation yet: a worker makes the first one")
        return
    print_table(
        ["", "NAME", "STATE", "MODEL", "MADE", "FROM", "PROFILES", "PRODUCTS", "LAG", "MEMBERS"],
        [
            [
                "*" if one.served else "",
                one.name,
                _state(one),
                one.model,
                shown(one.created_at),
                "earliest" if one.from_ms is None else shown(one.from_ms),
                one.profiles,
                one.products,
                "?" if one.lag is None else f"{one.lag:,}",
                _members(one),
            ]
            for one in inventory.generations
        ],
    )
    served = next((one.name for one in inventory.generations if one.served), None)
    for one in inventory.generations:
        for field, value in one.differs.items():
            click.echo(f"{one.name}: {field} = {value.here} ({served}: {value.served})")
    if served is None:
        click.echo("readers see none of them")
    if inventory.kafka is not None:
        click.echo(f"lag and members are not known: {inventory.kafka}", err=True)


def _state(one: Listed) -> str:
    if not one.replayed:
        return "live"
    return "replayed" if one.built_at is not None else "building"


def _members(one: Listed) -> str:
    if one.who is None or one.members is None:
        return "?"
    return {
        "nobody": "nobody",
        "workers": f"{one.members:,} worker{'s' * (one.members > 1)}",
        "replay": "a replay" if one.members == 1 else f"a replay of {one.members:,} processes",
        "joining": f"{one.members:,} joining",
    }[one.who]


def _tell(activated: Activated) -> None:
    before = "" if activated.before is None else f" (before: {activated.before})"
    if activated.before == activated.generation:
        before = ", as before"
    click.secho(f"readers see generation {activated.generation} now{before}", fg="green", bold=True)
    if activated.missing is None:
        click.echo("Kafka does not answer: what the generation misses is not known; live workers catch it up")
    elif not activated.missing:
        click.echo("it misses nothing")
    elif activated.workers:
        click.echo(f"it misses {activated.missing:,} events: live workers catch them up")
    else:
        click.echo(f"it misses {activated.missing:,} events, and no live worker is there to catch them up: start one")


@contextmanager
def _progress() -> Iterator[Callable[[CatchingUp], None]]:
    """A bar with the time that is left on a terminal's standard error; elsewhere a line when that changes much."""
    if not sys.stderr.isatty():
        told = {"left": 0, "workers": -1}

        def tell(now: CatchingUp) -> None:
            if now.workers != told["workers"] or now.left < told["left"] / 2:
                told.update(left=now.left, workers=now.workers)
                click.echo(f"{now.left:,} of {now.of:,} left; {_coming(now)}", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TextColumn("ETA"), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda now: bar.update(task, completed=now.of - now.left, total=max(now.of, 1), description=_coming(now))


def _coming(now: CatchingUp) -> str:
    if not now.workers:
        return "live workers are coming over"
    return f"{now.workers:,} worker{'s' * (now.workers > 1)} at it"
