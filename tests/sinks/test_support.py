"""A query that is like nothing in the catalogue counts less; what the catalogue is like counts in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sinks.ledgers import QueryVector
from sinks.support import LANDMARKS, UNKNOWN_CATALOGUE, Support, landmarks_of

DIMENSION = 32
NO_MEAN = np.zeros(DIMENSION, np.float32)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def kinds_of_products(n: int) -> NDArray[np.float32]:
    """Each of one of eight kinds, whose products have a cosine of about .8; in the first half of the dimensions."""
    chance = np.random.default_rng(3)
    vectors = np.zeros((n, DIMENSION))
    vectors[:, :16] = 0.12 * chance.standard_normal((n, 16))
    vectors[np.arange(n), np.arange(n) % 8] += 1.0
    return unit(vectors)


PRODUCTS = kinds_of_products(128)
SUPPORT = Support(landmarks_of(PRODUCTS, NO_MEAN), NO_MEAN)


def between(kind: float, nothing: float) -> QueryVector:
    """So much like products of a kind, and so much like nothing in the catalogue."""
    vector = np.zeros(DIMENSION)
    vector[0], vector[20] = kind, nothing
    return QueryVector.of(unit(vector))


def test_the_less_a_query_is_like_anything_in_the_catalogue_the_less_of_it_counts() -> None:
    assert SUPPORT.confidence(between(1.0, 0.0)) == 1.0
    assert SUPPORT.confidence(between(1.0, 0.5)) == 1.0
    assert 0.1 < SUPPORT.confidence(between(1.0, 1.6)) < 0.9
    assert SUPPORT.confidence(between(0.0, 1.0)) == 0.05


def test_a_query_is_compared_centred_as_the_landmarks_are() -> None:
    away = np.zeros(DIMENSION, np.float32)
    away[25] = 2.0
    moved = unit((PRODUCTS + away).astype(np.float64))
    mean = moved.mean(axis=0)
    support = Support(landmarks_of(moved, mean), mean)
    assert support.confidence(QueryVector.of(moved[3])) == 1.0
    assert support.confidence(QueryVector.of(unit(np.eye(DIMENSION)[25]))) < 0.5, "like all alike is like nothing"


def test_of_few_products_it_is_not_known_what_is_usual() -> None:
    few = Support(landmarks_of(PRODUCTS[:63], NO_MEAN), NO_MEAN)
    assert few.confidence(between(0.0, 1.0)) == 1.0
    assert UNKNOWN_CATALOGUE.confidence(between(0.0, 1.0)) == 1.0


def test_there_are_at_most_so_many_landmarks() -> None:
    assert landmarks_of(kinds_of_products(LANDMARKS + 9), NO_MEAN).shape == (LANDMARKS, DIMENSION)


@given(st.lists(st.floats(-1.0, 1.0, width=32), min_size=DIMENSION, max_size=DIMENSION))
def test_a_confidence_is_a_function_of_the_vector_alone(values: list[float]) -> None:
    query = QueryVector.of(np.array(values, np.float32))
    fresh = Support(landmarks_of(PRODUCTS, NO_MEAN), NO_MEAN)
    assert 0.05 <= SUPPORT.confidence(query) <= 1.0
    assert SUPPORT.confidence(query) == fresh.confidence(query) == pytest.approx(SUPPORT.confidence(query))
