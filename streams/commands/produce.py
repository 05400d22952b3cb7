"""`afterglow produce`: events from files to Kafka."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from streams import events
    from streams.producer import EventProducer
    from streams.progress import Waiting
    from streams.refusals import Refusals

_REPORT_EVERY: Final = 2000


@click.command("produce")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--topic",
    type=click.Choice(["searches", "purchases", "products"]),
    required=True,
    help="What the lines are; their topic's own name is a setting.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most so many events a second.")
@click.option("--wait", is_flag=True, help="Return when they are folded in, and what that made due is done.")
@as_json
@with_settings
def command(
    settings: Settings, files: tuple[str, ...], topic: str, rate: float | None, wait: bool, as_json: bool
) -> None:
    """Send events from files of JSON lines: plain, .gz, .zst, or - for standard input.

    Each line is one event; `afterglow schema` shows the fields. Lines are checked before they are sent, and sent
    as they are. A line that can't be understood is left out and told: exit code 1. After a Ctrl-C what was read by
    then is still delivered; a second one gives that up.
    """
    from streams.event_files import UnreadableFile
    from streams.producer import EventProducer
    from streams.progress import wait_until_folded
    from streams.refusals import Refusals

    _check_files(files)
    _check_topic(settings, topic)
    refusals = Refusals()
    started = time.monotonic()
    with ExitStack() as stack:
        progress = stack.enter_context(_bar())
        with _interruption() as interrupted, EventProducer(settings) as producer:
            try:
                sent = _send_files(files, topic, settings, producer, refusals, rate, progress, interrupted)
            except UnreadableFile as error:
                raise click.ClickException(f"{error}; what came before was sent") from error
        seconds = time.monotonic() - started
        wait = wait and not interrupted.is_set()
        if wait:
            wait_until_folded(settings, producer.offsets, _waiting_on(progress))
    _summarise(topic, sent, seconds, time.monotonic() - started if wait else None, refusals, as_json=as_json)
    if interrupted.is_set():
        raise click.Abort
    if refusals.count:
        raise click.ClickException(
            f"{refusals.count:,} of {sent + refusals.count:,} lines were refused and not sent; the others were"
        )


def _check_files(files: tuple[str, ...]) -> None:
    for name in files:
        if name != "-" and not Path(name).is_file():
            raise click.BadParameter(f"there is no file {name}", param_hint="FILE")


def _check_topic(settings: Settings, topic: str) -> None:
    """Make the topics where this one is missing, so that the first to come makes them right."""
    from streams.kafka import answered, connect_admin
    from streams.topics import describe, ensure_topics

    admin = connect_admin(settings.kafka)
    name = getattr(settings.topics, topic)
    if not answered(lambda: describe(admin, [name]), settings.kafka, timeout_seconds=10):
        ensure_topics(settings)


def _send_files(
    files: tuple[str, ...],
    topic: str,
    settings: Settings,
    producer: EventProducer,
    refusals: Refusals,
    rate: float | None,
    progress: Progress | None,
    interrupted: Event,
) -> int:
    from streams.event_files import MAX_LINE, lines, opened
    from streams.events import InvalidEvent, event_key

    decode, name = _decoder(topic), getattr(settings.topics, topic)
    sent, started = 0, time.monotonic()
    for file in files:
        with opened(file) as (content, position, size):
            task = progress.add_task(file, total=size, events=0) if progress else None
            for number, line in lines(content, file):
                if rate is not None:
                    _pace(producer, started + sent / rate, interrupted)
                if interrupted.is_set():
                    return sent
                try:
                    if len(line) > MAX_LINE:
                        raise InvalidEvent("value", f"is longer than {MAX_LINE} bytes")
                    event = decode(line, time.time_ns() // 1_000_000)
                    producer.send(name, event_key(event).encode(), line)
                    sent += 1
                except InvalidEvent as error:
                    refusals.add(error, f"{file}:{number}")
                if progress and task is not None and not number % _REPORT_EVERY:
                    progress.update(task, completed=position(), events=sent)
            if progress and task is not None:
                progress.update(task, total=size or 1, completed=size or 1, events=sent)
    return sent


def _decoder(topic: str) -> Callable[[bytes, int], events.Event]:
    from streams.events import decode_product, decode_purchase, decode_search

    def decode_line(value: bytes, reference_ms: int) -> events.Event:
        product = decode_product(value, reference_ms)
        assert product is not None  # only a null value is a deletion, and a line is bytes
        return product

    decoders: dict[str, Callable[[bytes, int], events.Event]] = {
        "searches": decode_search,
        "purchases": decode_purchase,
        "products": decode_line,
    }
    return decoders[topic]


def _pace(producer: EventProducer, not_before: float, interrupted: Event) -> None:
    while (early := not_before - time.monotonic()) > 0 and not interrupted.is_set():
        producer.poll(min(early, 0.1))


@contextmanager
def _interruption() -> Iterator[Event]:
    """Set by the first Ctrl-C; the second interrupts as usual.

    An exception raised by a signal in the midst of Kafka's client, between two of its callbacks, can be lost.
    """
    interrupted = Event()

    def interrupt(_: int, __: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """A progress bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def _waiting_on(progress: Progress | None) -> Callable[[Waiting], None]:
    """Shows what is still to come; where there is no bar, says once if there is no worker."""
    if progress is None:
        told = False

        def tell(waiting: Waiting) -> None:
            nonlocal told
            if waiting.records and not waiting.workers and not told:
                click.echo(f"waiting for a worker: none is in the group {waiting.group}", err=True)
                told = True

        return tell
    task = progress.add_task("folding in", total=None, events=0)
    total = 0

    def show(waiting: Waiting) -> None:
        nonlocal total
        total = max(total, waiting.records)
        if waiting.records and not waiting.workers:
            description = f"waiting for a worker of the group {waiting.group}"
        else:
            description = "recommending" if waiting.due else "counting" if waiting.uncounted else "folding in"
        left = waiting.records or waiting.uncounted or waiting.due or 0
        progress.update(
            task, description=description, total=total or 1, completed=(total or 1) - waiting.records, events=left
        )

    return show


def _summarise(
    topic: str, sent: int, seconds: float, waited: float | None, refusals: Refusals, *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "topic": topic,
                "sent": sent,
                "refused": refusals.count,
                "refusals": refusals.listed(),
                "seconds": round(seconds, 3),
                "seconds_until_folded": None if waited is None else round(waited, 3),
            }
        )
        return
    folded = "" if waited is None else f"; all folded in after {waited:.1f} s"
    click.echo(f"sent {sent:,} {topic} in {seconds:.1f} s ({sent / max(seconds, 1e-9):,.0f}/s){folded}")
    if refusals.count:
        print_table(
            ["REFUSED", "FIRST AT", "FIELD", "REASON"],
            [[kind.count, kind.example, kind.field, kind.reason] for kind in refusals.listed()],
        )
