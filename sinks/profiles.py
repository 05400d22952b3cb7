"""The profiles of one generation: read with the version they were read at, written only over that version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.connection import timeout_of
from sinks.ledgers import Ledger, ProfileState, decode_state
from sinks.retry import PermanentReadError, RetryPolicy, until_answered
from sinks.stored import StoredProfile, read_profile
from sinks.wire import NO_ITEMS, WireValue
from sinks.writes import Write, write

_STATE = qdrant.WithPayloadSelector(
    include=qdrant.PayloadIncludeSelector(
        fields=["version", "state", "due", "made_at", "made_from", "candidates", "partition", "noise"]
    )
)
_COUNTS = qdrant.WithPayloadSelector(
    include=qdrant.PayloadIncludeSelector(fields=["version", "n_searches", "n_purchases", "noise", "pending", "due"])
)
_NO_PAYLOAD = qdrant.WithPayloadSelector(enable=False)
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)
_AT_ONCE = 256
_OVERHEAD_BYTES = 600  # of the objects around a profile's bytes


class Held(NamedTuple):
    """A profile as it was read, or written and read back. `version` None: there was no point."""

    version: int | None = None
    state: bytes = b""
    due: int | None = None
    made_at: int | None = None  # when the candidates were derived, ms
    made_from: tuple[float, float] | None = None  # the log-weights (long, short) they were derived from
    candidates: WireValue = NO_ITEMS  # carried over, unopened, by a write that does not derive them anew
    noise: Mapping[str, int] = MappingProxyType({})  # searches that weighed less, by reason

    @property
    def size(self) -> int:
        """What it takes in memory, bytes, near enough."""
        return _OVERHEAD_BYTES + len(self.state) + len(self.candidates)

    def decoded(self) -> ProfileState:
        """A state of the caller's own, to fold into. Raises StateError for bytes of another format."""
        state = decode_state(self.state) if self.state else ProfileState(Ledger(), Ledger())
        state.searches.noise.update(self.noise)
        return state


MISSING = Held()


class ProfileStore:
    """Reads and conditional writes of `profiles--NAME`, with a bounded cache of what was read or written.

    The cache may be stale: another worker may have written since. That costs the writer one refused write and a
    second try, never an event, since a write replaces only the version it was computed from.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        cached_bytes: int,
        replicated: bool = False,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`collection` is a real name, never an alias. `cached_bytes` bounds the profiles kept in memory."""
        self._client = client
        self.collection = collection
        self._bytes_left = cached_bytes
        self._replicated = replicated
        self._retry = retry or RetryPolicy()
        self._held: OrderedDict[str, Held] = OrderedDict()

    async def load(self, ids: Sequence[str], *, cached: bool = True) -> dict[str, Held]:
        """Every profile of `ids` (point ids); `MISSING` for those without a point. Waits out a Qdrant that is away.

        With `cached` they may be older than what is stored: enough for whoever writes them in any case. Without, they
        are what was stored after the call or later: for whoever first has to see whether there is anything to write.
        """
        found = {}
        for id_ in ids if cached else ():
            if (held := self._held.get(id_)) is not None:
                self._held.move_to_end(id_)
                found[id_] = held
        absent = [id_ for id_ in ids if id_ not in found]
        for start in range(0, len(absent), _AT_ONCE):
            for id_, held in (await self._read(absent[start : start + _AT_ONCE])).items():
                found[id_] = held
                self._keep(id_, held)
        for id_ in absent:
            found.setdefault(id_, MISSING)
        return found

    async def write(self, writes: Sequence[tuple[Write, Held]]) -> list[bool]:
        """`sinks.writes.write`, keeping what is now stored and forgetting what turned out to be somebody else's."""
        outcome = await write(
            self._client,
            self.collection,
            [written for written, _ in writes],
            replicated=self._replicated,
            retry=self._retry,
        )
        for (written, held), mine in zip(writes, outcome, strict=True):
            if mine:
                self._keep(written.id, held)
            else:
                self._drop(written.id)
        return outcome

    def forget(self) -> None:
        """Drops the cache: called when partitions move."""
        for id_ in list(self._held):
            self._drop(id_)

    async def due(self, partitions: Iterable[int], now: int, limit: int) -> list[str]:
        """Ids of at most `limit` profiles of these partitions with work that was put off until `now` (ms) or before."""
        wanted = [
            qdrant.Condition(field=qdrant.FieldCondition(key="due", range=qdrant.Range(lte=now))),
            qdrant.Condition(
                field=qdrant.FieldCondition(
                    key="partition", match=qdrant.Match(integers=qdrant.RepeatedIntegers(integers=sorted(partitions)))
                )
            ),
        ]
        return [
            point.id.uuid
            async for point in self._scroll(qdrant.Filter(must=wanted), _NO_PAYLOAD, page=limit, at_most=limit)
        ]

    async def count_due(self, until: int) -> int:
        """How many profiles have work that was put off until then (ms) or before."""
        is_due = qdrant.Condition(field=qdrant.FieldCondition(key="due", range=qdrant.Range(lte=until)))
        return await self._count(qdrant.Filter(must=[is_due]))

    async def count(self) -> int:
        """How many profiles there are."""
        return await self._count(qdrant.Filter())

    async def ids(self) -> AsyncIterator[str]:
        """The point id of every profile, in their order; one that comes meanwhile may be left out."""
        async for point in self._scroll(qdrant.Filter(), _NO_PAYLOAD, page=4096):
            yield point.id.uuid

    async def waiting_for(self, product_ids: Sequence[str]) -> list[str]:
        """Ids of all profiles with purchases or clicks of these products still pending."""
        waits = qdrant.Condition(
            field=qdrant.FieldCondition(
                key="pending", match=qdrant.Match(keywords=qdrant.RepeatedStrings(strings=list(product_ids)))
            )
        )
        return [point.id.uuid async for point in self._scroll(qdrant.Filter(must=[waits]), _NO_PAYLOAD)]

    async def counts(self) -> AsyncIterator[StoredProfile]:
        """Every profile with only its counts, `pending` and `due`: what `status` adds up."""
        async for point in self._scroll(qdrant.Filter(), _COUNTS, page=4096):
            yield read_profile(point)

    async def _count(self, filter_: qdrant.Filter) -> int:
        request = qdrant.CountPoints(collection_name=self.collection, filter=filter_, exact=True)
        response: qdrant.CountResponse = await until_answered(
            lambda: self._client.grpc_points.Count(request, timeout=timeout_of(self._client)),
            doing="counting profiles",
            collection=self.collection,
            retry=self._retry,
            kind=PermanentReadError,
        )
        return int(response.result.count)

    async def _read(self, ids: Sequence[str]) -> dict[str, Held]:
        request = qdrant.GetPoints(
            collection_name=self.collection,
            ids=[qdrant.PointId(uuid=id_) for id_ in ids],
            with_payload=_STATE,
            with_vectors=_NO_VECTORS,
            read_consistency=qdrant.ReadConsistency(type=qdrant.ReadConsistencyType.Majority)
            if self._replicated
            else None,
        )
        response = await until_answered(
            lambda: self._client.grpc_points.Get(request, timeout=timeout_of(self._client)),
            doing="reading profiles",
            collection=self.collection,
            retry=self._retry,
            kind=PermanentReadError,
        )
        return {point.id.uuid: held_of(read_profile(point)) for point in response.result}

    async def _scroll(
        self,
        filter_: qdrant.Filter,
        payload: qdrant.WithPayloadSelector,
        *,
        page: int = 1024,
        at_most: int | None = None,
    ) -> AsyncIterator[qdrant.RetrievedPoint]:
        offset: qdrant.PointId | None = None
        left = at_most
        while True:
            request = qdrant.ScrollPoints(
                collection_name=self.collection,
                filter=filter_,
                offset=offset,
                limit=page if left is None else min(page, left),
                with_payload=payload,
                with_vectors=_NO_VECTORS,
            )
            response = await until_answered(
                lambda request=request: self._client.grpc_points.Scroll(  # type: ignore[misc]
                    request, timeout=timeout_of(self._client)
                ),
                doing="looking for profiles",
                collection=self.collection,
                retry=self._retry,
                kind=PermanentReadError,
            )
            for point in response.result:
                yield point
            if left is not None:
                left -= len(response.result)
            if not response.HasField("next_page_offset") or (left is not None and left <= 0):
                return
            offset = response.next_page_offset

    def _keep(self, id_: str, held: Held) -> None:
        self._drop(id_)
        self._held[id_] = held
        self._bytes_left -= held.size
        while self._bytes_left < 0:
            self._drop(next(iter(self._held)))

    def _drop(self, id_: str) -> None:
        held = self._held.pop(id_, None)
        if held is not None:
            self._bytes_left += held.size


def held_of(profile: StoredProfile) -> Held:
    return Held(
        version=profile.version,
        state=profile.state,
        due=profile.due,
        made_at=profile.made_at,
        made_from=profile.made_from,
        candidates=profile.candidates_value,
        noise=profile.noise,
    )
