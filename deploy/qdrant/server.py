"""Qdrant's gRPC services over a `Catalogue`: what each method does, in the server's words and codes."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import NoReturn, TypeVar

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant import messages, queries, refusals, writes
from deploy.qdrant.answers import retrieved, scored, write_id
from deploy.qdrant.catalogue import Catalogue
from deploy.qdrant.collection import IDS_A_STEP, Collection, others_first, steps
from deploy.qdrant.filters import optional_filter, selection
from deploy.qdrant.packing import VECTORS, parts_in, paths_in
from deploy.qdrant.points import point_id, point_ids

log = logging.getLogger(__name__)

SERVER_VERSION = "1.18.0"
"""The server release whose gRPC interface this follows."""

_Service = TypeVar("_Service")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def _answered(
    handler: Callable[[_Service, _Request], Awaitable[_Response]],
) -> Callable[[_Service, _Request, grpc.aio.ServicerContext], Awaitable[_Response]]:
    """A handler whose refusals become gRPC statuses and whose answer says how long it took."""

    @functools.wraps(handler)
    async def answer(service: _Service, request: _Request, context: grpc.aio.ServicerContext) -> _Response:
        began = time.perf_counter()
        try:
            response = await handler(service, request)
        except refusals.Refused as refusal:
            return await _abort(context, refusal)
        except Exception as error:
            answer_to_it = refusals.from_engine(error)
            if answer_to_it.code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed", handler.__name__)
            return await _abort(context, answer_to_it)
        response.time = time.perf_counter() - began  # type: ignore[attr-defined]
        return response

    return answer


async def _abort(context: grpc.aio.ServicerContext, refusal: refusals.Refused) -> NoReturn:
    await context.abort(refusal.code, str(refusal))
    raise AssertionError("abort returned")


class _Unserved:
    """Answers UNIMPLEMENTED, by name, to every method that a subclass doesn't define."""

    def __getattr__(self, method: str) -> Callable[[object, grpc.aio.ServicerContext], Awaitable[NoReturn]]:
        if method.startswith("_"):
            raise AttributeError(method)
        name = f"{type(self).__name__}.{method}"

        async def answer(_request: object, context: grpc.aio.ServicerContext) -> NoReturn:
            await _abort(context, refusals.unserved(name))

        return answer


class Snapshots(_Unserved):
    """None of it is served."""


class Qdrant:
    """The root service: a client's first question."""

    async def HealthCheck(  # noqa: N802
        self, _request: wire.HealthCheckRequest, _context: grpc.aio.ServicerContext
    ) -> wire.HealthCheckReply:
        title = f"Afterglow's embedded Qdrant (qdrant-edge-py {version('qdrant-edge-py')})"
        return wire.HealthCheckReply(title=title, version=SERVER_VERSION)


class Collections(_Unserved):
    """Collections and aliases."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @_answered
    async def Create(self, request: wire.CreateCollection) -> wire.CollectionOperationResponse:  # noqa: N802
        self._catalogue.create(request)
        return wire.CollectionOperationResponse(result=True)

    @_answered
    async def Update(self, request: wire.UpdateCollection) -> wire.CollectionOperationResponse:  # noqa: N802
        for field in ("params", "vectors_config", "quantization_config", "sparse_vectors_config", "strict_mode_config"):
            if request.HasField(field):
                raise refusals.unserved(f"Collections.Update of {field}")
        self._catalogue.reconfigure(request)
        return wire.CollectionOperationResponse(result=True)

    @_answered
    async def Delete(self, request: wire.DeleteCollection) -> wire.CollectionOperationResponse:  # noqa: N802
        return wire.CollectionOperationResponse(result=await self._catalogue.delete(request.collection_name))

    @_answered
    async def List(self, _request: wire.ListCollectionsRequest) -> wire.ListCollectionsResponse:  # noqa: N802
        names = sorted(collection.name for collection in self._catalogue)
        return wire.ListCollectionsResponse(collections=[wire.CollectionDescription(name=name) for name in names])

    @_answered
    async def Get(self, request: wire.GetCollectionInfoRequest) -> wire.GetCollectionInfoResponse:  # noqa: N802
        return wire.GetCollectionInfoResponse(result=self._catalogue.get(request.collection_name).describe())

    @_answered
    async def CollectionExists(  # noqa: N802
        self, request: wire.CollectionExistsRequest
    ) -> wire.CollectionExistsResponse:
        exists = self._catalogue.find(request.collection_name) is not None
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    @_answered
    async def UpdateAliases(self, request: wire.ChangeAliases) -> wire.CollectionOperationResponse:  # noqa: N802
        self._catalogue.change_aliases(request.actions)
        return wire.CollectionOperationResponse(result=True)

    @_answered
    async def ListAliases(self, _request: wire.ListAliasesRequest) -> wire.ListAliasesResponse:  # noqa: N802
        return _aliases(self._catalogue.aliases())

    @_answered
    async def ListCollectionAliases(  # noqa: N802
        self, request: wire.ListCollectionAliasesRequest
    ) -> wire.ListAliasesResponse:
        return _aliases(self._catalogue.aliases(of=self._catalogue.get(request.collection_name).name))


def _aliases(pairs: Sequence[tuple[str, str]]) -> wire.ListAliasesResponse:
    return wire.ListAliasesResponse(
        aliases=[wire.AliasDescription(alias_name=alias, collection_name=target) for alias, target in pairs]
    )


class Points(_Unserved):
    """Points: written, read, searched.

    A write runs as a task of its own: when its caller goes away it is finished all the same, like on a server.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._writes: set[asyncio.Task[int]] = set()
        self._failed = asyncio.Event()
        self._failure = ""

    async def failure(self) -> str:
        """Why the engine can't go on in this process, as soon as that is so."""
        await self._failed.wait()
        return self._failure

    async def finish_writes(self) -> None:
        """Returns when every write under way is done."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _written(
        self, request: wire.UpsertPoints, write: Callable[[Collection, wire.UpsertPoints], Awaitable[int]]
    ) -> wire.PointsOperationResponse:
        collection = self._catalogue.get(request.collection_name)
        return wire.PointsOperationResponse(result=_updated(await self._finished(write(collection, request)), request))

    async def _finished(self, write: Awaitable[int]) -> int:
        async def whole() -> int:
            try:
                return await write
            except Exception as error:
                if refusals.is_for_good(error):
                    self._failure = str(error)
                    self._failed.set()
                raise

        task = asyncio.create_task(whole())
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    @_answered
    async def Upsert(self, request: messages.Upsert) -> wire.PointsOperationResponse:  # noqa: N802
        collection = self._catalogue.get(request.rest.collection_name)
        return wire.PointsOperationResponse(
            result=_updated(await self._finished(writes.upsert(collection, request)), request.rest)
        )

    @_answered
    async def Delete(self, request: wire.DeletePoints) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.delete)

    @_answered
    async def UpdateVectors(self, request: wire.UpdatePointVectors) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.update_vectors)

    @_answered
    async def DeleteVectors(self, request: wire.DeletePointVectors) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.delete_vectors)

    @_answered
    async def SetPayload(self, request: wire.SetPayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.set_payload)

    @_answered
    async def OverwritePayload(self, request: wire.SetPayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.overwrite_payload)

    @_answered
    async def DeletePayload(self, request: wire.DeletePayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.delete_payload)

    @_answered
    async def ClearPayload(self, request: wire.ClearPayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802
        return await self._written(request, writes.clear_payload)

    @_answered
    async def CreateFieldIndex(  # noqa: N802
        self, request: wire.CreateFieldIndexCollection
    ) -> wire.PointsOperationResponse:
        return await self._written(request, writes.create_index)

    @_answered
    async def DeleteFieldIndex(  # noqa: N802
        self, request: wire.DeleteFieldIndexCollection
    ) -> wire.PointsOperationResponse:
        return await self._written(request, writes.delete_index)

    @_answered
    async def UpdateBatch(self, request: wire.UpdateBatchPoints) -> wire.UpdateBatchResponse:  # noqa: N802
        """One operation after another: like on a server, a bad one leaves those before it applied."""
        collection = self._catalogue.get(request.collection_name)
        results = []
        for operation in request.operations:
            kind = operation.WhichOneof("operation")
            if kind not in writes.BATCHED:
                raise refusals.unserved(f"Points.UpdateBatch of {kind}")
            number = await self._finished(writes.BATCHED[kind](collection, getattr(operation, kind)))
            results.append(_updated(number, request))
        return wire.UpdateBatchResponse(result=results)

    @_answered
    async def Get(self, request: wire.GetPoints) -> wire.GetResponse:  # noqa: N802
        collection = self._catalogue.get(request.collection_name)
        await collection.lay_open(parts_in(request.with_payload))
        asked = selection(request, collection.layout, unset=True)
        response = wire.GetResponse()
        for ids in steps(point_ids(request.ids), IDS_A_STEP):
            for record in collection.shard.retrieve(list(ids), asked.payload, asked.vectors):
                retrieved(response.result.add(), record, asked, collection.layout.slots)
            await others_first()
        return response

    @_answered
    async def Scroll(self, request: wire.ScrollPoints) -> wire.ScrollResponse:  # noqa: N802
        collection = self._catalogue.get(request.collection_name)
        limit = request.limit if request.HasField("limit") else queries.DEFAULT_LIMIT
        if limit < 1:
            raise refusals.invalid("limit: value 0 invalid, must be 1 or larger")
        await collection.lay_open([*paths_in(request.filter), *parts_in(request.with_payload)])
        if request.HasField("order_by"):
            await collection.lay_open([request.order_by.key])
        asked = selection(request, collection.layout, unset=True)
        records, following = collection.shard.scroll(
            edge.ScrollRequest(
                offset=point_id(request.offset) if request.HasField("offset") else None,
                limit=limit,
                filter=optional_filter(request),
                with_payload=asked.payload,
                with_vector=asked.vectors,
                order_by=queries.order_by(request.order_by) if request.HasField("order_by") else None,
            )
        )
        response = wire.ScrollResponse()
        for some in steps(records, IDS_A_STEP):
            for record in some:
                retrieved(response.result.add(), record, asked, collection.layout.slots)
            await others_first()
        if following is not None:
            write_id(response.next_page_offset, following)
        return response

    @_answered
    async def Count(self, request: wire.CountPoints) -> wire.CountResponse:  # noqa: N802
        collection = self._catalogue.get(request.collection_name)
        await collection.lay_open(paths_in(request.filter))
        count = collection.shard.count(edge.CountRequest(filter=optional_filter(request), exact=True))
        return wire.CountResponse(result=wire.CountResult(count=count))

    @_answered
    async def Facet(self, request: wire.FacetCounts) -> wire.FacetResponse:  # noqa: N802
        collection = self._catalogue.get(request.collection_name)
        limit = request.limit if request.HasField("limit") else queries.DEFAULT_LIMIT
        await collection.lay_open([request.key, *paths_in(request.filter)])
        answer = collection.shard.facet(
            edge.FacetRequest(request.key, limit=limit, exact=True, filter=optional_filter(request))
        )
        return wire.FacetResponse(
            hits=[wire.FacetHit(value=_facet_value(hit.value), count=hit.count) for hit in answer.hits]
        )

    @_answered
    async def Query(self, request: wire.QueryPoints) -> wire.QueryResponse:  # noqa: N802
        (result,) = await self._queried(request.collection_name, [request])
        return wire.QueryResponse(result=result)

    @_answered
    async def QueryBatch(self, request: wire.QueryBatchPoints) -> wire.QueryBatchResponse:  # noqa: N802
        results = await self._queried(request.collection_name, request.query_points)
        return wire.QueryBatchResponse(result=[wire.BatchResult(result=result) for result in results])

    @_answered
    async def Search(self, request: wire.SearchPoints) -> wire.SearchResponse:  # noqa: N802
        (result,) = await self._queried(request.collection_name, [queries.as_query(request)])
        return wire.SearchResponse(result=result)

    @_answered
    async def SearchBatch(self, request: wire.SearchBatchPoints) -> wire.SearchBatchResponse:  # noqa: N802
        searches = [queries.as_query(search) for search in request.search_points]
        results = await self._queried(request.collection_name, searches)
        return wire.SearchBatchResponse(result=[wire.BatchResult(result=result) for result in results])

    async def _queried(self, name: str, requests: Sequence[wire.QueryPoints]) -> list[list[wire.ScoredPoint]]:
        collection = self._catalogue.get(name)
        await collection.lay_open(
            path for one in requests for path in (*queries.paths(one), *parts_in(one.with_payload))
        )
        for message in requests:
            for source in queries.sources(message):
                await self._catalogue.get(source).lay_open([VECTORS])
        asked = [selection(message, collection.layout, unset=False) for message in requests]
        results: list[list[wire.ScoredPoint]] = []
        for batch in queries.batches(collection, queries.translated(self._catalogue, collection, requests)):
            for hits in collection.shard.query_batch(edge.QueryBatchRequest(list(batch))):
                results.append([scored(hit, asked[len(results)], collection.layout.slots) for hit in hits])
                await others_first()
        return results


def _updated(number: int, request: wire.UpsertPoints) -> wire.UpdateResult:
    return wire.UpdateResult(operation_id=number, status=wire.Completed if request.wait else wire.Acknowledged)


def _facet_value(value: str | int | bool) -> wire.FacetValue:
    if isinstance(value, bool):
        return wire.FacetValue(bool_value=value)
    if isinstance(value, int):
        return wire.FacetValue(integer_value=value)
    return wire.FacetValue(string_value=value)


async def start(catalogue: Catalogue, port: int) -> tuple[grpc.aio.Server, Points, int]:
    """Listen on 127.0.0.1; the server, the points service (for its writes under way), and the port.

    Port 0 takes a free one. Raises `RuntimeError` when the port is taken.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    points = Points(catalogue)
    upsert = grpc.unary_unary_rpc_method_handler(
        points.Upsert,
        request_deserializer=messages.upsert,
        response_serializer=wire.PointsOperationResponse.SerializeToString,
    )
    # Before the others: the first that knows a method answers it.
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("qdrant.Points", {"Upsert": upsert})])
    wire.add_PointsServicer_to_server(points, server)
    wire.add_CollectionsServicer_to_server(Collections(catalogue), server)
    wire.add_SnapshotsServicer_to_server(Snapshots(), server)
    wire.add_QdrantServicer_to_server(Qdrant(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, points, bound
