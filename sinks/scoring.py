"""How likely a person's next order holds a product: a log-odds, with one form for products that are new to them and
one for products they bought before. Pure; the same functions serve ranking and the learning of the weights.

The features, and the weights to begin with, are those that a logistic regression found on orders of online-retail;
`streams.statistics` goes on learning them from the shop's own orders.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAY_MS: Final = 86_400_000.0

NEW_TO_THE_PERSON: Final = (
    "together",
    "likeness",
    "related",
    "kin",
    "viewed",
    "sold_20",
    "sold_5",
    "clicked",
    "asked",
    "just_clicked",
    "fresh",
    "never_sold",
    "repeatable",
    "surprise",
    "bias",
)
BOUGHT_BEFORE: Final = (
    "together",
    "likeness",
    "sold_20",
    "sold_5",
    "fresh",
    "repeatable",
    "times",
    "recency",
    "share_of_orders",
    "since",
    "person",
    "orders",
    "lately",
    "bias",
)


class Weights(NamedTuple):
    """One weight a feature, in the order of `NEW_TO_THE_PERSON` and of `BOUGHT_BEFORE`."""

    new: Floats
    bought: Floats


PRIOR: Final = Weights(
    # That something was clicked just now speaks for it where people go on to buy it, and against it where they go on
    # looking, so it counts nothing until the shop has shown which.
    # What the catalogue says goes together counts as if everybody bought it together, until orders say otherwise, and
    # so does what a kind is bought together with; what is clicked in one visit, half as much.
    np.array([0.65, 0.4, 0.65, 0.65, 0.3, 0.09, 0.46, 0.5, 0.4, 0.0, 1.38, -0.32, -1.14, 1.0, -6.0]),
    # A person's own rate of repeats counts in full until the shop's orders have been learned from, so that the list
    # follows the shop: one that sells nothing twice is not shown what was bought.
    np.array([0.22, 0.02, 0.18, 0.27, 0.16, 0.49, 0.27, 0.99, 0.34, 0.24, 1.0, -0.28, 0.05, -4.26]),
)
"""Weights of a shop that nothing was learned from yet."""

_TOGETHER: Final = 0.03  # what being bought together is measured in
_LIKENESS: Final = 0.01  # what likeness of texts is measured in
_ASKED: Final = 0.01  # what a share of the clicks after somebody's queries is measured in
_JUST_MS: Final = DAY_MS  # half-life of a click being just now

UNSURE_CLICKS: Final = 3.0
"""What was clicked after a query is trusted by half when so many clicks are known (on game-searches 1 and 10 are worth
as much, ±.002 of MRR).
"""

_REPEATABLE_PRIOR: Final = (1.5, 10.0)  # of which a line is a repeat: the rate of products and people not known yet
_FRESH_DAYS: Final = 30.0


class Product(NamedTuple):
    """What is known of products across users: parallel arrays [n]."""

    sold_20: Floats
    sold_5: Floats
    clicked: Floats
    age_ms: Floats  # since the first sale, or since it was announced; infinite where neither is known
    never_sold: Floats  # 1 where nobody bought it and nothing says that it is new
    buyers: Floats
    repeats: Floats
    surprise: Floats  # by `sinks.statistics.surprise_of`


class Searched(NamedTuple):
    """What one person's searches say of products: parallel arrays [n]."""

    asked: Floats  # by `asked_of`
    just_clicked: Floats  # by `just_clicked_of`; 0 where the person didn't click it
    viewed: Floats  # by `together_of`: clicked in one visit with what the person clicked

    @classmethod
    def nothing(cls, products: int) -> Searched:
        return cls(np.zeros(products), np.zeros(products), np.zeros(products))


class Habit(NamedTuple):
    """What one person did with products they bought: parallel arrays [n], and numbers of the person."""

    times: Floats  # orders that hold it
    recency: Floats  # the same, decayed by x.8 at each of the person's orders since
    orders_since_first: Floats
    since_ms: Floats
    orders: int
    repeats: int  # lines that bought something again
    later_lines: int  # lines after the first order


def together_of(sums: Floats, history: int) -> Floats:
    """ln(1 + Σ S / (√|H| · .03)): how much a product is bought together with a history of |H| products."""
    result: Floats = np.log1p(sums / (math.sqrt(max(history, 1)) * _TOGETHER))
    return result


def likeness_of(sums: Floats, history: int) -> Floats:
    """ln(1 + Σ s / (√|H| · .01)), s = max(0, centred cosine)⁴."""
    result: Floats = np.log1p(sums / (math.sqrt(max(history, 1)) * _LIKENESS))
    return result


def asked_of(shares: Floats) -> Floats:
    """ln(1 + share / .01), of the clicks of others after this person's queries those that went to the product."""
    result: Floats = np.log1p(shares / _ASKED)
    return result


def just_clicked_of(since_ms: Floats) -> Floats:
    """2^(-t / 1 day)."""
    result: Floats = np.exp2(-np.maximum(since_ms, 0.0) / _JUST_MS)
    return result


def new_features(
    together: Floats, likeness: Floats, related: Floats, kin: Floats, product: Product, searched: Searched
) -> Floats:
    """[n, features] of products that are new to the person. `related` and `kin` are by `together_of`."""
    return _features(
        len(together),
        together,
        likeness,
        related,
        kin,
        searched.viewed,
        np.log1p(product.sold_20),
        np.log1p(product.sold_5),
        np.log1p(product.clicked),
        searched.asked,
        searched.just_clicked,
        np.exp(-product.age_ms / (_FRESH_DAYS * DAY_MS)),
        product.never_sold,
        _repeatable(product.repeats, product.buyers),
        product.surprise,
        1.0,
    )


def bought_features(together: Floats, likeness: Floats, product: Product, habit: Habit) -> Floats:
    """[n, features] of products that the person bought before."""
    days = habit.since_ms / DAY_MS
    person = (habit.repeats + _REPEATABLE_PRIOR[0]) / (habit.later_lines + _REPEATABLE_PRIOR[1])
    return _features(
        len(together),
        together,
        likeness,
        np.log1p(product.sold_20),
        np.log1p(product.sold_5),
        np.exp(-product.age_ms / (_FRESH_DAYS * DAY_MS)),
        _repeatable(product.repeats, product.buyers),
        np.log1p(3.0 * habit.times),
        np.log1p(3.0 * habit.recency),
        habit.times / np.maximum(habit.orders_since_first, 1.0),
        np.log1p(np.minimum(days, 400.0) / 30.0),
        math.log(person),
        math.log1p(habit.orders),
        np.log1p(3.0 * np.exp2(-days / 60.0)),
        1.0,
    )


def _features(products: int, *columns: Floats | float) -> Floats:
    """[products, columns]. Of some hundred products np.stack takes nearly twice as long."""
    features = np.empty((products, len(columns)))
    for place, column in enumerate(columns):
        features[:, place] = column
    return features


def _repeatable(repeats: Floats, buyers: Floats) -> Floats:
    more, all_ = _REPEATABLE_PRIOR
    rate: Floats = (repeats + more) / (buyers + repeats + all_)
    return rate
