"""The profiles of a generation as they lie in Qdrant, by partition, a page at a time. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.retry import RetryPolicy, until_answered
from sinks.stored import StoredProfile, read_profile
from sinks.writes import MAJORITY

PAGE: Final = 256

_FIELDS: Final = qdrant.WithPayloadSelector(
    exclude=qdrant.PayloadExcludeSelector(fields=["candidates"])  # nothing compares them, and they are large
)
_NO_PAYLOAD: Final = qdrant.WithPayloadSelector(enable=False)
_VECTORS: Final = qdrant.WithVectorsSelector(enable=True)
_NO_VECTORS: Final = qdrant.WithVectorsSelector(enable=False)
_RETRY: Final = RetryPolicy()


class StoredProfiles:
    """Raises PermanentReadError where Qdrant refuses; one that is away is waited for."""

    def __init__(self, client: AsyncQdrantClient, collection: str, *, replicated: bool) -> None:
        self._client = client
        self._collection = collection
        self._consistency = MAJORITY if replicated else None

    async def point_of_rank(self, n: int) -> str | None:
        """The id of the n-th profile (from 1) in the order of ids, which are keyed hashes; None: there are fewer."""
        ids: list[str] = []
        async for page in self._scroll(qdrant.Filter(), _NO_PAYLOAD, _NO_VECTORS, page=4096):
            ids += [point.id.uuid for point in page]
            if len(ids) >= n:
                return sorted(ids)[n - 1]
        return None

    async def of_partition(self, partition: int, last_point: str) -> AsyncIterator[list[StoredProfile]]:
        """Pages of the profiles whose `partition` is this one, up to the id `last_point`."""
        wanted = qdrant.Condition(field=qdrant.FieldCondition(key="partition", match=qdrant.Match(integer=partition)))
        async for page in self._scroll(qdrant.Filter(must=[wanted]), _FIELDS, _VECTORS, page=PAGE):
            profiles = [read_profile(point) for point in page if point.id.uuid <= last_point]
            if profiles:
                yield profiles
            if len(profiles) < len(page):
                return

    async def get(self, ids: Sequence[str]) -> list[StoredProfile]:
        """Those of these profiles that exist."""
        found: list[StoredProfile] = []
        for start in range(0, len(ids), PAGE):
            request = qdrant.GetPoints(
                collection_name=self._collection,
                ids=[qdrant.PointId(uuid=id_) for id_ in ids[start : start + PAGE]],
                with_payload=_FIELDS,
                with_vectors=_VECTORS,
                read_consistency=self._consistency,
            )
            response: qdrant.GetResponse = await until_answered(
                lambda request=request: self._client.grpc_points.Get(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="reading profiles",
                collection=self._collection,
                retry=_RETRY,
            )
            found += [read_profile(point) for point in response.result]
        return found

    async def _scroll(
        self,
        filter_: qdrant.Filter,
        payload: qdrant.WithPayloadSelector,
        vectors: qdrant.WithVectorsSelector,
        *,
        page: int,
    ) -> AsyncIterator[Sequence[qdrant.RetrievedPoint]]:
        offset: qdrant.PointId | None = None
        while True:
            request = qdrant.ScrollPoints(
                collection_name=self._collection,
                filter=filter_,
                offset=offset,
                limit=page,
                with_payload=payload,
                with_vectors=vectors,
                read_consistency=self._consistency,
            )
            response: qdrant.ScrollResponse = await until_answered(
                lambda request=request: self._client.grpc_points.Scroll(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="reading profiles",
                collection=self._collection,
                retry=_RETRY,
            )
            yield response.result
            if not response.HasField("next_page_offset"):
                return
            offset = response.next_page_offset
