"""Settings become the rules of the fold; a generation keeps those it was made by."""

from __future__ import annotations

import pytest

from sinks.collections import Generation, Model
from streams.generations import as_folded, inherited
from streams.rules import fold_rules, profiles_of, recorded_fold, weights
from streams.settings import Settings, load


def generation(fold: dict[str, object]) -> Generation:
    return Generation("main", Model("small", "abc", 4), "fingerprint", fold, created_at_ms=1)


def of_today(**overrides: str) -> Settings:
    return load(environment={}, overrides={f"profiles.{name}": value for name, value in overrides.items()})


def test_what_is_recorded_is_what_is_read_back() -> None:
    profiles = of_today(half_life_long="14d", noise_rules="0").profiles
    assert profiles_of(recorded_fold(profiles), of_today().profiles) == profiles


def test_a_generation_made_before_there_were_rules_for_noise_goes_on_without_and_its_successor_has_them() -> None:
    older = recorded_fold(of_today(weight_search="2").profiles)
    del older["noise_rules"]
    settings = as_folded(of_today(), generation(older))
    assert (weights(settings).search, weights(settings).noise_rules) == (2.0, 0)
    assert fold_rules(settings).searches.allowance is None
    successor = inherited(of_today(), generation(older)).profiles
    assert (successor.weight_search, successor.noise_rules) == (2.0, 1)


def test_a_successor_of_a_generation_without_rules_by_choice_has_none_either() -> None:
    chosen = generation(recorded_fold(of_today(noise_rules="0").profiles))
    assert inherited(of_today(), chosen).profiles.noise_rules == 0


def test_a_search_a_minute_is_taken_in_full_whatever_the_half_life() -> None:
    """60 an hour add up to 60 / ln 2 with a half-life of an hour; a shorter one is allowed as much at once."""
    assert fold_rules(of_today()).searches.allowance == pytest.approx(86.56, abs=0.01)
    assert fold_rules(of_today(half_life_short="2h")).searches.allowance == pytest.approx(173.12, abs=0.01)
    assert fold_rules(of_today(half_life_short="5m")).searches.allowance == pytest.approx(86.56, abs=0.01)
    assert fold_rules(of_today(weight_search="3")).searches.allowance == pytest.approx(259.69, abs=0.01)
    assert fold_rules(of_today()).purchases.allowance is None
