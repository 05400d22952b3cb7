"""An encoding worker for one command: with another model than the one that serves this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from streams.commands.own_folder import own_folder
from streams.settings import Settings, changed, variable

READY_SECONDS: Final = 600.0


@contextmanager
def encoding_with(settings: Settings, model: str) -> Iterator[Settings]:
    """The settings with the address of an encoding worker that has the model, for as long as the context lasts.

    Everything else about it is as set: device, threads, prefixes. Raises ClickException where it can't serve.
    """
    from deploy.children import Child, wait_until
    from deploy.stack import accepts_connections

    folder = Path(model).expanduser()
    named = str(folder.absolute()) if model and folder.is_dir() else model
    asked = {**msgspec.structs.asdict(settings.encoder), "model": named}
    with own_folder() as directory:
        address = f"unix://{directory}/encoder.sock"
        command = [sys.executable, "-P", "-m", "streams", "encoder", "--address", address]
        environment = {
            **{variable(f"encoder.{field}"): str(value) for field, value in asked.items()},
            "AFTERGLOW_DATA_DIR": str(settings.data_dir.absolute()),
        }
        child = Child("encoder", command, log=directory / "encoder.log", environment=environment)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not accepts_connections(address):
                if child.exit_code is not None or not wait_until(deadline):
                    said = [line.removeprefix("error: ") for line in child.last_lines()]
                    raise click.ClickException("\n".join([f"{model} can't be served:", *said]))
            yield changed(settings, {"encoder.address": address})
        finally:
            child.stop(timeout_seconds=10)
