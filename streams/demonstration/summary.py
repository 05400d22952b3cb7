"""What came of a demonstration, in figures that add up or don't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sinks.identity import PointIds
from streams.demonstration.observation import Counted, Freshness, Look
from streams.demonstration.portraits import Portrait


class Missing(msgspec.Struct, frozen=True):
    """A shopper whose stored profile does not have exactly the events that were sent."""

    user_id: str
    sent: Counted
    folded: Counted


class Told(msgspec.Struct, frozen=True):
    """One shopper, after each act: shares of the profile by department, and the titles of new products recommended."""

    user_id: str
    departments: list[Mapping[str, float]]
    recommended: list[list[str]]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    products: int
    profiles: int
    sent: int
    folded: int
    refused: int
    missing: list[Missing]
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    freshness_probes: int
    texts_encoded: int
    texts_from_cache: int
    seconds: float
    shoppers: list[Told]

    @property
    def complete(self) -> bool:
        """Whether every event sent was folded in, into the profile of its own user, and nothing else was."""
        return self.sent == self.folded and not self.missing and not self.refused


def missing_events(sent: Mapping[str, Counted], look: Look, ids: PointIds) -> list[Missing]:
    """The users whose profile does not have exactly the events that were sent; `sent` is by user."""
    nothing = Counted(0, 0)
    stored = {user: look.profiles.get(ids.user(user), nothing) for user in sent}
    return [Missing(user, counted, stored[user]) for user, counted in sent.items() if stored[user] != counted]


def summarise(
    *,
    sent: Mapping[str, Counted],
    look: Look,
    ids: PointIds,
    products: int,
    refused: int,
    freshness: Freshness,
    seconds: float,
    portraits: Sequence[Sequence[Portrait]],
) -> Summary:
    """`sent` is by user; `portraits` are those after each act, in the same order."""
    return Summary(
        products=products,
        profiles=len(look.profiles),
        sent=sum(map(sum, sent.values())),
        folded=look.folded,
        refused=refused,
        missing=missing_events(sent, look, ids),
        freshness_p50_ms=freshness.quantile(0.5),
        freshness_p99_ms=freshness.quantile(0.99),
        freshness_probes=len(freshness.measured_ms),
        texts_encoded=look.encoder.encoded,
        texts_from_cache=look.encoder.cache_hits,
        seconds=round(seconds, 1),
        shoppers=[
            Told(
                one[0].user_id,
                [act.departments for act in one],
                [[item.title for item in act.new] for act in one],
            )
            for one in zip(*portraits, strict=True)
        ],
    )
