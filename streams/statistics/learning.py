"""The weights of the ranking, learned online from what people order next. Pure.

Logistic regression by AdaGrad (Duchi et al. 2011): before an order is folded in, the products that could have been
shown are scored; what was in the order is a hit, the rest are misses.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sinks.scoring import PRIOR, Weights

Floats = NDArray[np.float64]

_RATE: Final = 0.15
_STEEPEST: Final = 30.0  # log-odds beyond which a probability is 0 or 1


class Learner:
    """`weights` are those learned so far; `squares` the sums of squared gradients that the steps shrink by."""

    def __init__(self, weights: Weights = PRIOR, squares: Weights | None = None) -> None:
        self.weights = Weights(*(part.copy() for part in weights))
        self.squares = Weights(*(np.zeros_like(part) for part in weights)) if squares is None else squares

    def learn_new(self, features: Floats, ordered: NDArray[np.bool_]) -> None:
        """From products new to somebody, [n, features], and whether each was in the order, [n]."""
        _step(self.weights.new, self.squares.new, features, ordered)

    def learn_bought(self, features: Floats, ordered: NDArray[np.bool_]) -> None:
        """From what somebody had bought before."""
        _step(self.weights.bought, self.squares.bought, features, ordered)


def probability_of(scores: Floats) -> Floats:
    """Of log-odds."""
    probability: Floats = 1.0 / (1.0 + np.exp(-np.clip(scores, -_STEEPEST, _STEEPEST)))
    return probability


def _step(weights: Floats, squares: Floats, features: Floats, ordered: NDArray[np.bool_]) -> None:
    gradient = features.T @ (probability_of(features @ weights) - ordered)
    squares += gradient**2
    weights -= _RATE * gradient / np.sqrt(np.maximum(squares, 1e-12))
