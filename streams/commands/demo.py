"""`afterglow demo`: a simulated shop, performed in two acts on the real thing, and what became of its shoppers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from streams.commands.output import print_json
from streams.settings import load

if TYPE_CHECKING:
    from deploy.stack import Stack
    from streams.demonstration.portraits import Portrait
    from streams.demonstration.screen import Screen
    from streams.demonstration.shop import Shop
    from streams.demonstration.summary import Summary
    from streams.settings import Settings

SEED: Final = 7
WIDTH_OF_A_FILE: Final = 110
_HEEDED: Final = ("AFTERGLOW_ENCODER_", "AFTERGLOW_QDRANT_BIN", "AFTERGLOW_DEBUG")


@click.command("demo")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep everything here, to look around afterwards; must be empty.  [default: a temporary one]",
)
@click.option("--shoppers", type=click.IntRange(4, 5000), default=250, show_default=True, help="How many shoppers.")
@click.option("--workers", type=click.IntRange(1, 8), default=1, show_default=True, help="How many workers.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
def command(data_dir: Path | None, shoppers: int, workers: int, as_json: bool) -> None:
    """Watch profiles form and change in a simulated shop.

    Starts a real Kafka, Qdrant, the encoding worker and a worker, sends ten weeks of searches and purchases through
    them, and shows what Qdrant then holds of a few shoppers: their interests, what to recommend and why, and how both
    change as their interests do. Settings that point at a Kafka or Qdrant of yours are ignored. Ends by itself; exits
    1 if any event was not folded in. Ctrl-C stops everything.
    """
    if data_dir is not None and data_dir.is_dir() and any(data_dir.iterdir()):
        raise click.BadParameter(f"{data_dir} is not empty", param_hint="--data-dir")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    _ignore_settings(os.environ)
    with _directory(data_dir) as directory:
        summary = _run(directory, shoppers=shoppers, workers=workers, as_json=as_json, kept=data_dir is not None)
    if as_json:
        print_json(summary)
    sys.exit(0 if summary.complete else 1)


def _run(directory: Path, *, shoppers: int, workers: int, as_json: bool, kept: bool) -> Summary:
    from rich.console import Console

    from streams.commands.up import running
    from streams.demonstration.screen import Screen
    from streams.demonstration.shop import open_shop

    started = time.monotonic()
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    screen = Screen(console)
    shop = open_shop(seed=SEED, shoppers=shoppers, until_ms=time.time_ns() // 1_000_000)
    screen.open(shop)
    with running(load(None, directory), workers=workers, report=screen.note) as stack:
        from streams.generations import resolved

        settings = resolved(load(None, directory))  # with where everything listens now
        try:
            summary = asyncio.run(_while_running(stack, _perform(settings, shop, screen, started)))
        except KeyboardInterrupt:
            screen.note("stopping everything")
            raise
        if not summary.complete:
            screen.logs(stack.logs)
    screen.close(summary, directory if kept else None)
    return summary


async def _while_running(stack: Stack, performance: Coroutine[None, None, Summary]) -> Summary:
    """The performance, given up as soon as the stack can't be kept running. Raises ServiceFailed then."""
    from deploy.supervisor import ServiceFailed

    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def watch() -> None:
        try:
            stack.wait()
        except ServiceFailed as failure:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                loop.call_soon_threadsafe(failed.set_exception, failure)

    # Not a thread of the loop's own: that would be waited for, and the stack stops only after the loop.
    threading.Thread(target=watch, daemon=True).start()
    performing = asyncio.create_task(performance)
    try:
        waited: set[asyncio.Future[Any]] = {performing, failed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        return performing.result()
    finally:
        performing.cancel()
        await asyncio.gather(performing, return_exceptions=True)


async def _perform(settings: Settings, shop: Shop, screen: Screen, started: float) -> Summary:
    from streams.demonstration.observation import observing
    from streams.demonstration.performance import Stage, Stalled
    from streams.demonstration.portraits import Departments, portrait
    from streams.demonstration.shop import NAMED
    from streams.demonstration.summary import summarise
    from streams.producer import EventProducer
    from streams.reading import open_recommender

    watched = [shopper.user_id for shopper in shop.shoppers[: len(NAMED)]]
    departments = Departments(shop)
    portraits: list[list[Portrait]] = []
    async with observing(settings) as observer, open_recommender(settings) as recommender:
        stage = Stage(EventProducer(settings), observer)
        try:
            await stage.stock(shop.products)
            screen.note(f"{len(shop.products):,} products are encoded and stored")
            for act in shop.acts:
                screen.begin(act, len(portraits))
                with screen.progress() as show:
                    await stage.perform(act.moments, show)
                portraits.append(
                    [await portrait(recommender, departments, user_id, at=act.until_ms) for user_id in watched]
                )
                screen.portraits(portraits)
        except Stalled as stalled:
            screen.stalled(str(stalled))
        return summarise(
            sent=stage.sent,
            look=await observer.look(),
            ids=observer.ids,
            products=await observer.products(),
            refused=await observer.refused(),
            freshness=stage.freshness,
            seconds=time.monotonic() - started,
            portraits=portraits,
        )


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="afterglow-demo-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _ignore_settings(environment: MutableMapping[str, str]) -> None:
    """A simulated shop has no business in a Kafka or Qdrant that these settings lead to."""
    for name in list(environment):
        if name.startswith("AFTERGLOW_") and (not name.startswith(_HEEDED) or name == "AFTERGLOW_ENCODER_ADDRESS"):
            del environment[name]
