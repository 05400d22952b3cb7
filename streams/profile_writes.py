"""A folded profile as the point that is written, and what its candidates were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sinks.derivation import Taste
from sinks.ledgers import FAINTEST, ProfileState, encode_state, total_log_weight
from sinks.points import interests_value, profile_point
from sinks.profiles import Held
from sinks.reasons import texts_of
from sinks.recommendation import Recommendation
from sinks.wire import JSON, wire_value
from sinks.writes import Write, new_version

UNDERIVED: Final = 0
"""`due` of a profile of which nothing is derived: it has a state, and nothing for readers."""

NOTHING_DERIVED: Final = Taste(at=0, long=None, short=None, interests=())


def profile_write(
    id_: str,
    held: Held,
    state: ProfileState,
    taste: Taste,
    titles: Mapping[str, str],
    *,
    due: int | None,
    made_at: int,
    candidates: Sequence[Recommendation] | None,
) -> tuple[Write, Held]:
    """The write that replaces `held`, and the profile as it is held once that is stored.

    `candidates` that were made at `made_at` (ms) from this state; None: those of `held` stay.
    """
    version = new_version()
    kept = held
    if candidates is not None:
        made = wire_value([item.to_store() for item in candidates])
        kept = held._replace(made_at=made_at, made_from=_weights_of(state), candidates=made)
    stored = kept._replace(version=version, state=encode_state(state), due=due, noise=state.searches.noise)
    interests = np.array([interest.vector for interest in taste.interests]) if taste.interests else None
    point = profile_point(id_, version, taste.long, taste.short, interests, _payload(stored, state, taste, titles))
    return Write(id_, version, held.version, point), stored


def moved(held: Held, state: ProfileState) -> float:
    """The part of the profile's weight that is newer than its candidates, of the fold where it is larger.

    It bounds how far p(t) can have moved since, and needs no vector of then.
    """
    if held.made_from is None:
        return 1.0
    return max(
        1.0 - float(2.0 ** max(then - now, -1100.0))
        for then, now in zip(held.made_from, _weights_of(state), strict=True)
    )


def _weights_of(state: ProfileState) -> tuple[float, float]:
    return (
        max(FAINTEST, total_log_weight(ledger.weight_long for ledger in state)),
        max(FAINTEST, total_log_weight(ledger.weight_short for ledger in state)),
    )


def _payload(held: Held, state: ProfileState, taste: Taste, titles: Mapping[str, str]) -> dict[str, JSON | bytes]:
    """What readers find beside the vectors; absent where there is nothing to say. See `sinks.points`."""
    searches, purchases = state
    payload: dict[str, JSON | bytes] = {
        "state": held.state,
        "partition": max(searches.applied.partition, purchases.applied.partition),
        "known": taste.known,
        "n_searches": searches.events,
        "n_purchases": purchases.events,
        "interests": interests_value((interest.share, texts_of(interest, titles)) for interest in taste.interests),
        "candidates": held.candidates,
    }
    if held.due is not None:
        payload["due"] = held.due
    if pending := state.pending:
        payload["pending"] = [*sorted(pending)]
    if searches.noise:
        payload["noise"] = dict(searches.noise)
    if searches.events:
        payload["last_search_ts"] = searches.newest_ts
    if purchases.events:
        payload["last_purchase_ts"] = purchases.newest_ts
    if held.made_at is not None and held.made_from is not None:
        payload["made_at"] = held.made_at
        payload["made_from"] = list(held.made_from)
    return payload
