"""`afterglow worker`: one Faust worker against given addresses."""

from __future__ import annotations

import logging

import click

from streams.commands.options import with_settings
from streams.settings import Settings


@click.command("worker")
@with_settings
def command(settings: Settings) -> None:
    """Run one worker: events in, profiles and recommendations updated.

    Any number of workers share the partitions. Runs until Ctrl-C or SIGTERM; exits 1, saying why, when it can't go on.
    Everything it has not finished is read again by whoever takes over.
    """
    from streams.worker import run_worker

    logging.basicConfig(
        format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s", level=logging.WARNING, force=True
    )
    logging.getLogger("afterglow").setLevel(logging.INFO)
    logging.getLogger("sinks.retry").setLevel(logging.WARNING)
    run_worker(settings)
