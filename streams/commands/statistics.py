"""`afterglow statistics`: what is known across users, kept up to date."""

from __future__ import annotations

import logging
import os

import click

from streams.commands.options import with_settings
from streams.settings import Settings


@click.command("statistics")
@with_settings
def command(settings: Settings) -> None:
    """Keep the statistics across users: what is bought together, what sells, and what that is worth.

    One process for a whole deployment; another one beside it does no harm. It reads searches and purchases, and writes
    what readers and workers rank by into Qdrant, with the offsets it has come to. Runs until Ctrl-C or SIGTERM.
    """
    import asyncio
    import signal

    from sinks.identity import PointIds
    from streams.generations import connected
    from streams.secret import read_secret
    from streams.statistics.service import StatisticsService

    logging.basicConfig(
        format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s", level=logging.WARNING, force=True
    )
    logging.getLogger("afterglow").setLevel(logging.INFO)

    async def run() -> None:
        client = connected(settings)
        service = StatisticsService(settings, client, PointIds(read_secret(settings.secret_file)))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, service.stop)
        try:
            await service.run()
        finally:
            await client.close()

    os.nice(10)  # they may be late, where profiles and readers want the cores
    asyncio.run(run())
