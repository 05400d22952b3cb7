"""Which products a person is shown, and in which order. Pure.

The likeliest ones (`sinks.prospects`), less what being shown to everybody costs, each with its reasons
(`sinks.reasons`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sinks.derivation import Taste
from sinks.ledgers import ProfileState
from sinks.prospects import Found, Prospects
from sinks.reasons import Reason, reasons
from sinks.statistics import NO_STATISTICS, Statistics

_EXPLORED: Final = 200  # what is shown least is sought among so many of the best


class Candidate(NamedTuple):
    product_id: str
    score: float  # log-odds, less what being shown to others costs; comparable within one list
    because: tuple[Reason, ...]  # largest share first; the shares add up to 1


@dataclass(frozen=True, slots=True)
class RankingRules:
    """What the operator, or a reader, asks of a list."""

    limit: int
    exclude_bought: bool = False
    exposure: float = 0.13
    """What being shown to others costs: this times ln(1 + e), of 1,000 recent lists e with the product."""
    exploration: int = 0
    """So many places, the last ones, go to the products shown least of the 200 best."""


def rank(
    state: ProfileState,
    taste: Taste,
    found: Found,
    titles: Mapping[str, str],
    available: Container[str],
    rules: RankingRules,
    statistics: Statistics = NO_STATISTICS,
) -> list[Candidate]:
    """The best `rules.limit` products, best first; ties by product id.

    `titles` are those of all products known, for the reasons; of what was found, bought, or is known of across users,
    only what is `available` is shown. With a query, only what was found near it is ranked.
    """
    return Ranking(state, taste, found, rules, statistics).candidates(titles, available)


class Ranking:
    """Everything that one person might be shown, scored."""

    def __init__(
        self, state: ProfileState, taste: Taste, found: Found, rules: RankingRules, statistics: Statistics
    ) -> None:
        self._rules = rules
        self._prospects = Prospects(state, taste, found, statistics, exclude_bought=rules.exclude_bought)
        rows = self._prospects.rows
        self._exposure = np.zeros(len(rows))
        self._exposure[rows >= 0] = statistics.exposure(rows[rows >= 0])
        self._worth = self._prospects.scores - rules.exposure * self._exposure

    def best(self, at_most: int) -> list[str]:
        """The ids of the best, available or not, best first."""
        ids: list[str] = self._prospects.ids[self._in_order(at_most)].tolist()
        return ids

    def candidates(self, titles: Mapping[str, str], available: Container[str]) -> list[Candidate]:
        """The best that are available."""
        rules, prospects, exposure = self._rules, self._prospects, self._exposure
        explored = min(rules.exploration, rules.limit)
        wanted = rules.limit + (_EXPLORED if explored else 0)
        places: list[int] = []
        for place in self._ordered(wanted):
            if prospects.ids[place] in available:
                places.append(place)
                if len(places) == wanted:
                    break
        shown, rest = places[: rules.limit - explored], places[rules.limit - explored :]
        if explored:
            # Of what was bought before, only what is left when too little is new.
            rest.sort(key=lambda place: (prospects.bought[place], exposure[place], -prospects.scores[place]))
            shown += rest[:explored]
        return [
            Candidate(prospects.ids[place], float(self._worth[place]), because)
            for place, because in zip(shown, reasons(prospects, shown, titles), strict=True)
        ]

    def _ordered(self, wanted: int) -> Iterator[int]:
        """Places, best first: a few at first, all of them where those aren't enough."""
        some = self._in_order(4 * wanted)
        yield from some
        if len(some) < len(self._worth):
            yield from self._in_order(len(self._worth))[len(some) :]

    def _in_order(self, at_most: int) -> list[int]:
        ids, worth = self._prospects.ids, self._worth
        places = np.arange(len(ids))
        if len(places) > at_most:
            places = np.argpartition(-worth, at_most - 1)[:at_most]
            # All that tie with the last one, or which of them are kept would depend on where they lie.
            places = np.flatnonzero(worth >= worth[places].min())
        in_order = sorted(zip((-worth[places]).tolist(), ids[places].tolist(), places.tolist(), strict=True))
        return [place for _, _, place in in_order[:at_most]]
