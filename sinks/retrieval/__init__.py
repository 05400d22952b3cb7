"""Profiles and recommendations, read back: `AsyncRecommender`, and `Recommender` for code without asyncio.

What is read is derived anew from the stored state at the time asked for, by the very functions that the worker stores
candidates with, so that an idle user's list is fresh too. Nothing here writes, and nothing needs Kafka or a model (a
text query needs a function that encodes it).

    with Recommender("127.0.0.1:6334", secret, rules) as recommender:
        for item in recommender.recommend("ada", limit=10).items:
            print(item.title, item.score, item.because)
"""

from sinks.retrieval.answers import (
    FoundProduct,
    InterestView,
    KeyShare,
    MismatchedReader,
    NothingServed,
    ProfileView,
    QdrantUnreachable,
    RecommendationList,
    SearchResult,
    SimilarUser,
    UnknownUser,
)
from sinks.retrieval.blocking import Recommender
from sinks.retrieval.recommender import AsyncRecommender, QueryEncoder

__all__ = [
    "AsyncRecommender",
    "FoundProduct",
    "InterestView",
    "KeyShare",
    "MismatchedReader",
    "NothingServed",
    "ProfileView",
    "QdrantUnreachable",
    "QueryEncoder",
    "RecommendationList",
    "Recommender",
    "SearchResult",
    "SimilarUser",
    "UnknownUser",
]
