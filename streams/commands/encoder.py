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
    from streams.restart import start_again

    logging.getLogger().setLevel(logging.INFO)
    encoder = settings.encoder
    model, until = encoder.model, None
    if follow:
        from streams.models import model_in_force, superseded

        model, until = model_in_force(settings), partial(superseded, settings)
    replaced = serve(
        address=address or settings.encoder_address,
        model=model,
        device=encoder.device,
        token_budget=encoder.token_budget,
        cache_entries=encoder.cache_entries,
        threads=encoder.threads,
        query_prefix=encoder.query_prefix or None,
        product_prefix=encoder.product_prefix or None,
        until=until,
    )
    if replaced:
        start_again()
