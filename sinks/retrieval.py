"""Profiles and recommendations, read back: `AsyncRecommender`, and `Recommender` for code without asyncio.

What is read is derived anew from the stored state at the time asked for, by the very functions that the worker stores
candidates with, so that an idle user's list is fresh too. Nothing here writes, and nothing needs Kafka or a model (a
text query needs a function that encodes it).

    with Recommender("127.0.0.1:6334", secret, rules) as recommender:
        for item in recommender.recommend("ada", limit=10).items:
            print(item.title, item.score, item.because)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, NamedTuple, TypeVar

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as qdrant

from sinks.catalogue import Catalogue
from sinks.collections import (
    Generation,
    Model,
    products_collection,
    profiles_collection,
    read_generation,
    read_mean,
)
from sinks.connection import DEFAULT_TIMEOUT_SECONDS, connect, timeout_of
from sinks.derivation import DerivationRules, Taste, Vector, centred, centring, derive
from sinks.identity import PointIds
from sinks.ledgers import NOTHING, ProfileState, add_log_weights, decode_state, is_query, total_log_weight
from sinks.points import JSON, StoredProfile, dense_vector, number_of, read_profile, value_of
from sinks.ranking import RankingRules, texts_of
from sinks.recommendation import Recommendation, recommend
from sinks.retry import TRANSIENT, PermanentSinkError, RetryPolicy, describe, until_answered
from sinks.snapshot import CatalogueSnapshot, RecentSnapshot

T = TypeVar("T")

QueryEncoder = Callable[[str, Model], Awaitable[Vector]]
"""Makes the unit vector, float32 [d], of a query, with this model: that of the profiles that are read."""

ATTEMPTS: Final = 3
SERVING_SECONDS: Final = 30.0
"""How long an answer may go on using a generation and a μ that have been replaced."""

_DEFAULT_RULES: Final = DerivationRules()
_USERS_AT_ONCE: Final = 128
_USERS_WORTH_A_SNAPSHOT: Final = 64
_CHUNKS_IN_FLIGHT: Final = 2  # one is read while another is ranked


class UnknownUser(LookupError):
    """There is no profile of this user."""


class NothingServed(LookupError):
    """Qdrant answers, but holds no generation of profiles to read."""


class QdrantUnreachable(ConnectionError):
    """Qdrant did not answer in time, in any of the attempts."""


class MismatchedReader(ValueError):
    """What this reader was given does not fit the profiles: another secret, or vectors of another dimension."""


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """What to show a user, best first."""

    user_id: str
    items: list[Recommendation]
    at: int  # the time that the profile was read at, ms
    known: float  # how much is known of the user, in [0, 1); 0 where nothing is
    note: str | None = None  # why `at` is not the time asked for


class InterestView(NamedTuple):
    """One interest: its share of all that is remembered, and the texts it is strongest in."""

    share: float
    texts: tuple[str, ...]


class KeyShare(NamedTuple):
    """One product or query of the history, and its share of all that is remembered."""

    kind: str  # "product" or "query"
    id: str  # product id, or the normalised query
    text: str  # title (the id where the product isn't known), or the query
    share: float
    times: int  # orders that contained it, clicks and searches
    first_ts: int  # ms, in whole seconds
    last_ts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """What is known of a user, as of `at`. The shares of `keys` and `evicted` add up to 1."""

    user_id: str
    point_id: str
    generation: str
    at: int  # the time that the profile was read at, ms
    note: str | None  # why `at` is not the time asked for
    known: float  # norm of the lasting taste p(t), in [0, 1)
    recent: float  # norm of the taste by the short half-life
    n_searches: int
    n_purchases: int
    last_search_ts: int | None  # ms
    last_purchase_ts: int | None
    interests: tuple[InterestView, ...]  # largest share first
    keys: tuple[KeyShare, ...]  # strongest first
    evicted: float  # the share of what left the history
    pending: tuple[str, ...]  # ids of products that are waited for
    candidates: list[dict[str, JSON]]  # as stored with the profile for readers in any language
    made_at: int | None  # when those were derived, ms
    due: int | None  # when put-off work is to be done, ms


class FoundProduct(NamedTuple):
    """A product near a text. `similarity` is their centred cosine."""

    product_id: str
    title: str
    kind: str
    similarity: float


class SimilarUser(NamedTuple):
    """A user of a like taste. Only the point's id is known: it is a pseudonym."""

    point_id: str
    similarity: float  # centred cosine of the lasting tastes
    known: float
    interests: tuple[InterestView, ...]


class _Serving(NamedTuple):
    """The generation that is read, and what goes with it."""

    generation: Generation
    rules: DerivationRules
    catalogue: Catalogue
    snapshots: RecentSnapshot
    mean: Vector
    as_of: float


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
        rules: DerivationRules = _DEFAULT_RULES,
        *,
        generation: str | None = None,
        exclude_bought: bool = False,
        encode_query: QueryEncoder | None = None,
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
            attempts: how often a call is made before its error is raised.
        """
        self._address = address
        self._client: AsyncQdrantClient = connect(address, api_key=api_key, tls=tls, timeout_seconds=timeout_seconds)
        self._ids = PointIds(secret)
        self._rules = rules
        self._name = generation
        self._exclude_bought = exclude_bought
        self._encode_query = encode_query
        self._cached_products = cached_products
        self._retry = RetryPolicy(attempts=attempts, on_retry=lambda _: None)
        self._served: _Serving | None = None
        self._serving_lock = asyncio.Lock()

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
            return (await self._serving()).generation

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

        Args:
            limit: most items, at least 1.
            kind: only product, content or ad; None: any.
            new_only: leave out what the user bought.
            query: only what is near this text, in the order that text and user give together.
            at: moves the clock only: events aren't undone, and a time before the newest is answered as of that one,
                with a note. Where everything has faded to nothing, it is the newest event's time as well.

        Raises UnknownUser where there is no profile.
        """
        (found,) = await self._recommend([user_id], limit, kind, new_only, query, at)
        if found is None:
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

        A user without a profile has no items, and nothing is known of them.
        """
        moment = _now_ms() if at is None else at
        found = await self._recommend(user_ids, limit, kind, new_only, query, moment)
        return [
            one or RecommendationList(user_id, [], moment, 0.0, "there is no profile of this user")
            for user_id, one in zip(user_ids, found, strict=True)
        ]

    async def profile(self, user_id: str, *, at: int | None = None) -> ProfileView:
        """What is known of this user, as of `at` (ms; None: now). Raises UnknownUser where there is no profile."""
        moment = _now_ms() if at is None else at
        return await self._answer(lambda serving: self._profile(serving, user_id, moment))

    async def _profile(self, serving: _Serving, user_id: str, moment: int) -> ProfileView:
        stored = (await self._read(serving, [user_id], _EVERYTHING)).get(user_id)
        if stored is None:
            raise self._unknown(user_id)
        state = decode_state(stored.state)
        (taste,) = await self._tastes(serving, [state], moment)
        products = await serving.catalogue.get(_product_ids([state]))
        titles = {product_id: product.title for product_id, product in products.items()}
        total = total_log_weight(ledger.weight_long for ledger in state)
        evicted = total_log_weight(ledger.evicted for ledger in state)
        searches, purchases = state
        return ProfileView(
            user_id=user_id,
            point_id=stored.id,
            generation=serving.generation.name,
            at=taste.at,
            note=_note(state, taste, moment),
            known=taste.known,
            recent=0.0 if taste.short is None else float(np.linalg.norm(taste.short)),
            n_searches=searches.events,
            n_purchases=purchases.events,
            last_search_ts=searches.newest_ts if searches.events else None,
            last_purchase_ts=purchases.newest_ts if purchases.events else None,
            interests=tuple(InterestView(one.share, texts_of(one, titles)) for one in taste.interests),
            keys=tuple(_key_shares(state, total, titles)),
            evicted=0.0 if evicted == NOTHING else float(2.0 ** (evicted - total)),
            pending=tuple(sorted(state.pending)),
            candidates=stored.candidates,
            made_at=stored.made_at,
            due=stored.due,
        )

    async def search(self, text: str, *, limit: int = 20, kind: str | None = None) -> list[FoundProduct]:
        """The available products nearest to a text, best first."""
        return await self._answer(lambda serving: self._search(serving, text, limit, kind))

    async def _search(self, serving: _Serving, text: str, limit: int, kind: str | None) -> list[FoundProduct]:
        asked = centred((await self._vector_of(text, serving))[None], serving.mean)
        (found,) = await serving.catalogue.near(asked, limit, kind=kind)
        return [
            FoundProduct(product.product_id, product.title, product.kind, similarity)
            for product, similarity in zip(
                found, _centred([product.score for product in found], asked, serving.mean), strict=True
            )
        ]

    async def similar(self, user_id: str, *, limit: int = 20) -> list[SimilarUser]:
        """Other users of the most like lasting taste, best first. Raises UnknownUser where there is no profile.

        Compares with every profile (profiles have no graph): 15 ms for 100,000 of them, not a call for a hot path.
        """
        return await self._answer(lambda serving: self._similar(serving, user_id, limit))

    async def _similar(self, serving: _Serving, user_id: str, limit: int) -> list[SimilarUser]:
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
        return [
            SimilarUser(point.id.uuid, similarity, _known(point), _interests_of(point))
            for point, similarity in zip(response.result, scores, strict=True)
        ]

    async def _recommend(
        self,
        user_ids: Sequence[str],
        limit: int,
        kind: str | None,
        new_only: bool,
        query: str | None,
        at: int | None,
    ) -> list[RecommendationList | None]:
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be 1 or more")
        ranking = RankingRules(limit, new_only or self._exclude_bought)
        moment = _now_ms() if at is None else at

        async def answer(serving: _Serving) -> list[RecommendationList | None]:
            asked = None if query is None else await self._vector_of(query, serving)
            snapshot = await serving.snapshots.get() if len(user_ids) >= _USERS_WORTH_A_SNAPSHOT else None
            gate = asyncio.Semaphore(_CHUNKS_IN_FLIGHT)

            async def chunk(users: Sequence[str]) -> list[RecommendationList | None]:
                async with gate:
                    return await self._lists(serving, snapshot, users, moment, ranking, kind, asked)

            chunks = await asyncio.gather(
                *(chunk(user_ids[start : start + _USERS_AT_ONCE]) for start in range(0, len(user_ids), _USERS_AT_ONCE))
            )
            return [one for lists in chunks for one in lists]

        return await self._answer(answer)

    async def _lists(
        self,
        serving: _Serving,
        snapshot: CatalogueSnapshot | None,
        user_ids: Sequence[str],
        moment: int,
        ranking: RankingRules,
        kind: str | None,
        query: Vector | None,
    ) -> list[RecommendationList | None]:
        stored = await self._read(serving, user_ids, _STATE)
        known = [user_id for user_id in dict.fromkeys(user_ids) if user_id in stored]
        states = [decode_state(stored[user_id].state) for user_id in known]
        tastes = await self._tastes(serving, states, moment)
        lists = await recommend(
            serving.catalogue, states, tastes, serving.mean, ranking, kind=kind, query=query, snapshot=snapshot
        )
        found = {
            user_id: RecommendationList(user_id, items, taste.at, taste.known, _note(state, taste, moment))
            for user_id, items, state, taste in zip(known, lists, states, tastes, strict=True)
        }
        return [found.get(user_id) for user_id in user_ids]

    async def _tastes(self, serving: _Serving, states: Sequence[ProfileState], moment: int) -> list[Taste]:
        products = await serving.catalogue.get(_product_ids(states))
        vectors = {product_id: product.vector for product_id, product in products.items() if product.vector is not None}
        return derive(states, vectors, serving.mean, moment, serving.rules)

    async def _vector_of(self, text: str, serving: _Serving) -> Vector:
        if self._encode_query is None:
            raise ValueError("a text query needs a Recommender with `encode_query`")
        model = serving.generation.model
        vector = await self._encode_query(text, model)
        if vector.shape != (model.dimension,):
            raise MismatchedReader(
                f"the query's vector has shape {vector.shape}, and the profiles are of {model.name} "
                f"({model.dimension} dimensions): encode it with that model"
            )
        return vector

    async def _read(
        self, serving: _Serving, user_ids: Iterable[str], payload: qdrant.WithPayloadSelector
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

    async def _answer(self, read: Callable[[_Serving], Awaitable[T]]) -> T:
        """What `read` finds in one generation; in its successor, should it turn out to be dropped."""
        with self._told():
            serving = await self._serving()
            while True:
                try:
                    return await read(serving)
                except PermanentSinkError as refusal:
                    if self._name is not None or not _is_missing(refusal):
                        raise
                    dropped, serving = serving, await self._serving(instead_of=serving)
                    if serving.generation == dropped.generation:
                        raise

    async def _serving(self, *, instead_of: _Serving | None = None) -> _Serving:
        async with self._serving_lock:
            served = self._served
            if (
                served is None
                or time.monotonic() - served.as_of > SERVING_SECONDS
                or (instead_of is not None and served.generation == instead_of.generation)
            ):
                served = self._served = await self._look_up(served)
            return served

    async def _look_up(self, before: _Serving | None) -> _Serving:
        if self._name is not None:
            return await self._open(self._name, before)
        name = await self._alias_target()
        while True:
            try:
                return await self._open(name, before)
            except (NothingServed, PermanentSinkError) as refusal:
                if isinstance(refusal, PermanentSinkError) and not _is_missing(refusal):
                    raise
                asked, name = name, await self._alias_target()
                if name == asked:
                    raise

    async def _open(self, name: str, before: _Serving | None) -> _Serving:
        generation = await read_generation(self._client, name, retry=self._retry)
        if generation is None:
            raise NothingServed(
                f"Qdrant at {self._address} has no generation {name!r}: a worker makes it when it starts"
            )
        if generation.secret_fingerprint != self._ids.fingerprint:
            raise MismatchedReader(
                f"the point ids of generation {name!r} were made with the secret of fingerprint "
                f"{generation.secret_fingerprint}, and this one's is {self._ids.fingerprint}: nobody would be found. "
                "Give the secret file of the workers (secret_file)"
            )
        mean = await read_mean(self._client, name, retry=self._retry)
        vector = np.zeros(generation.model.dimension, np.float32) if mean is None else mean.vector
        if before is not None and before.generation == generation:
            return before._replace(mean=vector, as_of=time.monotonic())
        collection = products_collection(name)
        return _Serving(
            generation,
            _as_folded(self._rules, generation),
            Catalogue(self._client, collection, self._ids, cached=self._cached_products, retry=self._retry),
            RecentSnapshot(self._client, collection, retry=self._retry),
            vector,
            time.monotonic(),
        )

    async def _alias_target(self) -> str:
        response = await until_answered(
            self._client.get_aliases, doing="looking up aliases", collection="profiles", retry=self._retry
        )
        for alias in response.aliases:
            if alias.alias_name == "profiles":
                return alias.collection_name.removeprefix(profiles_collection(""))
        raise NothingServed(
            f"Qdrant at {self._address} serves no profiles yet (no alias `profiles`): a worker makes it when it starts"
        )

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


class Recommender:
    """`AsyncRecommender` for code without asyncio: the same methods, each waiting for its answer.

    Its calls run on an event loop in a thread of its own, so that it works in notebooks and in web servers of many
    threads, and may be shared by them. Close it, or use `with`.
    """

    def __init__(
        self,
        address: str,
        secret: bytes,
        rules: DerivationRules = _DEFAULT_RULES,
        *,
        generation: str | None = None,
        exclude_bought: bool = False,
        encode_query: QueryEncoder | None = None,
        api_key: str | None = None,
        tls: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attempts: int = ATTEMPTS,
        cached_products: int = 100_000,
    ) -> None:
        """As `AsyncRecommender`. `encode_query` is awaited on this object's own event loop."""
        self._asynchronous = AsyncRecommender(
            address,
            secret,
            rules,
            generation=generation,
            exclude_bought=exclude_bought,
            encode_query=encode_query,
            api_key=api_key,
            tls=tls,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            cached_products=cached_products,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="afterglow-recommender", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._asynchronous.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def generation(self) -> Generation:
        """The generation that is read, as it is recorded."""
        return self._wait(self._asynchronous.generation())

    def recommend(
        self,
        user_id: str,
        *,
        limit: int = 20,
        kind: str | None = None,
        new_only: bool = False,
        query: str | None = None,
        at: int | None = None,
    ) -> RecommendationList:
        """See `AsyncRecommender.recommend`."""
        return self._wait(
            self._asynchronous.recommend(user_id, limit=limit, kind=kind, new_only=new_only, query=query, at=at)
        )

    def recommend_many(
        self,
        user_ids: Sequence[str],
        *,
        limit: int = 20,
        kind: str | None = None,
        new_only: bool = False,
        query: str | None = None,
        at: int | None = None,
    ) -> list[RecommendationList]:
        """See `AsyncRecommender.recommend_many`."""
        return self._wait(
            self._asynchronous.recommend_many(user_ids, limit=limit, kind=kind, new_only=new_only, query=query, at=at)
        )

    def profile(self, user_id: str, *, at: int | None = None) -> ProfileView:
        """See `AsyncRecommender.profile`."""
        return self._wait(self._asynchronous.profile(user_id, at=at))

    def search(self, text: str, *, limit: int = 20, kind: str | None = None) -> list[FoundProduct]:
        """See `AsyncRecommender.search`."""
        return self._wait(self._asynchronous.search(text, limit=limit, kind=kind))

    def similar(self, user_id: str, *, limit: int = 20) -> list[SimilarUser]:
        """See `AsyncRecommender.similar`."""
        return self._wait(self._asynchronous.similar(user_id, limit=limit))

    def _wait(self, answer: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()


_STATE = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=["version", "state"]))
_EVERYTHING = qdrant.WithPayloadSelector(enable=True)
_TASTE = qdrant.WithPayloadSelector(include=qdrant.PayloadIncludeSelector(fields=["known", "interests"]))
_NO_VECTORS = qdrant.WithVectorsSelector(enable=False)


def _is_missing(refusal: PermanentSinkError) -> bool:
    """Whether a collection was read that does not exist: of a generation that was dropped."""
    cause = refusal.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() == grpc.StatusCode.NOT_FOUND


def _as_folded(rules: DerivationRules, generation: Generation) -> DerivationRules:
    """With the half-lives that the sums were decayed by: reading them by others would be wrong for every user."""
    long, short = generation.fold.get("half_life_long_ms"), generation.fold.get("half_life_short_ms")
    if isinstance(long, int | float) and isinstance(short, int | float):
        return replace(rules, half_life_long_ms=float(long), half_life_short_ms=float(short))
    return rules


def _product_ids(states: Iterable[ProfileState]) -> set[str]:
    return {key[1:] for state in states for ledger in state for key in ledger.keys if not is_query(key)}


def _note(state: ProfileState, taste: Taste, moment: int) -> str | None:
    if taste.at == moment:
        return None
    newest = datetime.fromtimestamp(taste.at / 1000, UTC).isoformat(timespec="seconds")
    if moment < taste.at:
        return f"the user's newest event is of {newest}; events aren't undone, so this is as of then"
    return f"everything has faded since the user's newest event; this is as of then, {newest}"


def _key_shares(state: ProfileState, total: float, titles: dict[str, str]) -> list[KeyShare]:
    merged: dict[str, tuple[float, int, int, int]] = {}
    for ledger in state:
        for key, row in zip(ledger.keys, ledger.history[_SHOWN].tolist(), strict=True):
            weight, first, last, times = row
            if key in merged:
                other, earliest, latest, before = merged[key]
                weight, times = add_log_weights(other, weight), before + times
                first, last = min(earliest, first), max(latest, last)
            merged[key] = (weight, first, last, times)
    strongest = sorted(merged.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        KeyShare(
            kind="query" if is_query(key) else "product",
            id=key[1:],
            text=key[1:] if is_query(key) else titles.get(key[1:]) or key[1:],
            share=float(2.0 ** (weight - total)),
            times=times,
            first_ts=1000 * first,
            last_ts=1000 * last,
        )
        for key, (weight, first, last, times) in strongest
    ]


_SHOWN: Final = ["weight", "first", "last", "count"]


def _centred(scores: Sequence[float], asked: Vector, mean: Vector) -> list[float]:
    ((offset, scale),) = centring(asked, mean)
    return [(score - offset) * scale for score in scores]


def _known(point: qdrant.ScoredPoint) -> float:
    return number_of(point.payload["known"]) if "known" in point.payload else 0.0


def _interests_of(point: qdrant.ScoredPoint) -> tuple[InterestView, ...]:
    listed = value_of(point.payload["interests"]) if "interests" in point.payload else None
    found = []
    for interest in listed if isinstance(listed, list) else ():
        if isinstance(interest, dict):
            share, texts = interest.get("share"), interest.get("texts")
            found.append(
                InterestView(
                    float(share) if isinstance(share, int | float) else 0.0,
                    tuple(str(text) for text in texts) if isinstance(texts, list) else (),
                )
            )
    return tuple(found)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
