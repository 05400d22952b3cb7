"""Every setting: its meaning, unit and default, and where its value came from.

A value comes from the first of: the command line, the environment (`AFTERGLOW_<SECTION>_<FIELD>`), the TOML
file, a running `afterglow up` (its `addresses.json`), the default. All of them are checked when they are
loaded: an unknown name or a bad value is an error that says where it was found.
"""

from __future__ import annotations

import functools
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from encoders.noise import RULES
from streams.addresses import addresses_file, read_addresses


class InvalidSettings(ValueError):
    """A setting is unknown or its value can't be used: which, where it was found, and what is expected."""


class Secret:
    """A text that is never shown: only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "***" if self._text else ""

    __repr__ = __str__


_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


class Duration:
    """A length of time in whole milliseconds, written with its unit: 20ms, 5s, 10m, 1h, 30d."""

    __slots__ = ("milliseconds",)
    milliseconds: int

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds

    @property
    def seconds(self) -> float:
        return self.milliseconds / 1000

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Raises `ValueError` where `text` is not a number and a unit."""
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise ValueError("expected a duration with its unit, like 20ms, 5s, 10m, 1h or 30d")
        milliseconds = float(match[1]) * _UNITS_MS[match[2]]
        if milliseconds != int(milliseconds):
            raise ValueError("expected whole milliseconds")
        return cls(int(milliseconds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.milliseconds == self.milliseconds

    def __hash__(self) -> int:
        return hash(self.milliseconds)

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            count, rest = divmod(self.milliseconds, _UNITS_MS[unit])
            if count and not rest:
                return f"{count}{unit}"
        return f"{self.milliseconds}ms"

    def __repr__(self) -> str:
        return f"Duration({self})"


class Retention(Duration):
    """How long Kafka keeps events: a duration, or `unlimited` (-1 milliseconds, as Kafka has it)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Retention:
        return cls(-1) if text.strip() == "unlimited" else cls(Duration.parse(text).milliseconds)

    def __str__(self) -> str:
        return "unlimited" if self.milliseconds < 0 else super().__str__()


def _is(description: str, unit: str = "", **bounds: typing.Any) -> msgspec.Meta:
    """What a field means, its unit, and its bounds (msgspec's: ge, gt, le, lt, pattern)."""
    return msgspec.Meta(description=description, extra={"unit": unit}, **bounds)


_TOPIC: Final = r"^[a-zA-Z0-9._-]{1,249}\Z"
_NAME_OF_TOPIC: Final = "letters, digits, . _ -"
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/,\[\]]+):(\d{1,5})")


class Kafka(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach Kafka."""

    bootstrap_servers: Annotated[str, _is("Kafka's addresses, separated by commas.", "host:port")] = "127.0.0.1:9092"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], _is("Whether TLS and a login are used.")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], _is("How to log in, with a SASL_ protocol.")
    ] = ""
    sasl_username: Annotated[str, _is("The login's name.")] = ""
    sasl_password: Annotated[Secret, _is("The login's password.")] = Secret()
    ssl_ca_location: Annotated[str, _is("Authorities to trust; empty: the system's.", "PEM file")] = ""
    ssl_certificate_location: Annotated[str, _is("This client's certificate.", "PEM file")] = ""
    ssl_key_location: Annotated[str, _is("This client's private key.", "PEM file")] = ""
    ssl_key_password: Annotated[Secret, _is("The private key's passphrase.")] = Secret()


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """Kafka's topics. Partitions, replicas and retention count when a topic is created."""

    searches: Annotated[str, _is("Topic of searches, keyed by user.", _NAME_OF_TOPIC, pattern=_TOPIC)] = "searches"
    purchases: Annotated[str, _is("Topic of purchases, keyed by user.", _NAME_OF_TOPIC, pattern=_TOPIC)] = "purchases"
    products: Annotated[str, _is("Topic of products, keyed by product, compacted.", _NAME_OF_TOPIC, pattern=_TOPIC)] = (
        "products"
    )
    dead_letters: Annotated[str, _is("Topic of events that can't be understood.", _NAME_OF_TOPIC, pattern=_TOPIC)] = (
        "afterglow.dead-letters"
    )
    partitions: Annotated[
        int,
        _is("Of searches, purchases and products: the most workers that can share them.", ge=1, le=10_000),
    ] = 8
    replication_factor: Annotated[int, _is("Copies Kafka keeps of each partition.", "brokers", ge=1, le=32)] = 1
    retention: Annotated[
        Retention,
        _is("How long searches and purchases are kept; a replay needs them.", "duration or unlimited"),
    ] = Retention(-1)


class Qdrant(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach Qdrant."""

    address: Annotated[str, _is("Qdrant's gRPC address.", "host:port")] = "127.0.0.1:6334"
    api_key: Annotated[Secret, _is("Qdrant's API key.")] = Secret()
    tls: Annotated[bool, _is("Whether the connection is encrypted.")] = False
    timeout: Annotated[Duration, _is("How long one call may take.", "duration")] = Duration(5000)
    replication_factor: Annotated[int, _is("Copies of each new collection.", "nodes", ge=1, le=32)] = 1
    shard_number: Annotated[int, _is("Shards of each new collection.", "shards", ge=1, le=1024)] = 1


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """The encoding worker."""

    address: Annotated[
        str, _is("Where it listens; empty: encoder.sock in the data directory.", "unix:///path or host:port")
    ] = ""
    model: Annotated[str, _is("A folder, or a hub name; empty: the packaged MiniLM.")] = ""
    device: Annotated[
        str, _is("Where the model runs.", "auto, cpu, cuda, cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)\Z")
    ] = "auto"
    token_budget: Annotated[int, _is("Tokens of one forward pass; 0: by device.", "tokens", ge=0)] = 0
    cache_entries: Annotated[int, _is("Texts whose vectors are kept.", "texts", ge=0)] = 100_000
    threads: Annotated[int, _is("Compute threads on a CPU; 0: every core.", "threads", ge=0, le=1024)] = 1
    query_prefix: Annotated[str, _is("Put before every query; empty: what the model itself asks for.")] = ""
    product_prefix: Annotated[str, _is("Put before every product's text; empty: what the model asks for.")] = ""


class Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """What shapes a profile's state. A generation keeps those it was made with: `afterglow replay` makes another."""

    half_life_long: Annotated[Duration, _is("After it an event counts half for the lasting taste.", "duration")] = (
        Duration(30 * 86_400_000)
    )
    half_life_short: Annotated[Duration, _is("After it an event counts half for what is on now.", "duration")] = (
        Duration(3_600_000)
    )
    weight_search: Annotated[float, _is("Weight of a search.", gt=0, le=1_000_000)] = 1.0
    weight_click: Annotated[float, _is("Weight of a click after a search.", gt=0, le=1_000_000)] = 2.0
    weight_purchase: Annotated[float, _is("Weight of a purchase.", gt=0, le=1_000_000)] = 4.0
    history_purchases: Annotated[int, _is("Bought products remembered.", "products", ge=1, le=4096)] = 256
    history_searches: Annotated[int, _is("Queries and clicked products remembered.", "keys", ge=1, le=4096)] = 16
    event_id_memory: Annotated[int, _is("Event ids remembered, to know a repeat.", "events", ge=0, le=4096)] = 32
    pending: Annotated[int, _is("Products not known yet that may wait.", "products", ge=0, le=65_535)] = 4096
    noise_rules: Annotated[
        int, _is("Version of the rules by which noise and machines' searches weigh less; 0: none.", ge=0, le=RULES)
    ] = RULES


class Derivation(msgspec.Struct, frozen=True, kw_only=True):
    """What readers see, derived from the state. May change at any time."""

    regularisation: Annotated[float, _is("Weight of knowing nothing (λ).", "weight", gt=0, le=1_000_000)] = 1.0
    interests: Annotated[int, _is("Most interests of a user (K).", ge=1, le=4)] = 4
    interest_similarity: Annotated[
        float, _is("From this similarity on, two things are one interest (τ).", "cosine", ge=-1, le=1)
    ] = 0.4
    candidates: Annotated[int, _is("Products recommended.", "products", ge=1, le=1000)] = 20
    candidates_move: Annotated[
        float,
        _is("How much of a profile's weight is new before it is recommended anew.", "share of its weight", ge=0, le=1),
    ] = 0.05
    candidates_interval: Annotated[Duration, _is("A user is recommended anew once in this time.", "duration")] = (
        Duration(10_000)
    )
    exclude_bought: Annotated[bool, _is("Whether what was bought is never recommended again.")] = False
    exposure: Annotated[
        float,
        _is("What being shown to others costs: times ln(1 + lists of 1,000 that hold it).", "log-odds", ge=0, le=10),
    ] = 0.13
    exploration: Annotated[
        int, _is("The last places of a list, for what is shown least of the 200 best.", "products", ge=0, le=100)
    ] = 0


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One Faust worker."""

    batch_events: Annotated[int, _is("Most events of a batch.", "events", ge=1, le=1_000_000)] = 2048
    linger: Annotated[Duration, _is("How long a batch waits for more events while another is at work.", "duration")] = (
        Duration(20)
    )
    buffer_events: Annotated[int, _is("Events read ahead.", "events", ge=1, le=10_000_000)] = 8192
    chunk_users: Annotated[int, _is("Profiles of one write.", "users", ge=1, le=4096)] = 128
    inline_users: Annotated[
        int,
        _is("Batches of at most so many users derive candidates at once; larger ones put it off.", "users", ge=0),
    ] = 8
    writes_in_flight: Annotated[
        int, _is("Writes of events under way at once; of what was put off, two more.", "writes", ge=1, le=64)
    ] = 3
    profile_cache: Annotated[int, _is("Memory for profiles just read or written.", "bytes", ge=0)] = 134_217_728
    cached_products: Annotated[int, _is("Products kept in memory.", "products", ge=0)] = 100_000
    sweep_interval: Annotated[Duration, _is("How often work that was put off is looked for.", "duration")] = Duration(
        1000
    )
    metrics_port: Annotated[int, _is("Where Prometheus reads figures; 0: nowhere.", "port", ge=0, le=65_535)] = 0


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is known across users, by `afterglow statistics`."""

    users: Annotated[int, _is("Most users of the sample that is learned from.", "users", ge=1)] = 20_000
    products: Annotated[int, _is("Most products that are counted.", "products", ge=100)] = 100_000
    interval: Annotated[
        Duration,
        _is(
            "How often they are renewed while more events wait; else when a tenth of the time is enough to write them.",
            "duration",
        ),
    ] = Duration(10_000)


class Retraining(msgspec.Struct, frozen=True, kw_only=True):
    """When `afterglow retrain` trains the model anew, and what it keeps."""

    events: Annotated[
        int, _is("Newest searches and purchases that are looked at and learned from.", "events", ge=1000)
    ] = 200_000
    unseen_words: Annotated[
        float, _is("Drift: what customers say and buy has so many words that the model never saw.", "share", gt=0, le=1)
    ] = 0.05
    bad_matches: Annotated[
        float, _is("Drift: so many queries match as badly as the worst tenth once did.", "share", gt=0, le=1)
    ] = 0.2
    recall_loss: Annotated[
        float, _is("Drift: recall has lost so much since the time before, beyond chance.", "share", gt=0, le=1)
    ] = 0.1
    new_events: Annotated[
        float, _is("After a training: as much of what it read must be new for another one.", "share", gt=0, le=1)
    ] = 0.05
    keep: Annotated[
        int, _is("Generations of trained models that are kept, for the way back.", "generations", ge=1, le=100)
    ] = 3


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; `sources` says where each value that is not a default came from."""

    data_dir: Path = Path(".afterglow")
    generation: Annotated[
        str,
        _is(
            "Work on this generation, served or not; empty: the one readers see, at first `main`.",
            "a-z, 0-9, . _ -, no more than 64",
            pattern=r"^([a-z0-9][a-z0-9_.-]{0,63})?\Z",
        ),
    ] = ""
    secret_file: Annotated[
        Path,
        _is("Keys the ids of points; made by `afterglow up`; default: `secret` in the data directory.", "path"),
    ] = Path(".afterglow/secret")
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    qdrant: Qdrant = Qdrant()
    encoder: Encoder = Encoder()
    profiles: Profiles = Profiles()
    derivation: Derivation = Derivation()
    worker: Worker = Worker()
    statistics: Statistics = Statistics()
    retraining: Retraining = Retraining()
    sources: Mapping[str, str] = types.MappingProxyType({})

    @property
    def encoder_address(self) -> str:
        """`encoder.address`, or the one it stands for where it is empty."""
        return self.encoder.address or f"unix://{self.data_dir.absolute() / 'encoder.sock'}"

    def source(self, name: str) -> str:
        """Where the value of `section.field` came from."""
        return self.sources.get(name, "default")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as `afterglow settings` shows it; a secret's value is masked."""

    name: str
    value: str | int | float | bool
    source: str
    unit: str
    default: str | int | float | bool
    description: str
    variable: str


_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "kafka": Kafka,
    "topics": Topics,
    "qdrant": Qdrant,
    "encoder": Encoder,
    "profiles": Profiles,
    "derivation": Derivation,
    "worker": Worker,
    "statistics": Statistics,
    "retraining": Retraining,
}
_TOP: Final = ("generation", "secret_file")
# Variables of the same prefix that are not settings.
_OTHER_VARIABLES: Final = frozenset({"AFTERGLOW_QDRANT_BIN"})


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

    given: dict[str, _Given] = {}
    given.update(_from_running(data_dir))
    if config_file is not None:
        given.update(_from_file(config_file))
    given.update(_from_environment(environment))
    for name, text in (overrides or {}).items():
        if name not in _fields():
            raise InvalidSettings(f"there is no setting {name} (command line)")
        given[name] = _Given(text, "command line", strict=False)

    top: dict[str, object] = {"data_dir": data_dir, "secret_file": data_dir / "secret"}
    sections: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
    for name, (raw, source, strict) in given.items():
        section, _, field = name.rpartition(".")
        (sections[section] if section else top)[field] = _convert(name, raw, source, strict=strict)
    settings = Settings(
        **typing.cast("dict[str, typing.Any]", top),
        **{section: _SECTIONS[section](**values) for section, values in sections.items()},  # type: ignore[arg-type]
        sources={name: origin.source for name, origin in given.items()},
    )
    _require_consistency(settings)
    return settings


def _require_consistency(settings: Settings) -> None:
    for names, problem in _problems(settings):
        where = "; ".join(f"{name} is from: {settings.source(name)}" for name in names)
        raise InvalidSettings(f"{problem} ({where})")


def changed(settings: Settings, overrides: Mapping[str, str]) -> Settings:
    """The settings with these values of the command line's, by `section.field`, checked. Raises `InvalidSettings`."""
    for name, text in overrides.items():
        if name not in _fields():
            raise InvalidSettings(f"there is no setting {name} (command line)")
        section, _, field = name.rpartition(".")
        value = {field: _convert(name, text, "command line", strict=False)}
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
    for name, (_, meta) in _fields().items():
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


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "AFTERGLOW_" + name.replace(".", "_").upper()


class _Given(NamedTuple):
    raw: object
    source: str
    strict: bool  # a typed value (TOML), else a text to be read


@functools.cache
def _fields() -> dict[str, tuple[object, msgspec.Meta]]:
    """Each setting's annotated type and its meaning, by name."""
    found: dict[str, tuple[object, msgspec.Meta]] = {}
    top = typing.get_type_hints(Settings, include_extras=True)
    for field in _TOP:
        found[field] = (top[field], top[field].__metadata__[0])
    for section, struct in _SECTIONS.items():
        for field, annotated in typing.get_type_hints(struct, include_extras=True).items():
            found[f"{section}.{field}"] = (annotated, annotated.__metadata__[0])
    return found


def _from_running(data_dir: Path) -> Iterator[tuple[str, _Given]]:
    try:
        running = read_addresses(data_dir)
    except ValueError as error:
        raise InvalidSettings(str(error)) from None
    if running is not None:
        source = f"running `afterglow up` ({addresses_file(data_dir)})"
        yield "kafka.bootstrap_servers", _Given(running.kafka, source, strict=True)
        yield "qdrant.address", _Given(running.qdrant, source, strict=True)
        yield "encoder.address", _Given(running.encoder, source, strict=True)
        yield "secret_file", _Given(running.secret_file, source, strict=True)


def _from_file(file: Path) -> Iterator[tuple[str, _Given]]:
    try:
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise InvalidSettings(f"there is no settings file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the settings file {file} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"the settings file {file} is not TOML: {error}") from None
    for key, value in content.items():
        if key in _SECTIONS:
            if not isinstance(value, dict):
                raise InvalidSettings(f"{key} is a section in {file}: write it as a table, [{key}]")
            for field, raw in value.items():
                if f"{key}.{field}" not in _fields():
                    known = ", ".join(name.partition(".")[2] for name in _fields() if name.startswith(f"{key}."))
                    raise InvalidSettings(f"there is no setting {key}.{field} ({file}); [{key}] has {known}")
                yield f"{key}.{field}", _Given(raw, str(file), strict=True)
        elif key in _TOP:
            yield key, _Given(value, str(file), strict=True)
        else:
            known = ", ".join((*_TOP, *_SECTIONS))
            raise InvalidSettings(f"there is no setting or section {key} ({file}); there are {known}")


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    names = {variable(name): name for name in _fields()}
    sections = tuple(f"AFTERGLOW_{section.upper()}_" for section in _SECTIONS)
    for key, text in environment.items():
        if key in names:
            yield names[key], _Given(text, f"environment variable {key}", strict=False)
        elif key.startswith(sections) and key not in _OTHER_VARIABLES and not _is_of_a_service(key, text):
            raise InvalidSettings(f"there is no setting for the environment variable {key}; see `afterglow settings`")


def _is_of_a_service(key: str, text: str) -> bool:
    """Kubernetes sets AFTERGLOW_QDRANT_SERVICE_HOST and the like in every pod, for a service of that name."""
    return "_SERVICE_" in key or "_PORT_" in key or text.startswith(("tcp://", "udp://"))


def _convert(name: str, raw: object, source: str, *, strict: bool) -> object:
    annotated, meta = _fields()[name]
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


def _problems(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between settings that are each right, with the names of those concerned."""
    kafka, topics, profiles, worker = settings.kafka, settings.topics, settings.profiles, settings.worker
    for server in kafka.bootstrap_servers.split(","):
        if not _is_host_port(server.strip()):
            yield ("kafka.bootstrap_servers",), f"kafka.bootstrap_servers: expected host:port, got {server!r}"
    if not _is_host_port(settings.qdrant.address):
        yield (
            ("qdrant.address",),
            f"qdrant.address: expected host:port of gRPC, got {settings.qdrant.address!r}",
        )
    address = settings.encoder.address
    if address and not address.startswith("unix:///") and not _is_host_port(address):
        yield ("encoder.address",), f"encoder.address: expected unix:///path or host:port, got {address!r}"
    if kafka.security_protocol.startswith("SASL_"):
        for field in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if not getattr(kafka, field):
                names = ("kafka.security_protocol", f"kafka.{field}")
                yield names, f"kafka.{field} is needed with kafka.security_protocol {kafka.security_protocol}"
    elif kafka.sasl_mechanism:
        names = ("kafka.sasl_mechanism", "kafka.security_protocol")
        yield names, "kafka.sasl_mechanism needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT"
    by_topic: dict[str, str] = {}
    for field in ("searches", "purchases", "products", "dead_letters"):
        name = getattr(topics, field)
        if name in by_topic:
            names = (f"topics.{by_topic[name]}", f"topics.{field}")
            yield names, f"topics.{by_topic[name]} and topics.{field} must differ, both are {name!r}"
        by_topic[name] = field
    if profiles.half_life_short.milliseconds >= profiles.half_life_long.milliseconds:
        yield (
            ("profiles.half_life_short", "profiles.half_life_long"),
            f"profiles.half_life_short ({profiles.half_life_short}) must be shorter than "
            f"profiles.half_life_long ({profiles.half_life_long})",
        )
    for name, duration in (
        ("profiles.half_life_short", profiles.half_life_short),
        ("qdrant.timeout", settings.qdrant.timeout),
        ("worker.sweep_interval", worker.sweep_interval),
        ("topics.retention", topics.retention),
    ):
        if duration.milliseconds == 0:
            yield (name,), f"{name}: expected more than 0"
    if worker.buffer_events < worker.batch_events:
        yield (
            ("worker.buffer_events", "worker.batch_events"),
            f"worker.buffer_events ({worker.buffer_events}) must hold a batch of worker.batch_events "
            f"({worker.batch_events})",
        )


def _is_host_port(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 0 < int(match[2]) < 65_536


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
