"""What a reader is answered, and why there may be no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sinks.recommendation import Recommendation
from sinks.wire import JSON


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
    read_as: str | None = None  # how the query's words were taken to be spelt; None: as they were


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


class SearchResult(NamedTuple):
    """What was found for a text, best first."""

    items: list[FoundProduct]
    read_as: str | None  # how its words were taken to be spelt; None: as they were


class SimilarUser(NamedTuple):
    """A user of a like taste. Only the point's id is known: it is a pseudonym."""

    point_id: str
    similarity: float  # centred cosine of the lasting tastes
    known: float
    interests: tuple[InterestView, ...]
