"""`afterglow up`: everything on one machine, started in order, kept running, stopped together."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec

from streams.addresses import Addresses, addresses_file, write_addresses
from streams.settings import Settings, load, variable

if TYPE_CHECKING:
    from deploy.stack import Endpoints, Stack
    from sinks.collections import Generation

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("up")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where all state is kept.  [default: AFTERGLOW_DATA_DIR, else .afterglow]",
)
@click.option("--kafka", metavar="HOST:PORT", help="Use this Kafka, instead of starting one.")
@click.option("--qdrant", metavar="HOST:PORT", help="Use this Qdrant (gRPC), instead of starting one.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="How many workers.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file of settings.  [default: AFTERGLOW_CONFIG]",
)
def command(data_dir: Path | None, kafka: str | None, qdrant: str | None, workers: int, config: Path | None) -> None:
    """Start everything that isn't given an address: Kafka, Qdrant, the encoding worker, the workers.

    Runs until Ctrl-C or SIGTERM, then drains and stops it all. Started again on the same data directory,
    everything is there: topics, offsets, profiles. Other commands find it by the same --data-dir.
    """
    given = {"kafka.bootstrap_servers": kafka, "qdrant.address": qdrant}
    settings = load(config, data_dir, {name: value for name, value in given.items() if value})
    sys.exit(run(settings, workers=workers, config=config))


def run(settings: Settings, *, workers: int, config: Path | None) -> int:
    """Run until a signal asks to stop. The exit code: 0, or 1 when something can't be started or kept running."""
    from deploy.data_directory import AlreadyRunning
    from deploy.kafka import KafkaUnavailable
    from deploy.ports import PortTaken
    from deploy.qdrant_server import QdrantUnavailable
    from deploy.stack import NothingListens
    from deploy.supervisor import ServiceFailed

    def report(text: str) -> None:
        with suppress(OSError):  # nobody reads any more: no reason to stop
            click.secho(text, dim=True)

    try:
        stack = stack_of(settings, workers=workers, config=config, report=report)
        with _stopped_by_signals(stack, report), stack, published(settings, stack.endpoints):
            if not stack.stopping:
                generation = _generation(_at(settings, stack.endpoints))
                click.echo(_announcement(stack, workers, generation))
                for text in [] if generation is None else overruled_in_words(settings, generation):
                    click.secho("warning: ", fg="yellow", bold=True, nl=False, err=True)
                    click.echo(text, err=True)
            stack.wait()
    except ServiceFailed as failure:
        _complain(f"Afterglow has stopped. {failure}")
        return 1
    except (AlreadyRunning, KafkaUnavailable, QdrantUnavailable, PortTaken, NothingListens, OSError) as error:
        _complain(f"Afterglow can't start. {error}")
        return 1
    report("Stopped. Everything is kept: start again with the same data directory.")
    return 0


@contextmanager
def running(
    settings: Settings, *, workers: int = 1, config: Path | None = None, report: Callable[[str], None]
) -> Iterator[Stack]:
    """Everything running and found by the other commands, for as long as the context lasts. Raises as `Stack` does."""
    stack = stack_of(settings, workers=workers, config=config, report=report)
    with stack, published(settings, stack.endpoints):
        yield stack


def stack_of(settings: Settings, *, workers: int, config: Path | None = None, report: Callable[[str], None]) -> Stack:
    """What `up` runs for these settings, not started yet: Kafka and Qdrant unless an address was given for them."""
    from deploy.data_directory import ensure_secret
    from deploy.stack import Programs, Stack

    def environment(endpoints: Endpoints) -> Mapping[str, str]:
        ensure_secret(settings.secret_file)
        names = {
            "kafka.bootstrap_servers": endpoints.kafka,
            "qdrant.address": endpoints.qdrant,
            "encoder.address": endpoints.encoder,
            "secret_file": str(settings.secret_file.absolute()),
        }
        return {
            **{variable(name): value for name, value in names.items()},
            "AFTERGLOW_DATA_DIR": str(settings.data_dir.absolute()),
            **({"AFTERGLOW_CONFIG": str(config.absolute())} if config else {}),
            # A worker is one process a core: threads of its own would take the cores from the others.
            "OPENBLAS_NUM_THREADS": "1",
        }

    def make_topics(endpoints: Endpoints) -> None:
        from streams.topics import ensure_topics

        ensure_topics(_at(settings, endpoints))

    return Stack(
        settings.data_dir,
        Programs(
            # -P: a folder `streams` where `up` was started is not ours.
            encoder=[sys.executable, "-P", "-m", "streams", "encoder", "--follow"],
            worker=[sys.executable, "-P", "-m", "streams", "worker"],
            statistics=[sys.executable, "-P", "-m", "streams", "statistics"],
            environment=environment,
            make_topics=make_topics,
            workers_ready=lambda endpoints, count: _group_has(_at(settings, endpoints), count),
        ),
        kafka=_given(settings, "kafka.bootstrap_servers", settings.kafka.bootstrap_servers),
        qdrant=_given(settings, "qdrant.address", settings.qdrant.address),
        encoder=_given(settings, "encoder.address", settings.encoder.address),
        workers=workers,
        report=report,
    )


@contextmanager
def published(settings: Settings, endpoints: Endpoints) -> Iterator[None]:
    """Let other commands find this process by the data directory."""
    write_addresses(
        settings.data_dir,
        Addresses(
            pid=os.getpid(),
            kafka=endpoints.kafka,
            qdrant=endpoints.qdrant,
            encoder=endpoints.encoder,
            secret_file=str(settings.secret_file.absolute()),
        ),
    )
    try:
        yield
    finally:
        addresses_file(settings.data_dir).unlink(missing_ok=True)


def _given(settings: Settings, name: str, value: str) -> str | None:
    """The value, where an operator gave it; not what a killed `up` left in addresses.json."""
    source = settings.source(name)
    return None if source == "default" or source.startswith("running") else value


def _at(settings: Settings, endpoints: Endpoints) -> Settings:
    return msgspec.structs.replace(
        settings,
        kafka=msgspec.structs.replace(settings.kafka, bootstrap_servers=endpoints.kafka),
        qdrant=msgspec.structs.replace(settings.qdrant, address=endpoints.qdrant),
        encoder=msgspec.structs.replace(settings.encoder, address=endpoints.encoder),
    )


def _group_has(settings: Settings, members: int) -> bool:
    """Whether that many workers have shared the partitions among themselves."""
    from confluent_kafka import ConsumerGroupState, KafkaException

    from streams.generations import group_of, resolved
    from streams.kafka import connect_admin

    admin = connect_admin(settings.kafka)
    group = group_of(resolved(settings).generation)
    try:
        described = admin.describe_consumer_groups([group], request_timeout=5)[group].result()
    except KafkaException:  # it has no such group yet, or is still loading it
        return False
    return described.state == ConsumerGroupState.STABLE and len(described.members) >= members


@contextmanager
def _stopped_by_signals(stack: Stack, report: Callable[[str], None]) -> Iterator[None]:
    def ask(number: int, frame: FrameType | None) -> None:
        report("Stopping at once." if stack.stopping else "Draining; again to stop at once.")
        stack.ask_to_stop()

    wanted = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in wanted}  # `nohup` ignores SIGHUP: so be it
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _generation(settings: Settings) -> Generation | None:
    """The generation in force; None where Qdrant doesn't say: workers have made it, but it may be away just now."""
    import asyncio

    from sinks.collections import RefusedGeneration, read_generation
    from sinks.retrieval import QdrantUnreachable
    from sinks.retry import PermanentSinkError
    from streams.existing import ASKED, asked
    from streams.generations import generation_in_force

    async def ask() -> Generation | None:
        async with asked(settings) as client:
            name = await generation_in_force(settings, client, retry=ASKED)
            return await read_generation(client, name, retry=ASKED)

    try:
        return asyncio.run(ask())
    except (QdrantUnreachable, PermanentSinkError, RefusedGeneration):
        return None


def overruled_in_words(settings: Settings, generation: Generation) -> list[str]:
    """A line for each setting that somebody has set, and that does not count: the generation keeps what made it."""
    from streams import generations, models

    of_fold = generations.overruled(settings, generation)
    differing = {name: (str(given), str(kept)) for name, (given, kept) in of_fold.items()}
    differing |= models.overruled(settings, generation)
    model = shlex.quote(settings.encoder.model or generation.model.source)
    return [
        f"{name} is {given} (from: {settings.source(name)}), which does not count: generation {generation.name} was "
        f"made with {kept}, and keeps that. Make one with {given}: `afterglow replay"
        + (f" --model {model}`" if name.startswith("encoder.") else "`")
        for name, (given, kept) in differing.items()
    ]


def _announcement(stack: Stack, workers: int, generation: Generation | None) -> str:
    endpoints = stack.endpoints
    served = "" if generation is None else f"\n  serving  generation {generation.name}, of {generation.model.name}"
    return (
        f"{click.style('Afterglow is ready.', fg='green', bold=True)} Ctrl-C drains and stops it.\n"
        f"  Kafka    {endpoints.kafka}{_own(stack, 'kafka')}\n"
        f"  Qdrant   {endpoints.qdrant}{_own(stack, 'qdrant')}\n"
        f"  encoder  {endpoints.encoder}\n"
        f"  workers  {workers}\n"
        f"  logs     {stack.logs}"
        f"{served}"
    )


def _own(stack: Stack, name: str) -> str:
    return "" if name in stack.pids() else " (yours)"


def _complain(text: str) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(text, err=True)
