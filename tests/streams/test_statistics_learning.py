"""Weights learned from what people order: a few steps by hand, and which way they go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sinks.scoring import PRIOR, Weights
from streams.statistics.learning import Learner


def of_two(*weights: float) -> Learner:
    return Learner(Weights(np.array(weights), np.zeros(1)))


HIT, MISS = np.array([True]), np.array([False])


def test_the_first_step_is_the_rate_whatever_the_gradient():
    learner = of_two(0.0, 0.0)
    learner.learn_new(np.array([[1.0, 0.2]]), HIT)
    # p = .5: gradients -.5 and -.1, each divided by its own size
    assert learner.weights.new.tolist() == pytest.approx([0.15, 0.15])
    assert learner.squares.new.tolist() == pytest.approx([0.25, 0.01])


def test_later_steps_shrink_by_all_gradients_so_far():
    learner = of_two(0.0)
    learner.learn_new(np.array([[1.0]]), HIT)
    learner.learn_new(np.array([[1.0]]), MISS)
    p = 1 / (1 + np.exp(-0.15))
    assert learner.weights.new.tolist() == pytest.approx([0.15 - 0.15 * p / np.sqrt(0.25 + p * p)])


def test_what_a_list_held_is_one_step():
    learner = of_two(0.0)
    learner.learn_new(np.array([[1.0], [1.0], [1.0]]), np.array([True, False, False]))
    assert learner.squares.new.tolist() == pytest.approx([0.25])  # (.5 · 3 - 1)²
    assert learner.weights.new.tolist() == pytest.approx([-0.15])


def test_what_is_new_and_what_was_bought_are_learned_apart():
    learner = Learner()
    learner.learn_bought(np.ones((1, len(PRIOR.bought))), HIT)
    assert learner.weights.new.tolist() == PRIOR.new.tolist()
    assert learner.weights.bought.tolist() == pytest.approx((PRIOR.bought + 0.15).tolist())


def test_the_weights_to_begin_with_stay_what_they_are():
    before = PRIOR.new.copy()
    Learner().learn_new(np.ones((3, len(PRIOR.new))), np.zeros(3, np.bool_))
    assert PRIOR.new.tolist() == before.tolist()


def test_nothing_is_learned_from_nothing():
    learner = Learner()
    learner.learn_new(np.zeros((0, len(PRIOR.new))), np.zeros(0, np.bool_))
    assert learner.weights.new.tolist() == PRIOR.new.tolist()
    learner.learn_new(np.zeros((1, len(PRIOR.new))), HIT)
    assert learner.weights.new.tolist() == PRIOR.new.tolist()


def test_it_finds_which_feature_matters():
    chance = np.random.default_rng(1)
    learner = of_two(0.0, 0.0, 0.0)
    for _ in range(400):
        features = np.column_stack([chance.normal(size=(20, 2)), np.ones(20)])
        learner.learn_new(features, chance.random(20) < 1 / (1 + np.exp(2.0 - 1.5 * features[:, 0])))
    assert learner.weights.new.tolist() == pytest.approx([1.5, 0.0, -2.0], abs=0.2)


@given(
    arrays.arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)),
    arrays.arrays(np.bool_, 4),
    st.integers(1, 5),
)
def test_no_input_makes_a_weight_no_number_or_moves_it_further_than_the_rate(features, ordered, times):
    learner = of_two(0.0, 0.0, 0.0)
    for _ in range(times):
        before = learner.weights.new.copy()
        learner.learn_new(features, ordered)
        assert np.isfinite(learner.weights.new).all()
        assert (np.abs(learner.weights.new - before) <= 0.15 + 1e-12).all()
