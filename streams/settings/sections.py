"""Everything that can be set: its meaning, unit, bounds and default. A section is a struct, a field a setting."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from encoders.noise import RULES
from streams.settings.values import Duration, Retention, Secret

_TOPIC: Final = r"^[a-zA-Z0-9._-]{1,249}\Z"
_NAME_OF_TOPIC: Final = "letters, digits, . _ -"


def _is(description: str, unit: str = "", **bounds: typing.Any) -> msgspec.Meta:
    """What a field means, its unit, and its bounds (msgspec's: ge, gt, le, lt, pattern)."""
    return msgspec.Meta(description=description, extra={"unit": unit}, **bounds)


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


SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
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
TOP: Final = ("generation", "secret_file")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "AFTERGLOW_" + name.replace(".", "_").upper()


@functools.cache
def fields() -> dict[str, tuple[object, msgspec.Meta]]:
    """Each setting's annotated type and its meaning, by name."""
    found: dict[str, tuple[object, msgspec.Meta]] = {}
    top = typing.get_type_hints(Settings, include_extras=True)
    for field in TOP:
        found[field] = (top[field], top[field].__metadata__[0])
    for section, struct in SECTIONS.items():
        for field, annotated in typing.get_type_hints(struct, include_extras=True).items():
            found[f"{section}.{field}"] = (annotated, annotated.__metadata__[0])
    return found
