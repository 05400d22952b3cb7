"""`afterglow settings`: every setting, its value, and where that came from."""

from __future__ import annotations

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.settings import Setting, Settings, describe


@click.command("settings")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@as_json
@with_settings
def command(settings: Settings, changed: bool, as_json: bool) -> None:
    """Show every setting: value, unit, default, meaning, and where the value came from.

    A value comes from the first of: the command line, the environment, the TOML file of --config (one table a
    section), a running `up`, the default. Secrets are never shown.
    """
    listed = [setting for setting in describe(settings) if not changed or setting.source != "default"]
    if as_json:
        print_json(listed)
        return
    section = ""
    for setting in listed:
        if setting.name.partition(".")[0] != section and "." in setting.name:
            section = setting.name.partition(".")[0]
            click.secho(f"\n[{section}]", bold=True)
        click.echo(_told(setting))


def _told(setting: Setting) -> str:
    value = click.style(_literal(setting.value), fg=None if setting.source == "default" else "green")
    unit = f" {setting.unit}" if setting.unit else ""
    name = setting.name.rpartition(".")[2]
    origin = "" if setting.source == "default" else f"\n    from {setting.source}; default {_literal(setting.default)}"
    return (
        f"{name} = {value}\n    {setting.description}{f' ({unit.strip()})' if unit else ''} {setting.variable}{origin}"
    )


def _literal(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
