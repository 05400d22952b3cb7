"""Options that many commands take, and what they make of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from streams.settings import Settings, load

P = ParamSpec("P")


def with_settings(function: Callable[Concatenate[Settings, P], None]) -> Callable[..., None]:
    """Give the command --data-dir, --config, --kafka and --qdrant, and its function the settings in force."""

    @click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Of the running `up` to use.  [default: AFTERGLOW_DATA_DIR, else .afterglow]",
    )
    @click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="TOML file of settings.  [default: AFTERGLOW_CONFIG]",
    )
    @click.option("--kafka", metavar="HOST:PORT", help="Kafka, if not the one of a running `up`.")
    @click.option("--qdrant", metavar="HOST:PORT", help="Qdrant (gRPC), if not the one of a running `up`.")
    @functools.wraps(function)
    def command(
        data_dir: Path | None,
        config: Path | None,
        kafka: str | None,
        qdrant: str | None,
        *arguments: P.args,
        **options: P.kwargs,
    ) -> None:
        given = {"kafka.bootstrap_servers": kafka, "qdrant.address": qdrant}
        settings = load(config, data_dir, {name: value for name, value in given.items() if value})
        function(settings, *arguments, **options)

    return command


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
