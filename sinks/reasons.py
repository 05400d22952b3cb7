"""Why a product is recommended. Pure.

Every positive term of a score is attributed to its cause, so that each recommendation explains itself: the shares of
its reasons add up to 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.clicks import query_hash
from sinks.derivation import TEXTS_OF_AN_INTEREST, Interest
from sinks.ledgers import ProfileState, is_query
from sinks.prospects import Prospects
from sinks.scoring import BOUGHT_BEFORE, NEW_TO_THE_PERSON
from sinks.statistics import Neighbourhood

_LEAST_PART: Final = 1e-3  # of a score, so that everything shown has a reason
_LEAST_HABIT: Final = 0.1
_ASKED_FOR: Final = -1  # in place of a product's row: what was clicked after the query asked for
_TIMES: Final = BOUGHT_BEFORE.index("times")

_Cause = tuple[str, int]  # the kind of a reason, and which interest or product, or how often


class Reason(NamedTuple):
    """Why a product is recommended, and which share of its score that is worth.

    `kind` is "bought" (before), "together" (other people bought it with what this person bought), "related" (the
    catalogue says that it goes with that, or with what is bought together with that), "kin" (its brand or
    category is bought together with what this person bought), "viewed" (other people clicked it
    within an hour of what this person clicked), "clicked" (other people clicked it after the query asked for, or after
    this person's), "interest" (near one of the lasting interests, or like what
    was bought), "recent" (near what the person has been doing within the short half-life), "popular" (sells, or is
    clicked, now), "new" (sold for the first time lately, or announced lately) or "query" (near what was asked).
    `texts` are the products and queries behind it, strongest first; of "bought", how often.
    """

    kind: str
    share: float
    texts: tuple[str, ...]


def reasons(prospects: Prospects, places: Sequence[int], titles: Mapping[str, str]) -> list[tuple[Reason, ...]]:
    """Of the products in these places, the largest share first. `titles` are those of all products known."""
    return _Telling(prospects, titles).reasons(_parts(prospects, places))


def _parts(prospects: Prospects, places: Sequence[int]) -> list[dict[_Cause, float]]:
    """What scores are made of, by cause: what speaks for a product, not what speaks against it."""
    weights = prospects.statistics.weights
    new = len(prospects.ids) - len(prospects.habits)
    again = [place - new for place in places if place >= new]
    of_new = iter((prospects.features[[at for at in places if at < new]] * weights.new).tolist())
    of_bought = iter((prospects.habits[again] * weights.bought).tolist())
    times = iter(np.rint(np.expm1(prospects.habits[again, _TIMES]) / 3.0).astype(int).tolist())
    parts = []
    for place in places:
        if place >= new:
            worth = dict(zip(BOUGHT_BEFORE, next(of_bought), strict=True))
            parts.append(_parts_of(prospects, place, worth, next(times)))
        else:
            parts.append(_parts_of(prospects, place, dict(zip(NEW_TO_THE_PERSON, next(of_new), strict=True)), 0))
    return parts


def _parts_of(prospects: Prospects, place: int, worth: Mapping[str, float], times: int) -> dict[_Cause, float]:
    """From what each feature of a product adds to its score; `times` it was bought."""
    product_id, row = prospects.ids[place], int(prospects.rows[place])
    parts: dict[_Cause, float] = {}
    if worth["together"] > 0.0:
        parts["together", row] = worth["together"]
    if worth.get("related", 0.0) > 0.0:
        parts["related", row] = worth["related"]
    if worth.get("kin", 0.0) > 0.0:
        parts["kin", row] = worth["kin"]
    if worth.get("viewed", 0.0) > 0.0:
        parts["viewed", row] = worth["viewed"]
    if worth.get("asked", 0.0) > 0.0:
        parts["clicked", row] = worth["asked"]
    total = prospects.nearness.get(product_id)
    likeness = max(worth["likeness"], 0.0 if total is None else _LEAST_PART)
    if total is not None:
        for cause, values in prospects.sources:
            if product_id in values:
                parts[cause] = likeness * values[product_id] / total
    elif likeness > 0.0:
        parts["interest", -1 - row] = likeness
    selling = worth["sold_20"] + worth["sold_5"] + worth.get("clicked", 0.0) + max(worth.get("surprise", 0.0), 0.0)
    if selling > 0.0:
        parts["popular", 0] = selling
    if worth["fresh"] > _LEAST_PART:
        parts["new", 0] = worth["fresh"]
    if times:
        habit = sum(worth[name] for name in ("times", "recency", "share_of_orders", "since", "lately"))
        parts["bought", times] = max(habit, _LEAST_HABIT)
    if prospects.found.query is not None:
        parts["query", 0] = max(prospects.closeness(product_id), _LEAST_PART)
        after = float(prospects.after[place])
        if product_id in prospects.found.clicked and after > 0.0:
            parts["clicked", _ASKED_FOR] = after
    return parts if sum(parts.values()) > 0.0 else {**parts, ("popular", 0): _LEAST_PART}


def texts_of(interest: Interest, titles: Mapping[str, str]) -> tuple[str, ...]:
    """The strongest texts of an interest: queries as typed most often, products by title (by id where unknown)."""
    return tuple(_text(key, titles) for key in interest.keys[:TEXTS_OF_AN_INTEREST])


class _Telling:
    """Reasons in words. The texts of each are looked up once a person."""

    def __init__(self, prospects: Prospects, titles: Mapping[str, str]) -> None:
        self._state = prospects.state
        self._taste = prospects.taste
        self._titles = titles
        self._statistics = prospects.statistics
        self._texts: dict[_Cause, tuple[str, ...]] = {}
        rows = self._statistics.rows_of([key[1:] for key in self._state.purchases.keys])
        self._bought_rows = rows[rows >= 0]
        self._clicked_rows = prospects.clicked_rows

    def reasons(self, parts: Sequence[Mapping[_Cause, float]]) -> list[tuple[Reason, ...]]:
        """Of each product, what its score is made of."""
        self._look_up_neighbours({cause for of_one in parts for cause in of_one})
        return [self._reasons(of_one) for of_one in parts]

    def _reasons(self, parts: Mapping[_Cause, float]) -> tuple[Reason, ...]:
        total = sum(parts.values())
        reasons = [Reason(cause[0], part / total, self._told(cause)) for cause, part in parts.items()]
        return tuple(sorted(reasons, key=_largest_first))

    def _told(self, cause: _Cause) -> tuple[str, ...]:
        texts = self._texts.get(cause)
        if texts is None:
            texts = self._texts[cause] = self._look_up(*cause)
        return texts

    def _look_up(self, kind: str, number: int) -> tuple[str, ...]:
        if kind == "interest":
            return texts_of(self._taste.interests[number], self._titles)
        if kind == "recent":
            return _newest_texts(self._state, self._titles)
        if kind == "clicked":
            return self._clicked_after(number)
        return (f"{number}×",) if kind == "bought" else ()

    def _look_up_neighbours(self, causes: Collection[_Cause]) -> None:
        """What of the history is nearest to each of these products, by each kind of nearness, in one go."""
        statistics = self._statistics
        for kind, neighbourhood, own in (
            ("together", statistics.together, self._bought_rows),
            ("related", statistics.related, self._bought_rows),
            ("kin", statistics.kin, self._bought_rows),
            ("viewed", statistics.viewed, self._clicked_rows),
        ):
            self._nearest_of(own, neighbourhood, {cause: cause[1] for cause in causes if cause[0] == kind})
        # Near none of the interests, and like things that were bought.
        near_none = {cause: -1 - cause[1] for cause in causes if cause[0] == "interest" and cause[1] < 0}
        self._nearest_of(self._bought_rows, statistics.alike, near_none)

    def _nearest_of(
        self, own: NDArray[np.int64], neighbourhood: Neighbourhood, product_of: Mapping[_Cause, int]
    ) -> None:
        if not product_of:
            return
        products = np.array(list(product_of.values()), np.int64)
        nearest = neighbourhood.strongest(own, products, TEXTS_OF_AN_INTEREST)
        for cause, places in zip(product_of, nearest, strict=True):
            ids = [self._statistics.product_ids[own[place]] for place in places]
            self._texts[cause] = tuple(self._titles.get(product_id, product_id) for product_id in ids)

    def _clicked_after(self, product: int) -> tuple[str, ...]:
        """This person's queries after which others clicked the product, the strongest first."""
        ledger = self._state.searches
        strongest = np.argsort(-ledger.history["weight"], kind="stable").tolist()
        queries = [ledger.keys[place][1:] for place in strongest if is_query(ledger.keys[place])]
        clicks = self._statistics.clicks
        return tuple(query for query in queries if product in clicks.of(query_hash(query))[0])[:TEXTS_OF_AN_INTEREST]


def _largest_first(reason: Reason) -> float:
    return -reason.share


def _newest_texts(state: ProfileState, titles: Mapping[str, str]) -> tuple[str, ...]:
    newest: list[tuple[int, str]] = []
    for ledger in state:
        newest += zip(ledger.history["last"].tolist(), ledger.keys, strict=True)
    newest = sorted(newest, reverse=True)[:TEXTS_OF_AN_INTEREST]
    return tuple(_text(key, titles) for _, key in newest)


def _text(key: str, titles: Mapping[str, str]) -> str:
    return key[1:] if is_query(key) else titles.get(key[1:], key[1:])
