"""Making what is missing of a generation: its collections, their indexes, its record, and the aliases for readers."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from qdrant_client import AsyncQdrantClient, models

from sinks.collections import (
    ALIASES,
    GENERATION_POINT,
    PROBE_POINT,
    Generation,
    Model,
    RefusedGeneration,
    products_collection,
    profiles_collection,
    read_generation,
    statistics_collection,
)
from sinks.points import Payload, payload_point
from sinks.retry import PermanentSinkError, RetryPolicy, until_answered
from sinks.writes import VERSION_LIMIT, Write, new_version, read_versions, upsert, upsert_request, write

Answer = TypeVar("Answer")


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
        await self._write(collection, Write(PROBE_POINT, first, None, payload_point(PROBE_POINT, first, {})))
        stored = await self._version(collection, PROBE_POINT)
        other = stored % (VERSION_LIMIT - 2) + 1
        unwanted = Write(PROBE_POINT, other, None, payload_point(PROBE_POINT, other, {}))
        request = upsert_request(collection, [unwanted], self._replication.replicated)
        await self._until_answered(
            collection,
            "an upsert",
            lambda: upsert(self._client, request),
        )
        if await self._version(collection, PROBE_POINT) != stored:
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
