"""Where values come from, and what is made of them: a running `up`, a TOML file, the environment."""

from __future__ import annotations

import math
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from streams.addresses import addresses_file, read_addresses
from streams.settings.sections import SECTIONS, TOP, fields, variable
from streams.settings.values import Duration, InvalidSettings, Secret

# Variables of the same prefix that are not settings.
_OTHER_VARIABLES: Final = frozenset({"AFTERGLOW_QDRANT_BIN"})


class Given(NamedTuple):
    """A value as it was found, not checked yet."""

    raw: object
    source: str
    strict: bool  # a typed value (TOML), else a text to be read


def from_running(data_dir: Path) -> Iterator[tuple[str, Given]]:
    """What an `up` in this data directory says of itself, by `section.field`. Raises `InvalidSettings`."""
    try:
        running = read_addresses(data_dir)
    except ValueError as error:
        raise InvalidSettings(str(error)) from None
    if running is not None:
        source = f"running `afterglow up` ({addresses_file(data_dir)})"
        yield "kafka.bootstrap_servers", Given(running.kafka, source, strict=True)
        yield "qdrant.address", Given(running.qdrant, source, strict=True)
        yield "encoder.address", Given(running.encoder, source, strict=True)
        yield "secret_file", Given(running.secret_file, source, strict=True)


def from_file(file: Path) -> Iterator[tuple[str, Given]]:
    """What a TOML file has, by `section.field`. Raises `InvalidSettings`, also for what is no setting."""
    try:
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise InvalidSettings(f"there is no settings file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the settings file {file} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"the settings file {file} is not TOML: {error}") from None
    for key, value in content.items():
        if key in SECTIONS:
            if not isinstance(value, dict):
                raise InvalidSettings(f"{key} is a section in {file}: write it as a table, [{key}]")
            for field, raw in value.items():
                if f"{key}.{field}" not in fields():
                    known = ", ".join(name.partition(".")[2] for name in fields() if name.startswith(f"{key}."))
                    raise InvalidSettings(f"there is no setting {key}.{field} ({file}); [{key}] has {known}")
                yield f"{key}.{field}", Given(raw, str(file), strict=True)
        elif key in TOP:
            yield key, Given(value, str(file), strict=True)
        else:
            known = ", ".join((*TOP, *SECTIONS))
            raise InvalidSettings(f"there is no setting or section {key} ({file}); there are {known}")


def from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    """What variables say, by `section.field`. Raises `InvalidSettings`, also for what only begins like one."""
    names = {variable(name): name for name in fields()}
    sections = tuple(f"AFTERGLOW_{section.upper()}_" for section in SECTIONS)
    for key, text in environment.items():
        if key in names:
            yield names[key], Given(text, f"environment variable {key}", strict=False)
        elif key.startswith(sections) and key not in _OTHER_VARIABLES and not _is_of_a_service(key, text):
            raise InvalidSettings(f"there is no setting for the environment variable {key}; see `afterglow settings`")


def _is_of_a_service(key: str, text: str) -> bool:
    """Kubernetes sets AFTERGLOW_QDRANT_SERVICE_HOST and the like in every pod, for a service of that name."""
    return "_SERVICE_" in key or "_PORT_" in key or text.startswith(("tcp://", "udp://"))


def convert(name: str, raw: object, source: str, *, strict: bool) -> object:
    """The value of the setting `name`. Raises `InvalidSettings`: what was expected, and where."""
    annotated, meta = fields()[name]
    kind = typing.get_args(annotated)[0]
    try:
        value: object = msgspec.convert(raw, annotated, strict=strict, dec_hook=_parse)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
    except ValueError as error:
        custom = isinstance(kind, type) and issubclass(kind, Duration | Secret | Path)
        problem = str(error).split(" - at ")[0] if custom else f"expected {_expectation(kind, meta)}"
        got = "" if kind is Secret else f", got {raw!r}"
        raise InvalidSettings(f"{name}: {problem}{got} ({source})") from None
    return value


def _expectation(kind: object, meta: msgspec.Meta) -> str:
    if kind is bool:
        return "true or false"
    if kind is int or kind is float:
        bounds = [("from", meta.ge), ("above", meta.gt), ("to", meta.le), ("below", meta.lt)]
        return " ".join(
            ["a whole number" if kind is int else "a number"]
            + [f"{word} {bound}" for word, bound in bounds if bound is not None]
        )
    if meta.pattern is not None:
        return str((meta.extra or {})["unit"] or f"a text that matches {meta.pattern}")
    return f"one of {', '.join(map(repr, typing.get_args(kind)))}" if typing.get_args(kind) else "a text"


def _parse(wanted: type, raw: object) -> object:
    """The values msgspec doesn't know, from their text."""
    if issubclass(wanted, Duration):
        if not isinstance(raw, str):
            raise ValueError('expected a duration with its unit, in quotes, like "20ms" or "30d"')
        return wanted.parse(raw)
    if not isinstance(raw, str) or (wanted is Path and not raw):
        raise ValueError("expected a text")
    return Secret(raw) if wanted is Secret else Path(raw)
