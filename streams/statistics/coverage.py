"""Which share of the products people's lists show: made as `sinks.ranking` does, by what statistics know. Pure."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

import numpy as np

from sinks.statistics import shown_in_a_thousand
from streams.statistics.fold import StatisticsFold, highest
from streams.statistics.offering import Rows

_LISTED: Final = 1000  # people whose lists are made to see what all of them show


class Coverage(NamedTuple):
    """Which products are in anybody's list, of how many lists."""

    rows: Rows
    lists: int


def coverage_of(folding: StatisticsFold, places: int, *, exposure: float, exclude_bought: bool) -> Coverage:
    """What people would be shown now, in lists of so many places: of a thousand of them, the same ones each time (those
    with the lowest hashes). `exposure` is what being shown to others costs, by `RankingRules`.

    By what is known here: products that nobody bought, found by their text alone, aren't among it.
    """
    folding.columns.decay(folding.now)
    weights = folding.learner.weights
    shown = shown_in_a_thousand(folding.columns.shown, folding.columns.lists)
    cost = exposure * np.log1p(shown.astype(np.float64))
    out = np.zeros(len(folding.product_ids), np.bool_)
    lists = 0
    for user in heapq.nsmallest(_LISTED, folding.users if folding.lines else folding.searchers.all()):
        offered = folding.offered_to(user)
        if offered is None:
            continue
        rows, scores = offered.pool, offered.new @ weights.new
        if not exclude_bought:
            rows = np.concatenate([rows, offered.seen])
            scores = np.concatenate([scores, offered.again @ weights.bought])
        out[rows[highest(scores - cost[rows], places)]] = True
        lists += 1
    return Coverage(np.flatnonzero(out), lists)
