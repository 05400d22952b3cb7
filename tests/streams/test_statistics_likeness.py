"""Which products have like texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.statistics import NEIGHBOURS, Neighbourhood
from streams.statistics import likeness
from streams.statistics.likeness import LikenessOfTexts

NO_MEAN = np.zeros(2, np.float32)


def at_degrees(*degrees: float) -> dict[str, np.ndarray]:
    """Unit vectors in the plane, by the name of their angle."""
    return {f"{one:g}°": np.array([np.cos(np.deg2rad(one)), np.sin(np.deg2rad(one))], np.float32) for one in degrees}


def near(found: Neighbourhood, ids: list[str], product_id: str) -> dict[str, float]:
    row = ids.index(product_id)
    pairs = zip(found.rows[row].tolist(), found.similarity[row].tolist(), strict=True)
    return {ids[other]: similarity for other, similarity in pairs if similarity > 0.0}


def test_likeness_is_the_fourth_power_of_the_cosine_and_a_product_is_like_itself():
    vectors = at_degrees(0, 45, 60, 180)
    found = LikenessOfTexts(NO_MEAN, vectors.get)(list(vectors))
    assert near(found, list(vectors), "0°") == pytest.approx({"0°": 1.0, "45°": 0.25, "60°": 0.0625}, rel=1e-5)
    assert near(found, list(vectors), "180°") == pytest.approx({"180°": 1.0}, rel=1e-5), "opposites aren't alike"


def test_what_has_next_to_nothing_in_common_has_nothing():
    vectors = at_degrees(0, 67, 69)  # .0233 and .0165
    found = LikenessOfTexts(NO_MEAN, vectors.get)(list(vectors))
    assert set(near(found, list(vectors), "0°")) == {"0°", "67°"}


def test_what_all_texts_have_in_common_says_nothing():
    vectors = {"a": np.array([0.96, 0.28], np.float32), "b": np.array([0.96, -0.28], np.float32)}
    assert near(LikenessOfTexts(NO_MEAN, vectors.get)(["a", "b"]), ["a", "b"], "a")["b"] == pytest.approx(0.8432**4)
    mean = np.array([0.96, 0.0], np.float32)
    assert set(near(LikenessOfTexts(mean, vectors.get)(["a", "b"]), ["a", "b"], "a")) == {"a"}


def test_a_product_without_a_vector_is_like_nothing():
    vectors = at_degrees(0)
    found = LikenessOfTexts(NO_MEAN, vectors.get)(["0°", "?"])
    assert near(found, ["0°", "?"], "?") == {}
    assert near(found, ["0°", "?"], "0°") == pytest.approx({"0°": 1.0})


def test_a_vector_that_comes_later_counts_from_when_it_is_begun_anew():
    vectors = at_degrees(0)
    like = LikenessOfTexts(NO_MEAN, vectors.get)
    like(["0°", "10°"])
    vectors |= at_degrees(10)
    assert near(like(["0°", "10°"]), ["0°", "10°"], "10°") == {}
    like.begin_anew()
    assert set(near(like(["0°", "10°"]), ["0°", "10°"], "10°")) == {"0°", "10°"}


def test_another_mean_begins_anew():
    vectors = {"a": np.array([0.96, 0.28], np.float32), "b": np.array([0.96, -0.28], np.float32)}
    like = LikenessOfTexts(np.array([0.96, 0.0], np.float32), vectors.get)
    like(["a", "b"])
    like.begin_anew(NO_MEAN)
    assert set(near(like(["a", "b"]), ["a", "b"], "a")) == {"a", "b"}


def test_other_rows_than_before_are_compared_anew():
    vectors = at_degrees(0, 10, 90)
    like = LikenessOfTexts(NO_MEAN, vectors.get)
    like(["0°", "10°", "90°"])
    assert set(near(like(["90°", "0°"]), ["90°", "0°"], "0°")) == {"0°"}


def test_nothing_is_like_nothing():
    assert LikenessOfTexts(NO_MEAN, {}.get)([]).rows.shape == (0, NEIGHBOURS)


def test_only_the_nearest_50_are_kept():
    vectors = at_degrees(*range(60))
    found = LikenessOfTexts(NO_MEAN, vectors.get)(list(vectors))
    assert set(near(found, list(vectors), "0°")) == {f"{n}°" for n in range(50)}
    assert set(near(found, list(vectors), "59°")) == {f"{n}°" for n in range(10, 60)}


def test_beyond_a_bound_products_are_like_nothing(monkeypatch):
    monkeypatch.setattr(likeness, "COMPARED", 3)
    vectors = at_degrees(0, 1, 2, 3, 4)
    found = LikenessOfTexts(NO_MEAN, vectors.get)(list(vectors))
    assert set(near(found, list(vectors), "0°")) == {"0°", "1°", "2°"}
    assert near(found, list(vectors), "4°") == {}
    assert found.rows.shape == (5, NEIGHBOURS)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 400), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_products_that_come_bit_by_bit_are_as_alike_as_all_at_once(seed, portions):
    chance = np.random.default_rng(seed)
    ids = [f"p{n}" for n in range(sum(portions))]
    vectors = dict(zip(ids, chance.normal(size=(len(ids), 8)).astype(np.float32), strict=True))
    mean = np.full(8, 0.1, np.float32)
    bit_by_bit = LikenessOfTexts(mean, vectors.get)
    for end in np.cumsum(portions):
        found = bit_by_bit(ids[:end])
    unit = np.stack(list(vectors.values())) - mean
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    likeness_ = np.maximum(unit @ unit.T, 0.0) ** 4
    likeness_[likeness_ < 0.02] = 0.0
    expected = -np.sort(-likeness_, axis=1)[:, :NEIGHBOURS]
    ours = -np.sort(-found.similarity, axis=1)[:, : expected.shape[1]]
    assert np.abs(ours - expected).max() < 1e-3  # where .02 cuts, a rounding decides
    there = found.similarity > 0.0
    own = np.broadcast_to(np.arange(len(ids))[:, None], there.shape)
    assert np.abs(likeness_[own[there], found.rows[there]] - found.similarity[there]).max() < 0.021
    assert (found.similarity >= 0.0).all()
    assert (found.similarity < 1.0 + 1e-5).all()
