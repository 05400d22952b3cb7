"""The command `afterglow`: a table of commands, each imported only when it runs.

A command is a module with a `click.Command` named `command`; a line in `COMMANDS` makes it known. Its `--json` prints
one JSON document (or one a line) on standard output and nothing else; progress and errors go to standard error.
Exit codes: 0 done, 1 failed, 2 usage or settings, 130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import click

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("streams.commands.up", "Start everything on this machine: Kafka, Qdrant, encoder, workers."),
    "worker": ("streams.commands.worker", "Run one worker: events in, profiles updated."),
    "encoder": ("streams.commands.encoder", "Run the encoding worker, the owner of the GPU."),
    "statistics": ("streams.commands.statistics", "Keep what is known across users: bought together, popular."),
    "produce": ("streams.commands.produce", "Send events from files: JSON lines to Kafka."),
    "profile": ("streams.commands.profile", "Show what is known of a user."),
    "recommend": ("streams.commands.recommend", "Recommend products to a user, or to many."),
    "search": ("streams.commands.search", "Find products by a text."),
    "similar": ("streams.commands.similar", "Find users of a like taste."),
    "status": ("streams.commands.status", "Show lag, events folded in, generation, model, health."),
    "replay": ("streams.commands.replay", "Make a new generation from the topics, and let it take over."),
    "generations": ("streams.commands.generations", "List generations; let readers see another one; drop one."),
    "retrain": (
        "streams.commands.retrain",
        "Train the model anew when the shop has drifted away from it.",
    ),
    "derive": ("streams.commands.derive", "Derive what readers see anew, after a change of settings."),
    "verify": ("streams.commands.verify", "Compare every stored profile with the events it comes from."),
    "topics": ("streams.commands.topics", "Show the topics: partitions, offsets, retention."),
    "dead-letters": ("streams.commands.dead_letters", "List events that were not understood, or send them again."),
    "settings": ("streams.commands.settings", "Show every setting, its value, and where that came from."),
    "schema": ("streams.commands.schema", "Show the JSON Schema of the events."),
    "train": ("streams.commands.train", "Tune the model on what was searched for and bought."),
    "evaluate": ("streams.commands.evaluate", "Score recommendations on a shop's history, beside baselines."),
    "bench": ("streams.commands.bench", "Measure Afterglow, part by part, beside what one would use instead."),
    "demo": ("streams.commands.demo", "Watch profiles form and change in a simulated shop."),
}


class _Commands(click.Group):
    """The commands whose modules are there. Listing them imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, _) in COMMANDS.items() if _is_there(module)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS or not _is_there(COMMANDS[name][0]):
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"afterglow {version('afterglow')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a running `up` keeps its state.  [default: .afterglow]",
)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A TOML file of settings.")
@click.option("--kafka", metavar="HOST:PORT", help="Kafka, if not the one of a running `up`.")
@click.option("--qdrant", metavar="HOST:PORT", help="Qdrant (gRPC), if not the one of a running `up`.")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
@click.pass_context
def afterglow(ctx: click.Context, /, **shared: object) -> None:
    """Keeps every shopper's profile warm.

    Searches and purchases on Kafka become profiles and recommendations in Qdrant, in seconds.

    \b
      afterglow up                                          start everything here
      afterglow produce products.jsonl --topic products     send the catalogue,
      afterglow produce purchases.jsonl --topic purchases   what was bought,
      afterglow recommend USER                              and see what to show

    The options below are also understood after a command's name. Every setting can be given in a TOML file or
    the environment (AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS, ...): `afterglow settings` shows them all.
    """
    given = {name: value for name, value in shared.items() if value is not None}
    ctx.default_map = dict.fromkeys(COMMANDS, given)  # what is given here is the default of the command's own option


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code; where it failed, standard error says why."""
    debug = bool(os.environ.get("AFTERGLOW_DEBUG"))
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if not debug:  # what goes wrong between us and Kafka or Qdrant is told once, by the command that fails
        for name in ("afterglow.kafka", "sinks.retry"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        code = afterglow.main(args=arguments, prog_name="afterglow", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        _complain(" ".join(error.format_message().split()))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        from streams.settings import InvalidSettings

        _complain(_told(error))
        sys.exit(2 if isinstance(error, InvalidSettings) else 1)


def _complain(message: str) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo("\n".join(line.rstrip() for line in message.strip().splitlines()), err=True)


def _told(error: Exception) -> str:
    """Our own errors are written for readers; another's needs its name, and a way to learn more."""
    if type(error).__module__.split(".")[0] in ("streams", "encoders", "sinks", "deploy"):
        return str(error)
    message = str(error)
    if type(error).__name__ == "KafkaException":
        message = error.args[0].str()
    return f"{type(error).__name__}: {message} (AFTERGLOW_DEBUG=1 shows where)"
