"""`afterglow replay`: a new generation from the topics, beside the live one, which then takes over."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from streams.commands.moments import Moment, shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.commands.stages import stages
from streams.settings import Profiles, Settings, changed

if TYPE_CHECKING:
    from streams.replay import Progress, Replayed


class Since(Moment):
    """A moment, or `earliest`: none."""

    name = "time|earliest"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return EARLIEST if value == "earliest" else super().convert(value, param, ctx)


EARLIEST = -1


@click.command("replay")
@click.option(
    "--from",
    "from_",
    type=Since(),
    default="earliest",
    show_default=True,
    help="Leave out searches and purchases produced before this time (of the records, not `ts`).",
)
@click.option(
    "--generation", "name", metavar="NAME", help="The generation to build, or to go on with.  [default: the next, g2 …]"
)
@click.option(
    "--set",
    "sets",
    metavar="NAME=VALUE",
    multiple=True,
    help="What its profiles are folded by, such as half_life.long=14d; else as now.",
)
@click.option("--model", metavar="MODEL", help="What its texts are encoded by: a folder, or a hub name; else as now.")
@click.option("--force", is_flag=True, help="Even by a --model that is worse than the one in service.")
@click.option("--activate/--no-activate", default=True, help="Whether readers are led to it when it is complete.")
@as_json
@with_settings
def command(
    settings: Settings,
    from_: int,
    name: str | None,
    sets: tuple[str, ...],
    model: str | None,
    force: bool,
    activate: bool,
    as_json: bool,
) -> None:
    """Fold the topics into a generation of their own, far faster than live, and let it take over.

    Live workers go on meanwhile, and readers see nothing of it until it is complete; then they are led to it, all at
    once, and live workers follow. Killed, the same command goes on where it was. Run it several times at once, and the
    processes share the work.

    What shapes a profile never changes within a generation: another half-life, weight or model is a replay. Roll back
    with `afterglow generations activate`.

    A --model is first compared with the one in service, on the newest 200,000 searches and purchases of the topics:
    what customers ordered and clicked last, predicted from what came before. One that is worse beyond doubt by any
    measure (docs/training.md) is refused, unless you insist with --force.
    """
    settings = changed(settings, dict(map(_setting, sets)))
    with ExitStack() as stack:
        if model is not None:
            from streams.commands.own_encoder import encoding_with

            candidate = stack.enter_context(encoding_with(settings, model))
            if not force:
                _require_no_worse(settings, candidate, model)
            settings = candidate
        report = stack.enter_context(_progress())
        from_ms = None if from_ == EARLIEST else from_
        replayed = asyncio.run(replay(settings, name, from_ms, report, activate=activate))
    if as_json:
        print_json(replayed)
    else:
        _print(replayed)


def _require_no_worse(settings: Settings, candidate: Settings, model: str) -> None:
    """Raises ClickException where the model is worse than the one in service; says what they are worth elsewhere."""
    from streams.commands.judging import ModelNotHere, described, in_service, judged
    from streams.rollout.judgement import in_words

    now = in_service(settings)
    if now is None or described(candidate).identity in now.begun:
        return  # there is nothing to be worse than; or it was judged when the replay that is gone on with began
    try:
        with stages() as report:
            judgement = judged(settings, candidate, now.generation, report)
    except ModelNotHere as error:
        raise click.ClickException(f"{error.message}, or insist (--force)") from error
    if judgement is None:
        return
    if judgement.worse:
        raise click.ClickException(
            f"{model} is worse than {now.generation.model.name}, which generation {now.generation.name} serves, at "
            f"what customers did since {shown(judgement.cut)} UTC. {'; '.join(map(in_words, judgement.worse))}. "
            "Nothing was changed. Train it on, or insist (--force)"
        )
    if not judgement.measures:
        click.echo("too little happened lately to compare it with the model in service", err=True)
    for measure in judgement.measures:
        click.echo(in_words(measure), err=True)


async def replay(
    settings: Settings,
    name: str | None,
    from_ms: int | None,
    report: Callable[[Progress], None],
    *,
    activate: bool,
    instead_of: str | None = None,
) -> Replayed:
    """By the settings, and by what the generation that readers see was made with where nobody has set anything else.

    Raises as `streams.opening.open_for_replay` and `streams.replay.Replay.run`.
    """
    from sinks.collections import read_generation
    from sinks.generations import served_generation
    from streams.garbage import collect_rarely, keep_freed_memory
    from streams.generations import connected, inherited
    from streams.opening import open_for_replay
    from streams.replay import Replay

    client = connected(settings)
    collect_rarely()
    keep_freed_memory()
    try:
        served = await served_generation(client)
        record = await read_generation(client, served) if served is not None else None
        if record is not None:
            settings = inherited(settings, record)
        opened = await open_for_replay(settings, client, name=name, from_ms=from_ms)
        try:
            building = Replay(settings, opened, client, activate=activate, instead_of=instead_of, report=report)
            return await building.run()
        finally:
            await opened.encoder.close()
    finally:
        await client.close()


def _setting(text: str) -> tuple[str, str]:
    """`half_life.long=14d` is the setting profiles.half_life_long."""
    name, separator, value = text.partition("=")
    field = name.strip().removeprefix("profiles.").replace(".", "_")
    if not separator:
        raise click.BadParameter(f"{text}: expected NAME=VALUE", param_hint="--set")
    if field not in Profiles.__struct_fields__:
        raise click.BadParameter(
            f"{name} does not shape a profile; what does: {', '.join(Profiles.__struct_fields__)}. What only shapes "
            "what is derived needs no replay: change the setting, and run `afterglow derive`",
            param_hint="--set",
        )
    return f"profiles.{field}", value.strip()


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with the time that is left on a terminal's standard error; elsewhere a line for each stage."""
    if not sys.stderr.isatty():
        told = set()

        def tell(progress: Progress) -> None:
            if progress.stage not in told:
                told.add(progress.stage)
                click.echo(f"{progress.stage}: {progress.done:,} of {progress.of:,}", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            for stage, task in tasks.items():
                if stage != progress.stage:  # it is over, however little of it was left
                    bar.update(task, completed=bar.tasks[task].total)
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=max(progress.of, 1))
            bar.update(tasks[progress.stage], completed=progress.done)

        yield show


def _print(replayed: Replayed) -> None:
    served = "readers see it now" if replayed.served else "readers don't see it: `afterglow generations activate`"
    click.secho(f"generation {replayed.generation} is complete; {served}", fg="green", bold=True)
    rate = replayed.events / max(replayed.seconds_folding, 1e-9)
    click.echo(
        f"{replayed.events:,} events folded in by this process, in {replayed.seconds_folding:,.1f} s ({rate:,.0f}/s); "
        f"{replayed.profiles_written:,} profiles written; {replayed.seconds:,.1f} s in all"
    )
    if replayed.dead_letters:
        click.echo(f"{replayed.dead_letters:,} records are no event (dead letters)")
    if replayed.behind:
        click.echo(f"{replayed.behind:,} records that came meanwhile are left to live workers")
