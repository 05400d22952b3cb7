"""`afterglow encoder`: the encoding worker, in the foreground."""

from __future__ import annotations

from functools import partial

import click

from streams.commands.options import with_settings
from streams.settings import Settings


@click.command("encoder")
@click.option("--address", metavar="ADDRESS", help="Listen here: unix:///path or host:port.")
@click.option(
    "--follow", is_flag=True, help="Have the model of the generation that readers see, and change over when it does."
)
@with_settings
def command(settings: Settings, address: str | None, follow: bool) -> None:
    """Run the encoding worker: the one process on a host that owns the GPU and serves every worker on it.

    Listens on the setting encoder.address, by default encoder.sock in the data directory. Ctrl-C or SIGTERM
    finishes what has come in, and stops.

    With --follow it waits for Qdrant, and loads what the generation in force was made with; the setting encoder.model
    counts before there is one. When readers are led to a generation of another model (`afterglow replay --model`,
    `afterglow generations activate`), it finishes what has come in and starts anew with that, in the same process.
    """
    import logging

    from encoders.worker import serve
    from streams.models import model_as_set, model_in_force, superseded
    from streams.restart import start_again

    logging.getLogger().setLevel(logging.INFO)
    encoder = settings.encoder
    model = model_in_force(settings) if follow else model_as_set(settings)
    replaced = serve(
        address=address or settings.encoder_address,
        model=model.source,
        device=encoder.device,
        token_budget=encoder.token_budget,
        cache_entries=encoder.cache_entries,
        threads=encoder.threads,
        query_prefix=model.query_prefix,
        product_prefix=model.product_prefix,
        until=partial(superseded, settings) if follow else None,
    )
    if replaced:
        start_again()
