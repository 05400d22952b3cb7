"""`Recommender`: `AsyncRecommender` for code without asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import TypeVar

from sinks.collections import Generation
from sinks.connection import DEFAULT_TIMEOUT_SECONDS
from sinks.derivation import DerivationRules
from sinks.retrieval.answers import ProfileView, RecommendationList, SearchResult, SimilarUser
from sinks.retrieval.recommender import ATTEMPTS, DEFAULT_RULES, AsyncRecommender, QueryEncoder, QueryKey

T = TypeVar("T")


class Recommender:
    """`AsyncRecommender` for code without asyncio: the same methods, each waiting for its answer.

    Its calls run on an event loop in a thread of its own, so that it works in notebooks and in web servers of many
    threads, and may be shared by them. Close it, or use `with`.
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
        """As `AsyncRecommender`. `encode_query` is awaited on this object's own event loop."""
        self._asynchronous = AsyncRecommender(
            address,
            secret,
            rules,
            generation=generation,
            exclude_bought=exclude_bought,
            encode_query=encode_query,
            query_key=query_key,
            api_key=api_key,
            tls=tls,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            cached_products=cached_products,
        )
        self._loop = _event_loop()
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

    def search(self, text: str, *, limit: int = 20, kind: str | None = None) -> SearchResult:
        """See `AsyncRecommender.search`."""
        return self._wait(self._asynchronous.search(text, limit=limit, kind=kind))

    def similar(self, user_id: str, *, limit: int = 20) -> list[SimilarUser]:
        """See `AsyncRecommender.similar`."""
        return self._wait(self._asynchronous.similar(user_id, limit=limit))

    def _wait(self, answer: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
