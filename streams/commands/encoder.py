"""`afterglow encoder`: the encoding worker, in the foreground."""

from __future__ import annotations

import click

from streams.commands.options import with_settings
from streams.settings import Settings


@click.command("encoder")
@click.option("--address", metavar="ADDRESS", help="Listen here: unix:///path or host:port.")
@with_settings
def command(settings: Settings, address: str | None) -> None:
    """Run the encoding worker: the one process on a host that owns the GPU and serves every worker on it.

    Listens on the setting encoder.address, by default encoder.sock in the data directory. Ctrl-C or SIGTERM
    finishes what has come in, and stops.
    """
    import logging

    from encoders.worker import serve

    logging.getLogger().setLevel(logging.INFO)
    encoder = settings.encoder
    serve(
        address=address or settings.encoder_address,
        model=encoder.model,
        device=encoder.device,
        token_budget=encoder.token_budget,
        cache_entries=encoder.cache_entries,
        threads=encoder.threads,
        query_prefix=encoder.query_prefix or None,
        product_prefix=encoder.product_prefix or None,
    )
