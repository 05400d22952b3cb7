"""`AsyncRecommender`: each answer wholly of one generation, derived from the stored state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, TypeVar

import numpy as np
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.catalogue import Product
from sinks.collections import Generation, Model, profiles_collection
from sinks.connection import DEFAULT_TIMEOUT_SECONDS, connect, timeout_of
from sinks.derivation import DerivationRules, Taste, Vector, centred, centring, derive
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState, decode_state, is_query
from sinks.queries import Query, understood
from sinks.ranking import RankingRules
from sinks.recommendation import Recommendation, near_text, recommend, search, stored_recommendation
from sinks.retrieval.answers import (
    FoundProduct,
    MismatchedReader,
    ProfileView,
    QdrantUnreachable,
    RecommendationList,
    SearchResult,
    SimilarUser,
    UnknownUser,
)
from sinks.retrieval.serving import Served, Serving
from sinks.retrieval.views import note_of, profile_view, similar_user
from sinks.retry import TRANSIENT, PermanentSinkError, RetryPolicy, describe, until_answered
from sinks.snapshot import CatalogueSnapshot
from sinks.stored import StoredProfile, read_profile
from sinks.wire import dense_vector

T = TypeVar("T")

QueryEncoder = Callable[[str, Model], Awaitable[Vector]]
"""Makes the unit vector, float32 [d], of a query, with this model: that of the profiles that are read."""

QueryKey = Callable[[str], str]

ATTEMPTS: Final = 3
DEFAULT_RULES: Final = DerivationRules()
_USERS_AT_ONCE: Final = 128
_USERS_WORTH_A_SNAPSHOT: Final = 64
_CHUNKS_IN_FLIGHT: Final = 2  # one is read while another is ranked


class AsyncRecommender:
    """Reads one generation of profiles. Safe for many tasks of one event loop; close it, or use `async with`.

    An answer is wholly of one generation: profiles, products and what shapes them. Where aliases are followed and the
    generation was dropped meanwhile, the answer is of the one that they lead to now.

    Raises from every method: `QdrantUnreachable` after a bounded number of attempts, `NothingServed`,
    `MismatchedReader`, `sinks.retry.PermanentReadError` (Qdrant refused the call for good) and
    `sinks.ledgers.StateError` (profiles of another version).
    """

    def __init__(
        self,
        address: str,
        secret: bytes,
        rules: DerivationRules = DEFAULT_RULES,
        *,
        generation: str | None = None,
        exclude_bought: bool = False,
        encode_query: QueryEncoder | None = None,
        query_key: QueryKey = str.casefold,
        api_key: str | None = None,
        tls: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attempts: int = ATTEMPTS,
        cached_products: int = 100_000,
    ) -> None:
        """Connects at the first call, not here.

        Args:
            address: host:port of Qdrant's gRPC service.
            secret: what point ids are made with (`sinks.identity`).
            rules: how tastes are derived. The half-lives that the generation was folded with take their place.
            generation: its name; None reads what the aliases lead to, and follows them.
            exclude_bought: whether what was bought is never recommended again (the operator's rule).
            encode_query: needed for text queries alone.
            query_key: makes of a query the key by which the profiles remember it (`encoders.text.normalise`), so that
                what others clicked after it is found.
            attempts: how often a call is made before its error is raised.
        """
        self._address = address
        self._client: AsyncQdrantClient = connect(address, api_key=api_key, tls=tls, timeout_seconds=timeout_seconds)
        self._ids = PointIds(secret)
        self._exclude_bought = exclude_bought
        self._encode_query = encode_query
        self._query_key = query_key
        self._retry = RetryPolicy(attempts=attempts, on_retry=lambda _: None)
        self._served = Served(
            self._client,
            address,
            self._ids,
            rules,
            name=generation,
            cached_products=cached_products,
            retry=self._retry,
        )

    async def __aenter__(self) -> AsyncRecommender:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def generation(self) -> Generation:
        """The generation that is read, as it is recorded: its name, model and fold settings."""
        with self._told():
            return (await self._served.now()).generation

    async def recommend(
        self,
        user_id: str,
        *,
        limit: int = 20,
        kind: str | None = None,
        new_only: bool = False,
        query: str | None = None,
        at: int | None = None,
    ) -> RecommendationList:
        """What to show this user at the time `at` (ms; None: now), derived from the stored state.

        Without restrictions, the list that is stored with the profile is as good as a new one while nothing has
        changed: it was made within the last ten minutes, no work on it is put off, and no product came, went or was
        renamed since. It is one look-up.

        Args:
            limit: most items, at least 1.
            kind: only product, content or ad; None: any.
            new_only: leave out what the user bought.
            query: only what is near this text, in the order that text and user give together. Misspelt words are read
                as the catalogue spells them, and `read_as` of the answer says so.
            at: moves the clock only: events aren't undone, and a time before the newest is answered as of that one,
                with a note. Where everything has faded to nothing, it is the newest event's time as well.

        Somebody of whom nothing is known is shown what is popular now, with a note. Raises UnknownUser where there is
        no profile, and nothing is popular yet.
        """
        if kind is None and not new_only and query is None and at is None:
            stored = await self._answer(lambda serving: self._stored_list(serving, user_id, limit))
            if stored is not None:
                return stored
        (found,) = await self._recommend([user_id], limit, kind, new_only, query, at)
        if found.known == 0.0 and not found.items:
            raise self._unknown(user_id)
        return found

    async def recommend_many(
        self,
        user_ids: Sequence[str],
        *,
        limit: int = 20,
        kind: str | None = None,
        new_only: bool = False,
        query: str | None = None,
        at: int | None = None,
    ) -> list[RecommendationList]:
        """A list for each user, in their order, from a few calls for every 128 of them.

        Users without a profile are shown what is popular now, if anything is.
        """
        return await self._recommend(user_ids, limit, kind, new_only, query, at)

    async def profile(self, user_id: str, *, at: int | None = None) -> ProfileView:
        """What is known of this user, as of `at` (ms; None: now). Raises UnknownUser where there is no profile."""
        moment = _now_ms() if at is None else at
        return await self._answer(lambda serving: self._profile(serving, user_id, moment))

    async def _profile(self, serving: Serving, user_id: str, moment: int) -> ProfileView:
        stored = (await self._read(serving, [user_id], _EVERYTHING)).get(user_id)
        if stored is None:
            raise self._unknown(user_id)
        state = decode_state(stored.state)
        products = await serving.catalogue.get(_product_ids([state]))
        (taste,) = _tastes_of(serving, [state], products, moment)
        titles = {product_id: product.title for product_id, product in products.items()}
        return profile_view(user_id, serving.generation.name, stored, state, taste, titles, moment)

    async def search(self, text: str, *, limit: int = 20, kind: str | None = None) -> SearchResult:
        """The available products for a text, best first: near it, clicked by others after it, and popular.

        Misspelt words are read as the catalogue spells them, and `read_as` says so.
        """
        return await self._answer(lambda serving: self._search(serving, text, limit, kind))

    async def _search(self, serving: Serving, text: str, limit: int, kind: str | None) -> SearchResult:
        query, statistics = await asyncio.gather(self._query(text, serving), serving.statistics.get())
        found = await search(serving.catalogue, query, serving.mean, limit, kind=kind, statistics=statistics)
        items = [FoundProduct(one.product_id, one.title, one.kind, similarity) for one, similarity in found]
        return SearchResult(items, query.read_as)

    async def similar(self, user_id: str, *, limit: int = 20) -> list[SimilarUser]:
        """Other users of the most like lasting taste, best first. Raises UnknownUser where there is no profile.

        Compares with every profile (profiles have no graph): 15 ms for 100,000 of them, not a call for a hot path.
        """
        return await self._answer(lambda serving: self._similar(serving, user_id, limit))

    async def _similar(self, serving: Serving, user_id: str, limit: int) -> list[SimilarUser]:
        stored = (await self._read(serving, [user_id], _STATE)).get(user_id)
        if stored is None:
            raise self._unknown(user_id)
        (taste,) = await self._tastes(serving, [decode_state(stored.state)], _now_ms())
        if taste.long is None:
            return []
        asked = centred(taste.long[None] / np.linalg.norm(taste.long), serving.mean)
        collection = profiles_collection(serving.generation.name)
        request = qdrant.QueryPoints(
            collection_name=collection,
            query=qdrant.Query(nearest=qdrant.VectorInput(dense=dense_vector(asked[0]))),
            using="long",
            filter=qdrant.Filter(
                must_not=[qdrant.Condition(has_id=qdrant.HasIdCondition(has_id=[qdrant.PointId(uuid=stored.id)]))]
            ),
            limit=limit,
            with_payload=_TASTE,
            with_vectors=_NO_VECTORS,
        )
        response: qdrant.QueryResponse = await until_answered(
            lambda: self._client.grpc_points.Query(request, timeout=timeout_of(self._client)),
            doing="looking for similar users",
            collection=collection,
            retry=self._retry,
        )
        scores = _centred([point.score for point in response.result], asked, serving.mean)
        return [similar_user(point, similarity) for point, similarity in zip(response.result, scores, strict=True)]

    async def _stored_list(self, serving: Serving, user_id: str, limit: int) -> RecommendationList | None:
        """The list stored with the profile, where it is as good as a new one."""
        stored, changed_at = await asyncio.gather(self._read(serving, [user_id], _LIST), serving.changes.latest())
        profile = stored.get(user_id)
        if profile is None or profile.made_at is None or profile.due is not None or changed_at is None:
            return None
        if profile.made_at < max(_now_ms() - _AS_GOOD_AS_NEW_MS, changed_at + UNNOTICED_MS):
            return None
        items = [stored_recommendation(item) for item in profile.candidates[:limit]]
        if len(items) < limit or (self._exclude_bought and _holds_bought(items)):
            return None
        return RecommendationList(user_id, items, profile.made_at, profile.known)

    async def _recommend(
        self,
        user_ids: Sequence[str],
        limit: int,
        kind: str | None,
        new_only: bool,
        query: str | None,
        at: int | None,
    ) -> list[RecommendationList]:
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be 1 or more")
        ranking = RankingRules(limit, new_only or self._exclude_bought)
        moment = _now_ms() if at is None else at

        async def answer(serving: Serving) -> list[RecommendationList]:
            asked = None if query is None else await self._query(query, serving)
            snapshot = await serving.snapshots.get() if len(user_ids) >= _USERS_WORTH_A_SNAPSHOT else None
            gate = asyncio.Semaphore(_CHUNKS_IN_FLIGHT)

            async def chunk(users: Sequence[str]) -> list[RecommendationList]:
                async with gate:
                    return await self._lists(serving, snapshot, users, moment, ranking, kind, asked)

            chunks = await asyncio.gather(
                *(chunk(user_ids[start : start + _USERS_AT_ONCE]) for start in range(0, len(user_ids), _USERS_AT_ONCE))
            )
            return [one for lists in chunks for one in lists]

        return await self._answer(answer)

    async def _lists(
        self,
        serving: Serving,
        snapshot: CatalogueSnapshot | None,
        user_ids: Sequence[str],
        moment: int,
        ranking: RankingRules,
        kind: str | None,
        query: Query | None,
    ) -> list[RecommendationList]:
        reading, near = self._read(serving, user_ids, _STATE), None
        if query is None:
            stored = await reading
        else:
            searching = near_text(serving.catalogue, query, serving.mean, ranking.limit, kind=kind)
            stored, near = await asyncio.gather(reading, searching)
        known = [user_id for user_id in dict.fromkeys(user_ids) if user_id in stored]
        states = [decode_state(stored[user_id].state) for user_id in known]
        tastes = await self._tastes(serving, states, moment)
        if len(known) < len(user_ids):  # whoever has no profile is shown what somebody is who has done nothing
            states.append(ProfileState(Ledger(), Ledger()))
            tastes.append(Taste(moment, None, None, ()))
        lists = await recommend(
            serving.catalogue,
            states,
            tastes,
            serving.mean,
            ranking,
            kind=kind,
            query=query,
            near=near,
            snapshot=snapshot,
            statistics=await serving.statistics.get(),
        )
        read_as = None if query is None else query.read_as
        found = {
            user_id: RecommendationList(user_id, items, taste.at, taste.known, note_of(state, taste, moment), read_as)
            for user_id, items, state, taste in zip(known, lists, states, tastes, strict=False)
        }
        note = "there is no profile of this user" + ("; this is what is popular" if lists and lists[-1] else "")
        return [
            found.get(user_id) or RecommendationList(user_id, lists[-1], moment, 0.0, note, read_as)
            for user_id in user_ids
        ]

    async def _tastes(self, serving: Serving, states: Sequence[ProfileState], moment: int) -> list[Taste]:
        return _tastes_of(serving, states, await serving.catalogue.get(_product_ids(states)), moment)

    async def _query(self, text: str, serving: Serving) -> Query:
        if self._encode_query is None:
            raise ValueError("a text query needs a Recommender with `encode_query`")
        model = serving.generation.model
        vector, statistics, vocabulary = await asyncio.gather(
            self._encode_query(text, model), serving.statistics.get(), serving.vocabulary.get()
        )
        if vector.shape != (model.dimension,):
            raise MismatchedReader(
                f"the query's vector has shape {vector.shape}, and the profiles are of {model.name} "
                f"({model.dimension} dimensions): encode it with that model"
            )
        return await understood(
            text,
            vector,
            key=self._query_key,
            catalogue=serving.catalogue,
            vocabulary=vocabulary,
            clicks=statistics.clicks,
        )

    async def _read(
        self, serving: Serving, user_ids: Iterable[str], payload: qdrant.WithPayloadSelector
    ) -> dict[str, StoredProfile]:
        """The profiles that exist, by user id."""
        users = {self._ids.user(user_id): user_id for user_id in user_ids}
        collection = profiles_collection(serving.generation.name)
        request = qdrant.GetPoints(
            collection_name=collection,
            ids=[qdrant.PointId(uuid=id_) for id_ in users],
            with_payload=payload,
            with_vectors=_NO_VECTORS,
        )
        response: qdrant.GetResponse = await until_answered(
            lambda: self._client.grpc_points.Get(request, timeout=timeout_of(self._client)),
            doing="reading profiles",
            collection=collection,
            retry=self._retry,
        )
        return {users[point.id.uuid]: read_profile(point) for point in response.result}

    async def _answer(self, read: Callable[[Serving], Awaitable[T]]) -> T:
        """What `read` finds in one generation; in its successor, should it turn out to be dropped."""
        with self._told():
            serving = await self._served.now()
            while True:
                try:
                    return await read(serving)
                except PermanentSinkError as refusal:
                    serving = await self._served.instead_of(serving, refusal)

    def _unknown(self, user_id: str) -> UnknownUser:
        return UnknownUser(
            f"there is no profile of user {user_id!r}: no search or purchase of theirs was folded in (yet)"
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TRANSIENT as failure:
            raise QdrantUnreachable(
                f"Qdrant at {self._address} can't be reached ({describe(failure)}): start `afterglow up`, or give its "
                "gRPC address"
            ) from failure


_AS_GOOD_AS_NEW_MS: Final = 600_000
UNNOTICED_MS: Final = 90_000
"""So long a worker may not know of a change: what it keeps in memory of the catalogue is up to a minute old."""

_LIST = qdrant.WithPayloadSelector(
    include=qdrant.PayloadIncludeSelector(fields=["version", "candidates", "made_at", "due", "known"])
)
_STATE = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=["version", "state"]))
_EVERYTHING = qdrant.WithPayloadSelector(enable=True)
_TASTE = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=["known", "interests"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)


def _tastes_of(
    serving: Serving, states: Sequence[ProfileState], products: Mapping[str, Product], moment: int
) -> list[Taste]:
    """`products` are those of all histories, as far as they are known."""
    vectors = {product_id: product.vector for product_id, product in products.items() if product.vector is not None}
    return derive(states, vectors, serving.mean, moment, serving.rules, serving.support)


def _product_ids(states: Iterable[ProfileState]) -> set[str]:
    return {key[1:] for state in states for ledger in state for key in ledger.keys if not is_query(key)}


def _holds_bought(items: Iterable[Recommendation]) -> bool:
    return any(reason.kind == "bought" for item in items for reason in item.because)


def _centred(scores: Sequence[float], asked: Vector, mean: Vector) -> list[float]:
    ((offset, scale),) = centring(asked, mean)
    return [(score - offset) * scale for score in scores]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
