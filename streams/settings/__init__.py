"""Every setting: its meaning, unit and default, and where its value came from.

A value comes from the first of: the command line, the environment (`AFTERGLOW_<SECTION>_<FIELD>`), the TOML
file, a running `afterglow up` (its `addresses.json`), the default. All of them are checked when they are
loaded: an unknown name or a bad value is an error that says where it was found.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from pathlib import Path

import msgspec

from streams.settings.consistency import problems
from streams.settings.sections import (
    SECTIONS,
    Derivation,
    Encoder,
    Kafka,
    Profiles,
    Qdrant,
    Retraining,
    Settings,
    Statistics,
    Topics,
    Worker,
    fields,
    variable,
)
from streams.settings.sources import Given, convert, from_environment, from_file, from_running
from streams.settings.values import Duration, InvalidSettings, Retention, Secret

__all__ = [
    "Derivation",
    "Duration",
    "Encoder",
    "InvalidSettings",
    "Kafka",
    "Profiles",
    "Qdrant",
    "Retention",
    "Retraining",
    "Secret",
    "Setting",
    "Settings",
    "Statistics",
    "Topics",
    "Worker",
    "changed",
    "describe",
    "load",
    "variable",
]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as `afterglow settings` shows it; a secret's value is masked."""

    name: str
    value: str | int | float | bool
    source: str
    unit: str
    default: str | int | float | bool
    description: str
    variable: str


def load(
    config_file: Path | None = None,
    data_dir: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force, checked.

    `config_file` (else `AFTERGLOW_CONFIG`) is a TOML file of one table a section; `data_dir` (else
    `AFTERGLOW_DATA_DIR`, else `.afterglow`) is where a running `up` is sought; `overrides` are the command
    line's, by `section.field`; `environment` defaults to the process's own. Raises `InvalidSettings`.
    """
    environment = os.environ if environment is None else environment
    data_dir = data_dir or Path(environment.get("AFTERGLOW_DATA_DIR") or ".afterglow")
    if config_file is None and environment.get("AFTERGLOW_CONFIG"):
        config_file = Path(environment["AFTERGLOW_CONFIG"])

    given: dict[str, Given] = {}
    given.update(from_running(data_dir))
    if config_file is not None:
        given.update(from_file(config_file))
    given.update(from_environment(environment))
    for name, text in (overrides or {}).items():
        if name not in fields():
            raise InvalidSettings(f"there is no setting {name} (command line)")
        given[name] = Given(text, "command line", strict=False)

    top: dict[str, object] = {"data_dir": data_dir, "secret_file": data_dir / "secret"}
    sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for name, (raw, source, strict) in given.items():
        section, _, field = name.rpartition(".")
        (sections[section] if section else top)[field] = convert(name, raw, source, strict=strict)
    settings = Settings(
        **typing.cast("dict[str, typing.Any]", top),
        **{section: SECTIONS[section](**values) for section, values in sections.items()},  # type: ignore[arg-type]
        sources={name: origin.source for name, origin in given.items()},
    )
    _require_consistency(settings)
    return settings


def _require_consistency(settings: Settings) -> None:
    for names, problem in problems(settings):
        where = "; ".join(f"{name} is from: {settings.source(name)}" for name in names)
        raise InvalidSettings(f"{problem} ({where})")


def changed(settings: Settings, overrides: Mapping[str, str]) -> Settings:
    """The settings with these values of the command line's, by `section.field`, checked. Raises `InvalidSettings`."""
    for name, text in overrides.items():
        if name not in fields():
            raise InvalidSettings(f"there is no setting {name} (command line)")
        section, _, field = name.rpartition(".")
        value = {field: convert(name, text, "command line", strict=False)}
        if section:
            value = {section: msgspec.structs.replace(getattr(settings, section), **value)}
        settings = msgspec.structs.replace(settings, **value)
    settings = msgspec.structs.replace(
        settings, sources={**settings.sources, **dict.fromkeys(overrides, "command line")}
    )
    _require_consistency(settings)
    return settings


def describe(settings: Settings) -> list[Setting]:
    """Every setting, in the order of their documentation."""
    listed = []
    defaults = Settings(data_dir=settings.data_dir, secret_file=settings.data_dir / "secret")
    for name, (_, meta) in fields().items():
        section, _, field = name.rpartition(".")
        listed.append(
            Setting(
                name=name,
                value=_plain(getattr(getattr(settings, section) if section else settings, field)),
                source=settings.source(name),
                unit=(meta.extra or {}).get("unit", ""),
                default=_plain(getattr(getattr(defaults, section) if section else defaults, field)),
                description=meta.description or "",
                variable=variable(name),
            )
        )
    return listed


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
