"""Queries from the wire to the engine: nearest, recommend, discover, context, fusion, order, sample, MMR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant.catalogue import Catalogue
from deploy.qdrant.collection import Collection
from deploy.qdrant.filters import engine_filter, optional_filter, selection
from deploy.qdrant.packing import VECTORS, paths_in
from deploy.qdrant.points import DEFAULT_VECTOR, EngineVector, PointId, point_id, query_vector
from deploy.qdrant.refusals import invalid, not_found, unserved

ScoringQuery = edge.Query | edge.Fusion | edge.OrderBy | edge.Sample | edge.Mmr

DEFAULT_LIMIT = 10
_DEFAULT_RRF_K = 2
_DEFAULT_DIVERSITY = 0.5
_WITHOUT_VECTORS = (None, "fusion", "rrf", "sample")
_SCORINGS_A_CALL = 800_000


class _Translation:
    """One query: resolves points given by id to their vectors, and remembers to leave those points out."""

    def __init__(self, catalogue: Catalogue, collection: Collection) -> None:
        self._catalogue = catalogue
        self._collection = collection

    def request(self, message: wire.QueryPoints) -> edge.QueryRequest:
        limit = message.limit if message.HasField("limit") else DEFAULT_LIMIT
        if limit < 1:
            raise invalid("limit: value 0 invalid, must be 1 or larger")
        query, mentioned = self._scoring(message)
        asked = selection(message, self._collection.layout, unset=False)
        return edge.QueryRequest(
            limit=limit,
            offset=message.offset,
            query=query,
            prefetches=[self._prefetch(prefetch) for prefetch in message.prefetch] or None,
            with_vector=asked.vectors,
            with_payload=asked.payload,
            filter=_without(mentioned, optional_filter(message)),
            score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
            params=_params(message),
        )

    def _prefetch(self, message: wire.PrefetchQuery) -> edge.Prefetch:
        query, mentioned = self._scoring(message)
        return edge.Prefetch(
            limit=message.limit if message.HasField("limit") else DEFAULT_LIMIT,
            query=query,
            prefetches=[self._prefetch(prefetch) for prefetch in message.prefetch] or None,
            params=_params(message),
            filter=_without(mentioned, optional_filter(message)),
            score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        )

    def _scoring(self, message: wire.QueryPoints | wire.PrefetchQuery) -> tuple[ScoringQuery | None, set[PointId]]:
        if not message.HasField("query"):
            return None, set()
        query = message.query
        kind = query.WhichOneof("variant")
        vectors = _Examples(self._catalogue, self._collection, message)
        if kind == "nearest":
            return edge.Query.Nearest(vectors.of(query.nearest), using=vectors.using), vectors.mentioned
        if kind == "recommend":
            return _recommend(query.recommend, vectors), vectors.mentioned
        if kind == "discover":
            discover = edge.DiscoverQuery(
                vectors.of(query.discover.target), _pairs(query.discover.context.pairs, vectors)
            )
            return edge.Query.Discover(discover, using=vectors.using), vectors.mentioned
        if kind == "context":
            context = edge.ContextQuery(_pairs(query.context.pairs, vectors))
            return edge.Query.Context(context, using=vectors.using), vectors.mentioned
        if kind == "nearest_with_mmr":
            return _mmr(query.nearest_with_mmr, vectors, message), vectors.mentioned
        if kind == "fusion":
            if query.fusion == wire.Fusion.Value("DBSF"):
                return cast("edge.Fusion", edge.Fusion.Dbsf()), set()
            return _rrf(_DEFAULT_RRF_K), set()
        if kind == "rrf":
            k = query.rrf.k if query.rrf.HasField("k") else _DEFAULT_RRF_K
            return _rrf(k, list(query.rrf.weights) or None), set()
        if kind == "order_by":
            return order_by(query.order_by), set()
        if kind == "sample":
            return edge.Sample.Random, set()
        raise unserved(f"queries of the kind {kind!r}")


class _Examples:
    """The vectors that a query is made of, given literally or as points of this or another collection."""

    def __init__(
        self, catalogue: Catalogue, collection: Collection, message: wire.QueryPoints | wire.PrefetchQuery
    ) -> None:
        self.using: str = message.using if message.HasField("using") else DEFAULT_VECTOR
        self.mentioned: set[PointId] = set()
        self._collection = collection
        self._source = collection
        self._source_vector = self.using
        if message.HasField("lookup_from"):
            self._source = catalogue.get(message.lookup_from.collection_name)
            if message.lookup_from.HasField("vector_name"):
                self._source_vector = message.lookup_from.vector_name

    def of(self, message: wire.VectorInput) -> EngineVector:
        """Raises `Refused`: NOT_FOUND for a missing point, INVALID_ARGUMENT for a vector that doesn't fit."""
        if message.WhichOneof("variant") is None:
            raise invalid("a query's vector is empty")
        if message.WhichOneof("variant") != "id":
            return query_vector(message, self.using, self._collection.layout.slots)
        identity = point_id(message.id)
        if self._source_vector not in self._source.layout.slots:
            raise invalid(f"Not existing vector name error: {self._source_vector}")
        records = self._source.shard.retrieve([identity], with_payload=False, with_vector=[self._source_vector])
        if not records:
            raise not_found(f"No point with id {identity} found")
        stored: object = records[0].vector
        if isinstance(stored, dict):
            stored = stored.get(self._source_vector)
        if not isinstance(stored, list | edge.SparseVector):
            raise not_found(f"point {identity} has no vector {self._source_vector!r}")
        if self._source is self._collection:
            self.mentioned.add(identity)
        return stored

    def every(self, messages: Iterable[wire.VectorInput]) -> list[EngineVector]:
        return [self.of(message) for message in messages]

    def dense(self, messages: Iterable[wire.VectorInput]) -> list[list[float]]:
        """Like `every`, where only dense vectors can be averaged."""
        if self.using in self._collection.layout.slots and self._collection.layout.slots[self.using].kind != "dense":
            raise unserved("recommendation by the average of sparse vectors or multivectors")
        return [cast("list[float]", vector) for vector in self.every(messages)]


def _rrf(k: int, weights: list[float] | None = None) -> edge.Fusion:
    return cast("edge.Fusion", edge.Fusion.Rrf(k, weights))  # the engine's stubs make it no subclass


def _recommend(message: wire.RecommendInput, vectors: _Examples) -> edge.Query:
    if message.strategy == wire.RecommendStrategy.Value("AverageVector"):
        positives, negatives = vectors.dense(message.positive), vectors.dense(message.negative)
        if not positives:
            raise invalid("a recommendation by average needs at least one positive example")
        average = _mean(positives)
        if negatives:
            average = [2 * liked - disliked for liked, disliked in zip(average, _mean(negatives), strict=True)]
        return edge.Query.Nearest(average, using=vectors.using)
    examples = edge.RecommendQuery(vectors.every(message.positive), vectors.every(message.negative))
    if message.strategy == wire.RecommendStrategy.Value("BestScore"):
        return edge.Query.RecommendBestScore(examples, using=vectors.using)
    return edge.Query.RecommendSumScores(examples, using=vectors.using)


def _mean(vectors: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def _pairs(messages: Iterable[wire.ContextInputPair], vectors: _Examples) -> list[edge.ContextPair]:
    return [edge.ContextPair(vectors.of(pair.positive), vectors.of(pair.negative)) for pair in messages]


def _mmr(
    message: wire.NearestInputWithMmr, vectors: _Examples, owner: wire.QueryPoints | wire.PrefetchQuery
) -> edge.Mmr:
    diversity = message.mmr.diversity if message.mmr.HasField("diversity") else _DEFAULT_DIVERSITY
    limit = owner.limit if owner.HasField("limit") else DEFAULT_LIMIT
    candidates = message.mmr.candidates_limit if message.mmr.HasField("candidates_limit") else limit
    return edge.Mmr(vectors.of(message.nearest), 1.0 - diversity, candidates, using=vectors.using)


def order_by(message: wire.OrderBy) -> edge.OrderBy:
    """Raises `ValueError` for a malformed key."""
    start: int | float | str | None = None
    kind = message.start_from.WhichOneof("value")
    if kind == "timestamp":
        start = message.start_from.timestamp.ToJsonString()
    elif kind:
        start = getattr(message.start_from, kind)
    descending = message.direction == wire.Direction.Value("Desc")
    return edge.OrderBy(message.key, edge.Direction.Desc if descending else edge.Direction.Asc, start)


def _params(message: wire.QueryPoints) -> edge.SearchParams:
    if message.params.HasField("idf"):
        return edge.SearchParams(
            exact=True,
            idf=edge.IdfParams(engine_filter(message.params.idf.corpus))
            if message.params.idf.HasField("corpus")
            else edge.IdfParams(),
        )
    return edge.SearchParams(exact=True)


def _without(mentioned: set[PointId], condition: edge.Filter | None) -> edge.Filter | None:
    if not mentioned:
        return condition
    return edge.Filter(must=[condition] if condition else None, must_not=[edge.HasIdCondition(mentioned)])


def as_query(message: wire.SearchPoints) -> wire.QueryPoints:
    """The older `search` as the query that it is."""
    query = wire.QueryPoints(
        collection_name=message.collection_name,
        limit=message.limit,
        offset=message.offset,
        using=message.vector_name if message.HasField("vector_name") else None,
        filter=message.filter if message.HasField("filter") else None,
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        with_payload=message.with_payload if message.HasField("with_payload") else None,
        with_vectors=message.with_vectors if message.HasField("with_vectors") else None,
    )
    if message.HasField("sparse_indices"):
        query.query.nearest.sparse.indices.extend(message.sparse_indices.data)
        query.query.nearest.sparse.values.extend(message.vector)
    else:
        query.query.nearest.dense.data.extend(message.vector)
    return query


def paths(message: wire.QueryPoints | wire.PrefetchQuery) -> Iterator[str]:
    """Every payload path that a query or one of its prefetches looks inside, and `VECTORS` if it looks at these."""
    yield from paths_in(message.filter)
    yield from paths_in(message.params.idf.corpus)
    kind = message.query.WhichOneof("variant")
    if kind == "order_by":
        yield message.query.order_by.key
    elif kind not in _WITHOUT_VECTORS:
        yield VECTORS
    for prefetch in message.prefetch:
        yield from paths(prefetch)


def sources(message: wire.QueryPoints | wire.PrefetchQuery) -> Iterator[str]:
    """Other collections that a query or one of its prefetches takes vectors from."""
    if message.HasField("lookup_from"):
        yield message.lookup_from.collection_name
    for prefetch in message.prefetch:
        yield from sources(prefetch)


def translated(
    catalogue: Catalogue, collection: Collection, messages: Sequence[wire.QueryPoints]
) -> list[edge.QueryRequest]:
    """Every query of a batch, checked before any runs. Raises `Refused` or `ValueError`."""
    translation = _Translation(catalogue, collection)
    return [translation.request(message) for message in messages]


def batches(collection: Collection, requests: Sequence[edge.QueryRequest]) -> Iterator[Sequence[edge.QueryRequest]]:
    """Cut so that no single engine call scores more than some hundred thousand vectors: tens of milliseconds."""
    size = max(1, _SCORINGS_A_CALL // max(1, collection.shard.info().points_count))
    for start in range(0, len(requests), size):
        yield requests[start : start + size]
