"""A generation in Qdrant: the names of its three collections, and the record of what shaped it.

Everything that shapes a ledger belongs to a generation and never changes within it. Its collections are
`profiles--NAME`, `products--NAME` and `statistics--NAME`. Workers use these names; the aliases `profiles`, `products`
and `statistics` are for readers, and lead to the generation that is being served.

`statistics--NAME` holds points without vectors, each by a fixed id, all written by the rule of `sinks.writes`:

========================================  ==================================================================
`00000000-0000-0000-0000-000000000001`    the generation: `generation` (JSON of `Generation`), `version`
`00000000-0000-0000-0000-000000000002`    the mean of the products' vectors: `n` (products it was made from),
                                          `vector` (base64 of [d] little-endian float32), `landmarks` (base64 of
                                          [m, d] int8), `version`
`00000000-0000-0000-0000-000000000003`    nothing but `version`: shows that the server heeds conditions
========================================  ==================================================================
"""

import grpc
import msgspec
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.retry import PermanentReadError, RetryPolicy, until_answered
from sinks.stored import Stored
from sinks.writes import MAJORITY

ALIASES = ("profiles", "products", "statistics")

GENERATION_POINT = "00000000-0000-0000-0000-000000000001"
MEAN_POINT = "00000000-0000-0000-0000-000000000002"
PROBE_POINT = "00000000-0000-0000-0000-000000000003"


def profiles_collection(name: str) -> str:
    """The real name of a generation's profiles."""
    return f"profiles--{name}"


def products_collection(name: str) -> str:
    """The real name of a generation's products."""
    return f"products--{name}"


def statistics_collection(name: str) -> str:
    """The real name of a generation's record, mean and statistics."""
    return f"statistics--{name}"


class Model(msgspec.Struct, frozen=True):
    """The encoder whose vectors a generation holds."""

    name: str
    identity: str
    """Equal if and only if vectors are interchangeable."""
    dimension: int
    source: str = ""
    """What it was loaded from: a folder, a hub name, or "" for the packaged model."""
    query_prefix: str | None = None
    """What was put before every query, "" for nothing; None where an older version did not record it."""
    product_prefix: str | None = None


class Source(msgspec.Struct, frozen=True):
    """A topic that a generation is made from."""

    topic: str
    id: str
    """Kafka's: a topic deleted and made anew has another."""
    start: list[int]
    """For each partition, the first offset that belongs to the generation."""
    earlier: list[str] = []
    """Ids of the topics of this name before it, whose events the ledgers still hold."""


class Built(msgspec.Struct, frozen=True):
    """How far a replay had come when it handed the generation over."""

    at_ms: int
    until: dict[str, list[int]]
    """By role and partition: the offset that was to be read next."""


class Generation(msgspec.Struct, frozen=True):
    """What a generation was made from. Model, secret and fold never change: they shape every ledger."""

    name: str
    model: Model
    secret_fingerprint: str
    """Of the secret that point ids are made with: `PointIds.fingerprint`."""
    fold: dict[str, object]
    """The settings of the fold (half-lives, weights, bounds), by name: what JSON can hold."""
    created_at_ms: int
    sources: dict[str, Source] = {}
    """By role: `searches`, `purchases`, `products`. Changes when a topic is made anew."""
    from_ms: int | None = None
    """Events whose records are older than this were left out; None: nothing was."""
    replayed: bool = False
    """Whether it is made by a replay; False: by live workers, from the first event on."""
    built: Built | None = None
    """Of a replay that was completed."""


class RefusedGeneration(Exception):
    """What a worker brings does not fit what the generation was made with, or Qdrant is too old to keep it."""


async def read_generation(
    client: AsyncQdrantClient, name: str, *, retry: RetryPolicy | None = None
) -> Generation | None:
    """The generation as it is recorded; None if there is none of that name.

    Raises:
        PermanentSinkError: Qdrant refused a call for good.
        RefusedGeneration: there is a record that this version can't read.
    """
    collection = statistics_collection(name)
    try:
        stored = await read_point(client, collection, GENERATION_POINT, replicated=False, retry=retry or RetryPolicy())
    except PermanentReadError as error:
        if error.code is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored["generation"].string_value, type=Generation)
    except msgspec.DecodeError as error:
        raise RefusedGeneration(
            f"the record of generation {name!r} can't be read by this version ({error}). Run the version that wrote "
            "it, or replay into a new generation (`afterglow replay`)."
        ) from error


async def read_point(
    client: AsyncQdrantClient, collection: str, id_: str, *, replicated: bool, retry: RetryPolicy
) -> Stored | None:
    """The payload of one point; None where there is none. Raises PermanentSinkError."""
    request = qdrant.GetPoints(
        collection_name=collection,
        ids=[qdrant.PointId(uuid=id_)],
        with_payload=qdrant.WithPayloadSelector(enable=True),
        with_vectors=qdrant.WithVectorsSelector(enable=False),
        read_consistency=MAJORITY if replicated else None,
    )
    response: qdrant.GetResponse = await until_answered(
        lambda: client.grpc_points.Get(request, timeout=timeout_of(client)),
        doing="a read",
        collection=collection,
        retry=retry,
    )
    return response.result[0].payload if response.result else None
