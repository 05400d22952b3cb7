"""`afterglow retrain`: keeps the model the shop's own, once or again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click
import msgspec

from streams.commands.options import as_json, with_settings
from streams.commands.stages import stages
from streams.commands.tuning import Tune
from streams.settings import Duration, Settings

if TYPE_CHECKING:
    from streams.commands.deciding import Asked
    from streams.rollout.models_folder import ModelsFolder
    from streams.rollout.task import Outcome

_AGAIN_SECONDS: Final = 3600.0
"""With --every: after a run that failed the next one comes no later than this."""

_COLOURS: Final = {"rolled out": "green", "refused": "yellow", "failed": "red"}


class Interval(click.ParamType):
    """A duration of at least a minute, in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = Duration.parse(value).seconds
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if seconds < 60:
            self.fail(f"{value!r} is less than a minute", param, ctx)
        return seconds


@click.command("retrain")
@click.option("--every", type=Interval(), help="Again and again, such as 7d; else once.")
@click.option(
    "--force",
    is_flag=True,
    help="Even if nothing has drifted, or hardly anything is new; a worse model is refused all the same.",
)
@click.option("--tune", type=Tune(), help="As in `afterglow train`, like the next four.")
@click.option("--steps", type=click.IntRange(min=1))
@click.option("--batch", type=click.IntRange(min=2))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@click.option("--seed", type=click.IntRange(min=0))
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Of training, on a CPU.  [default: every core]")
@as_json
@with_settings
def command(
    settings: Settings,
    /,
    every: float | None,
    force: bool,
    threads: int,
    as_json: bool,
    **options: str | int | float | None,
) -> None:
    """Train the model anew where the shop has moved away from it, and let readers see what comes of it.

    Looks for drift: words that the model never saw, queries that match badly, recall that fell (the settings
    `retraining`). Where there is some, mines pairs from the topics, trains the model in service on, and lets both
    predict the newest window. A model that is better, and worse in nothing, is replayed into a new generation, which
    readers are led to; of those before the newest `retraining.keep` stay, for `afterglow generations activate`. Models
    are kept in the folder `models` of the data directory.

    Whatever comes of a training, another one is done when enough of what it read is new (`retraining.new_events`), or
    with other options.

    One line says what was done and why; with --json it is JSON. Killed at any moment, the next run goes on. Only one
    works at a time. With --every, a run that fails says so, and the next one comes after an hour at the latest.
    """
    from streams.commands.deciding import Asked
    from streams.rollout.models_folder import ModelsFolder

    models = ModelsFolder(settings.data_dir / "models")
    asked = Asked(force, threads, {name: value for name, value in options.items() if value is not None})
    if every is None:
        _tell(_run(settings, models, asked), as_json=as_json)
        return
    _wait(_due_in(models, every))
    while True:
        try:
            outcome = _run(settings, models, asked)
        except Exception as error:
            outcome = _failed(error)
        _tell(outcome, as_json=as_json)
        _wait(min(every, _AGAIN_SECONDS) if outcome.outcome == "failed" else every)


def _run(settings: Settings, models: ModelsFolder, asked: Asked) -> Outcome:
    from streams.commands.retraining import retrain

    with models.held(), stages() as report:
        return retrain(settings, models, asked, report)


def _failed(error: Exception) -> Outcome:
    from streams.rollout.task import outcome_of

    told = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return outcome_of("failed", f"{type(error).__name__}: {told}", "")


def _due_in(models: ModelsFolder, every: float) -> float:
    """Seconds until the next run: at once where one is under way, or was never done."""
    last = models.last()
    if last is None or models.task() is not None:
        return 0.0
    return max(0.0, last.at / 1000 + every - time.time())


def _wait(seconds: float) -> None:
    if seconds > 0:
        click.echo(f"the next run is in {Duration(round(seconds / 60) * 60_000)}", err=True)
        time.sleep(seconds)


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(outcome))
        return
    where = f" {outcome.generation}" if outcome.generation else ""
    dropped = f"; dropped {', '.join(outcome.dropped)}" if outcome.dropped else ""
    took = f" ({outcome.seconds:,.0f} s)" if outcome.seconds else ""
    said = click.style(f"{outcome.outcome}{where}", fg=_COLOURS.get(outcome.outcome), bold=True)
    click.echo(f"{said}: {outcome.why}{dropped}{took}")
