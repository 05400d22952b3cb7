"""The rules of the fold and of what is derived, from the settings: the one place where they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sinks.derivation import DerivationRules
from sinks.ranking import RankingRules
from streams.batches import Weights
from streams.profiles import FoldRules, Rules
from streams.settings import Duration, Profiles, Settings
from streams.updater import RefreshRules

SEARCHES_AN_HOUR: Final = 60
"""Searches that nobody doubts, kept up for an hour; clicks count by their weight. Of 20,000 people who searched on a
shop's site none made more than 8 in any hour. Part of the rules of version 1."""

UNRECORDED: Final[Mapping[str, object]] = {"noise_rules": 0}
"""What generations were made by before there was a setting to record."""


def fold_rules(settings: Settings) -> Rules:
    profiles = settings.profiles

    def rules(history: int, allowance: float | None = None) -> FoldRules:
        return FoldRules(
            half_life_long_ms=float(profiles.half_life_long.milliseconds),
            half_life_short_ms=float(profiles.half_life_short.milliseconds),
            history=history,
            event_id_memory=profiles.event_id_memory,
            pending=profiles.pending,
            allowance=allowance,
        )

    hours = max(1.0, profiles.half_life_short.milliseconds / 3_600_000)
    taken_in_full = profiles.weight_search * SEARCHES_AN_HOUR * hours / math.log(2.0)
    return Rules(
        searches=rules(profiles.history_searches, taken_in_full if profiles.noise_rules else None),
        purchases=rules(profiles.history_purchases),
    )


def weights(settings: Settings) -> Weights:
    profiles = settings.profiles
    return Weights(profiles.weight_search, profiles.weight_click, profiles.weight_purchase, profiles.noise_rules)


def derivation_rules(settings: Settings) -> DerivationRules:
    derivation = settings.derivation
    return DerivationRules(
        half_life_long_ms=float(settings.profiles.half_life_long.milliseconds),
        half_life_short_ms=float(settings.profiles.half_life_short.milliseconds),
        regularisation=derivation.regularisation,
        interests=derivation.interests,
        interest_similarity=derivation.interest_similarity,
    )


def ranking_rules(settings: Settings) -> RankingRules:
    derivation = settings.derivation
    return RankingRules(derivation.candidates, derivation.exclude_bought, derivation.exposure, derivation.exploration)


def refresh_rules(settings: Settings) -> RefreshRules:
    derivation = settings.derivation
    return RefreshRules(
        move=derivation.candidates_move,
        interval_ms=derivation.candidates_interval.milliseconds,
        inline_users=settings.worker.inline_users,
    )


def recorded_fold(profiles: Profiles) -> dict[str, object]:
    """What a generation records of the settings that shape its ledgers. Durations are in milliseconds."""
    return {
        f"{field}_ms" if isinstance(value, Duration) else field: (
            value.milliseconds if isinstance(value, Duration) else value
        )
        for field, value in msgspec.structs.asdict(profiles).items()
    }


def profiles_of(fold: Mapping[str, object], otherwise: Profiles) -> Profiles:
    """The settings that `recorded_fold` recorded; of what it has no record of, `UNRECORDED`'s or `otherwise`'s."""
    kept: dict[str, Any] = {}
    for field, value in msgspec.structs.asdict(otherwise).items():
        if isinstance(value, Duration):
            recorded = fold.get(f"{field}_ms")
            kept[field] = Duration(int(recorded)) if isinstance(recorded, int | float) else value
        else:
            kept[field] = type(value)(fold.get(field, UNRECORDED.get(field, value)))
    return Profiles(**kept)
