"""A generation in Qdrant: three collections, the record of what shaped it, and the aliases that readers use.

Everything that shapes a ledger belongs to a generation and never changes within it. Its collections are
`profiles--NAME`, `products--NAME` and `statistics--NAME`. Workers use these names; the aliases `profiles`, `products`
and `statistics` are for readers, and lead to the generation that is being served.

`statistics--NAME` holds points without vectors, each by a fixed id, all written by the rule of `sinks.writes`:

========================================  ==================================================================
`00000000-0000-0000-0000-000000000001`    the generation: `generation` (JSON of `Generation`), `version`
`00000000-0000-0000-0000-000000000002`    the mean of the products' vectors: `n` (products it was made from),
                                          `vector` (base64 of [d] little-endian float32), `version`
`00000000-0000-0000-0000-000000000003`    nothing but `version`: shows that the server heeds conditions
========================================  ==================================================================
"""

import binascii
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import grpc
import msgspec
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.points import Payload, Stored, Vector, payload_point
from sinks.retry import PermanentReadError, PermanentSinkError, RetryPolicy, until_answered
from sinks.writes import MAJORITY, VERSION_LIMIT, Write, new_version, read_versions, upsert, upsert_request, write

Answer = TypeVar("Answer")

ALIASES = ("profiles", "products", "statistics")

GENERATION_POINT = "00000000-0000-0000-0000-000000000001"
_MEAN_POINT = "00000000-0000-0000-0000-000000000002"
_PROBE_POINT = "00000000-0000-0000-0000-000000000003"


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


@dataclass(frozen=True, slots=True)
class Replication:
    """How new collections are spread over a cluster of Qdrant servers."""

    replication_factor: int = 1
    shard_number: int = 1

    @property
    def replicated(self) -> bool:
        return self.replication_factor > 1


async def open_generation(
    client: AsyncQdrantClient,
    wanted: Generation,
    *,
    replication: Replication | None = None,
    retry: RetryPolicy | None = None,
    serve: bool = True,
) -> Generation:
    """Make what is missing of a generation, and make sure that what is there was made for the same purpose.

    Idempotent, and safe to call from many workers at once: of two that record the generation, one wins, and the other
    compares. The record is written and compared before the collections with vectors are made, so that a worker that
    is refused leaves nothing behind that its successor would trip over. With `serve`, aliases are made where there are
    none; they are repointed by `sinks.generations.serve`.

    Returns:
        The generation as it is recorded: `wanted`, or one that was created earlier. Its fold settings may then be
        others than the wanted ones, and hold: ledgers folded in two ways could not be told apart.

    Raises:
        RefusedGeneration: model or secret differ from the recorded ones, or the server ignores conditions (Qdrant
            before 1.16).
        PermanentSinkError: Qdrant refused a call for good.
        ValueError: the name does not fit into a collection's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", wanted.name):
        raise ValueError(f"{wanted.name!r} can't name a generation: use at most 100 letters, digits, '_', '-' and '.'")
    replication = replication or Replication()
    retry = retry or RetryPolicy()
    opening = _Opening(client, replication, retry)

    await opening.collection(statistics_collection(wanted.name), {}, graph=False, indexes={})
    await opening.require_conditions(statistics_collection(wanted.name))
    recorded = await opening.record(wanted)
    _compare(recorded, wanted)

    dimension = wanted.model.dimension
    await opening.collection(
        profiles_collection(wanted.name),
        {
            "long": _vector(dimension, models.Datatype.FLOAT16),
            "short": _vector(dimension, models.Datatype.FLOAT16),
            "interests": _vector(dimension, models.Datatype.FLOAT16, several=True),
        },
        graph=False,  # read by id; a graph would cost half of a write, and five times the background work
        indexes={
            "due": models.PayloadSchemaType.INTEGER,
            "pending": models.PayloadSchemaType.KEYWORD,
            "partition": models.PayloadSchemaType.INTEGER,
        },
    )
    await opening.collection(
        products_collection(wanted.name),
        {"text": _vector(dimension, models.Datatype.FLOAT32)},
        graph=True,
        words=True,
        indexes={
            "kind": models.PayloadSchemaType.KEYWORD,
            "available": models.PayloadSchemaType.BOOL,
            "product_id": models.PayloadSchemaType.KEYWORD,
        },
    )
    if serve:
        await opening.aliases(wanted.name)
    return recorded


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


_NO_LANDMARKS = np.zeros((0, 0), np.int8)


class Mean(NamedTuple):
    """The mean μ of the catalogue's unit vectors, which queries are centred by."""

    version: int
    n: int
    """The number of products it was made from."""
    vector: Vector
    """[d] float32, not of unit length."""
    landmarks: NDArray[np.int8] = _NO_LANDMARKS
    """[m, d], m up to 256: what `sinks.support.landmarks_of` made with it; m is 0 where it was stored without."""


async def read_mean(
    client: AsyncQdrantClient, name: str, *, replicated: bool = False, retry: RetryPolicy | None = None
) -> Mean | None:
    """The mean of a generation's products; None if there is none yet.

    Raises:
        PermanentSinkError: Qdrant refused the call for good.
    """
    stored = await read_point(
        client, statistics_collection(name), _MEAN_POINT, replicated=replicated, retry=retry or RetryPolicy()
    )
    if stored is None:
        return None
    data = binascii.a2b_base64(stored["vector"].string_value, strict_mode=True)
    vector = np.frombuffer(data, "<f4")
    landmarks = np.frombuffer(binascii.a2b_base64(stored["landmarks"].string_value), np.int8)
    return Mean(stored["version"].integer_value, stored["n"].integer_value, vector, landmarks.reshape(-1, len(vector)))


async def write_mean(
    client: AsyncQdrantClient,
    name: str,
    mean: Mean,
    *,
    replaces: int | None,
    replicated: bool = False,
    retry: RetryPolicy | None = None,
) -> bool:
    """Replace the mean that was read in version `replaces` (None: there was none), as `sinks.writes.write` does.

    Returns:
        Whether `mean` is stored. If not, another worker's is: read that.

    Raises:
        ValueError: the vector is not finite.
        PermanentSinkError: Qdrant refused the call for good.
    """
    if not np.isfinite(mean.vector).all():
        raise ValueError(f"the mean of {mean.n} products of generation {name!r} is not finite")
    payload: Payload = {
        "n": mean.n,
        "vector": np.ascontiguousarray(mean.vector, "<f4").tobytes(),
        "landmarks": mean.landmarks.tobytes(),
    }
    point = payload_point(_MEAN_POINT, mean.version, payload)
    (mine,) = await write(
        client,
        statistics_collection(name),
        [Write(_MEAN_POINT, mean.version, replaces, point)],
        replicated=replicated,
        retry=retry,
    )
    return mine


def _compare(recorded: Generation, wanted: Generation) -> None:
    differences = []
    if recorded.model.identity != wanted.model.identity or recorded.model.dimension != wanted.model.dimension:
        differences.append(
            f"its vectors were made by the model {_described(recorded.model)}, and this worker has "
            f"{_described(wanted.model)}; vectors of two models can't be compared. Run it with the former "
            "(encoder.model, encoder.query_prefix, encoder.product_prefix)"
        )
    if recorded.secret_fingerprint != wanted.secret_fingerprint:
        differences.append(
            f"its point ids were made with the secret of fingerprint {recorded.secret_fingerprint}, and this worker's "
            f"has {wanted.secret_fingerprint}; nobody would be found. Give it the secret file of the former "
            "(secret_file)"
        )
    if differences:
        raise RefusedGeneration(
            f"generation {wanted.name!r} is not this worker's: {'. And '.join(differences)}, or make a new generation: "
            "`afterglow replay`."
        )


def _described(model: Model) -> str:
    return f"{model.name} ({model.identity}, {model.dimension} dimensions)"


def _vector(dimension: int, datatype: models.Datatype, *, several: bool = False) -> models.VectorParams:
    return models.VectorParams(
        size=dimension,
        distance=models.Distance.COSINE,
        datatype=datatype,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        if several
        else None,
    )


class _Opening:
    """The steps of `open_generation`: each makes what is missing, and does no harm when repeated."""

    def __init__(self, client: AsyncQdrantClient, replication: Replication, retry: RetryPolicy) -> None:
        self._client = client
        self._replication = replication
        self._retry = retry

    async def collection(
        self,
        name: str,
        vectors: dict[str, models.VectorParams],
        *,
        graph: bool,
        words: bool = False,
        indexes: dict[str, models.PayloadSchemaType],
    ) -> None:
        if not await self._exists(name):
            try:
                await self._until_answered(
                    name,
                    "making the collection",
                    lambda: self._client.create_collection(
                        name,
                        vectors_config=vectors,
                        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)}
                        if words
                        else None,
                        hnsw_config=None if graph else models.HnswConfigDiff(m=0),
                        shard_number=self._replication.shard_number,
                        replication_factor=self._replication.replication_factor,
                        # What is acknowledged is on a majority, so that reads of a majority see it.
                        write_consistency_factor=self._replication.replication_factor // 2 + 1,
                    ),
                )
            except PermanentSinkError:
                # Another worker made it in between, or an attempt of ours whose answer was lost.
                if not await self._exists(name):
                    raise
        for field, kind in indexes.items():
            await self._until_answered(
                name,
                f"indexing {field!r}",
                lambda field=field, kind=kind: self._client.create_payload_index(name, field, kind),  # type: ignore[misc]
            )

    async def require_conditions(self, collection: str) -> None:
        """Refuse a server that takes no notice of an upsert's condition: before 1.16, Qdrant skips what it does not
        know, and every write would replace whatever is there.
        """
        first = new_version()
        await self._write(collection, Write(_PROBE_POINT, first, None, payload_point(_PROBE_POINT, first, {})))
        stored = await self._version(collection, _PROBE_POINT)
        other = stored % (VERSION_LIMIT - 2) + 1
        unwanted = Write(_PROBE_POINT, other, None, payload_point(_PROBE_POINT, other, {}))
        request = upsert_request(collection, [unwanted], self._replication.replicated)
        await self._until_answered(
            collection,
            "an upsert",
            lambda: upsert(self._client, request),
        )
        if await self._version(collection, _PROBE_POINT) != stored:
            raise RefusedGeneration(
                "this Qdrant replaces a point although its condition (update_filter) does not hold, so that writers "
                "would overwrite each other's work: Afterglow needs Qdrant 1.16 or newer."
            )

    async def record(self, wanted: Generation) -> Generation:
        collection = statistics_collection(wanted.name)
        version = new_version()
        payload: Payload = {"generation": msgspec.json.encode(wanted).decode()}
        await self._write(
            collection,
            Write(GENERATION_POINT, version, None, payload_point(GENERATION_POINT, version, payload)),
        )
        recorded = await read_generation(self._client, wanted.name, retry=self._retry)
        if recorded is None:
            raise RefusedGeneration(
                f"the record of generation {wanted.name!r} vanished while it was being made: is somebody deleting "
                f"collection {collection!r}?"
            )
        return recorded

    async def aliases(self, name: str) -> None:
        response = await self._until_answered("all collections", "listing aliases", self._client.get_aliases)
        there = {alias.alias_name for alias in response.aliases}
        missing = [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=f"{alias}--{name}", alias_name=alias)
            )
            for alias in ALIASES
            if alias not in there
        ]
        if missing:
            await self._until_answered(
                f"*--{name}",
                "making aliases",
                lambda: self._client.update_collection_aliases(change_aliases_operations=missing),
            )

    async def _exists(self, name: str) -> bool:
        return await self._until_answered(name, "a look-up", lambda: self._client.collection_exists(name))

    async def _write(self, collection: str, only: Write) -> None:
        await write(self._client, collection, [only], replicated=self._replication.replicated, retry=self._retry)

    async def _version(self, collection: str, id_: str) -> int:
        versions = await read_versions(
            self._client, collection, [id_], replicated=self._replication.replicated, retry=self._retry
        )
        return versions.get(id_, 0)

    async def _until_answered(self, collection: str, doing: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        return await until_answered(call, doing=doing, collection=collection, retry=self._retry)


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
