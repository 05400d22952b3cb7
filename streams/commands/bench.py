"""`afterglow bench`: measures Afterglow, part by part, beside what one would use instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

_TESTS: Final = Path(__file__).parents[2] / "tests"


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """The benchmarks lie beside the tests: they are there in a clone, not in an installed package."""
    if not (_TESTS / "benchmarks").is_dir():
        raise click.ClickException(f"there are no benchmarks in {_TESTS}: run this from a clone, after `make install`")
    path = os.pathsep.join([str(_TESTS.parent), str(_TESTS)])
    measuring = [sys.executable, "-P", "-m", "benchmarks", *arguments]
    sys.exit(subprocess.run(measuring, env={**os.environ, "PYTHONPATH": path}, check=False).returncode)
