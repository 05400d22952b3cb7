"""What a reader is shown of a stored profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from qdrant_client import grpc as qdrant

from sinks.derivation import Taste
from sinks.ledgers import NOTHING, ProfileState, add_log_weights, is_query, total_log_weight
from sinks.reasons import texts_of
from sinks.retrieval.answers import InterestView, KeyShare, ProfileView, SimilarUser
from sinks.stored import StoredProfile
from sinks.wire import number_of, value_of


def profile_view(
    user_id: str,
    generation: str,
    stored: StoredProfile,
    state: ProfileState,
    taste: Taste,
    titles: Mapping[str, str],
    moment: int,
) -> ProfileView:
    """A profile, all of whose payload was read, as of `moment` (ms); `titles` are those of the products it knows."""
    total = total_log_weight(ledger.weight_long for ledger in state)
    evicted = total_log_weight(ledger.evicted for ledger in state)
    searches, purchases = state
    return ProfileView(
        user_id=user_id,
        point_id=stored.id,
        generation=generation,
        at=taste.at,
        note=note_of(state, taste, moment),
        known=taste.known,
        recent=0.0 if taste.short is None else math.sqrt(taste.short.dot(taste.short)),
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


def similar_user(point: qdrant.ScoredPoint, similarity: float) -> SimilarUser:
    """A profile that a search found, read with `known` and `interests`."""
    known = number_of(point.payload["known"]) if "known" in point.payload else 0.0
    return SimilarUser(point.id.uuid, similarity, known, _interests_of(point))


def note_of(state: ProfileState, taste: Taste, moment: int) -> str | None:
    """Why the profile is read as of another time than the one asked for; None where it isn't."""
    if taste.at == moment:
        return None
    newest = datetime.fromtimestamp(taste.at / 1000, UTC).isoformat(timespec="seconds")
    if moment < taste.at:
        return f"the user's newest event is of {newest}; events aren't undone, so this is as of then"
    return f"everything has faded since the user's newest event; this is as of then, {newest}"


def _key_shares(state: ProfileState, total: float, titles: Mapping[str, str]) -> list[KeyShare]:
    """The history of both ledgers, each key's share of `total` (a log-weight), strongest first."""
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


def _interests_of(point: qdrant.ScoredPoint) -> tuple[InterestView, ...]:
    """Those stored with it."""
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
