"""How far a shop has moved away from what its model knows: words, matches, recall. Pure but for the model's vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from encoders.text import normalise
from sinks.derivation import centred
from sinks.words import words_of
from streams.evaluation.bootstrap import Bootstrap, Interval
from streams.evaluation.comparison import ENOUGH_USERS
from streams.evaluation.evaluation import NothingToPredict, Options, Report, compare
from streams.evaluation.files import Shop
from streams.evaluation.results import values_of
from streams.evaluation.table import TITLES
from streams.evaluation.texts import EncodedShop
from streams.settings import Retraining, Settings

_WORST: Final = 0.1  # of the queries before: what matched as badly as these matches badly
_FEWEST_QUERIES: Final = 50
_LIMIT: Final = 20
_SEED: Final = 1
_MODEL: Final = "model"


class Recall(msgspec.Struct, frozen=True):
    """recall@20 of lists as they are served, of the newest window and of the one before it."""

    kind: str
    before: Interval
    now: Interval

    @property
    def loss(self) -> float:
        """The share that is lost; 0 where chance alone may have done it."""
        if self.now.high >= self.before.mean or self.before.mean == 0:
            return 0.0
        return 1.0 - self.now.mean / self.before.mean


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Between what the model has learned from and what is new. None: too little to say."""

    learned_until: int | None
    """Event time, ms. None: the model has learned nothing of this shop."""
    events: int
    """Searches and purchases since then; all of them, where it has learned nothing."""
    unseen_words: float | None
    """Of the words of what was searched for and bought since, the share that nothing before had."""
    bad_matches: float | None
    """Of the queries since, the share that match the catalogue as badly as the worst tenth before."""
    recall: list[Recall]


class Windows(NamedTuple):
    """Event times, ms: the one before begins at `before`, the newest at `now`."""

    before: int
    now: int


async def drift(
    shop: Shop,
    encoded: EncodedShop,
    learned_until: int | None,
    windows: Windows,
    settings: Settings,
    report: Report = lambda *_: None,
) -> Drift:
    """Of a history that `streams.rollout.judgement.tells_anything`; `encoded` is it by the model in service."""
    since = windows.now if learned_until is None else learned_until
    new = sum(one.ts >= since for events in (shop.purchases, shop.searches) for one in events)
    earlier = shop._replace(
        purchases=[one for one in shop.purchases if one.ts < windows.now],
        searches=[one for one in shop.searches if one.ts < windows.now],
    )
    before = await _recalls(earlier, encoded, windows.before, settings, report)
    now = await _recalls(shop, encoded, windows.now, settings, report)
    return Drift(
        learned_until=learned_until,
        events=len(shop.purchases) + len(shop.searches) if learned_until is None else new,
        unseen_words=None if learned_until is None else unseen_words(shop, since),
        bad_matches=bad_matches(shop, encoded, since),
        recall=[Recall(kind, before[kind], now[kind]) for kind in now if kind in before],
    )


def reasons(found: Drift, limits: Retraining) -> list[str]:
    """Why it is time for another model, in words; none where it isn't."""
    if found.learned_until is None:
        return ["the model in service has learned nothing of this shop yet"]
    told = []
    if found.unseen_words is not None and found.unseen_words >= limits.unseen_words:
        told.append(f"{found.unseen_words:.1%} of words are new to the model (from {limits.unseen_words:.0%} on)")
    if found.bad_matches is not None and found.bad_matches >= limits.bad_matches:
        told.append(f"{found.bad_matches:.1%} of queries match badly (from {limits.bad_matches:.0%} on)")
    told += [
        f"{TITLES[one.kind]}: recall@{_LIMIT} fell from {one.before.mean:.3f} to {one.now.mean:.3f} "
        f"(-{one.loss:.0%}; from {limits.recall_loss:.0%} on)"
        for one in found.recall
        if one.loss >= limits.recall_loss
    ]
    return told


def in_words(found: Drift) -> str:
    """All that was looked at and could be told."""
    told = [
        f"{found.unseen_words:.1%} of words are new" if found.unseen_words is not None else "",
        f"{found.bad_matches:.1%} of queries match badly" if found.bad_matches is not None else "",
        *(
            f"{TITLES[one.kind]}: recall@{_LIMIT} {one.now.mean:.3f} after {one.before.mean:.3f}"
            for one in found.recall
        ),
    ]
    return ", ".join(filter(None, told)) or "too little to say"


def unseen_words(shop: Shop, since: int) -> float | None:
    """Of the words of what was searched for, clicked and bought since, the share that nothing before had."""
    titles = {product.product_id: product.title for product in shop.products}
    known: set[str] = set()
    new: list[str] = []
    for ts, text in _said(shop, titles):
        if ts < since:
            known.update(words_of(text))
        else:
            new += words_of(text)
    if not new or not known:
        return None
    return sum(word not in known for word in new) / len(new)


def bad_matches(shop: Shop, encoded: EncodedShop, since: int) -> float | None:
    """Of the queries since, the share whose nearest product is no nearer than that of the worst tenth before."""
    before = [search.query for search in shop.searches if search.ts < since and search.query in encoded.queries]
    now = [search.query for search in shop.searches if search.ts >= since and search.query in encoded.queries]
    if min(len(before), len(now)) < _FEWEST_QUERIES:
        return None
    catalogue = encoded.catalogue
    unique = [*dict.fromkeys([*before, *now])]
    asked = centred(np.stack([encoded.queries[query] for query in unique]), catalogue.mean)
    nearest = [float(one.scores[0]) for one in catalogue.snapshot.near(asked, 1)]
    score = dict(zip(unique, nearest, strict=True))
    limit = float(np.quantile([score[query] for query in before], _WORST))
    return sum(score[query] < limit for query in now) / len(now)


async def _recalls(
    shop: Shop, encoded: EncodedShop, cut: int, settings: Settings, report: Report
) -> Mapping[str, Interval]:
    """By kind of task, of what happened from `cut` on; of kinds with enough users."""
    options = Options(cut, _LIMIT, prequential=False, seed=_SEED)
    try:
        rounds = await compare(shop, {_MODEL: encoded}, settings, options, report)
    except NothingToPredict:
        return {}
    found = {}
    for round_ in rounds:
        users = [task.user_id for task in round_.tasks]
        if len(set(users)) < ENOUGH_USERS:
            continue
        recall = values_of(round_.tasks, round_.lists[_MODEL], _LIMIT)["recall"]
        interval = Bootstrap(users, seed=_SEED).mean(recall)
        assert interval is not None  # every task has a recall
        found[round_.kind] = interval
    return found


def _said(shop: Shop, titles: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    for purchase in shop.purchases:
        yield purchase.ts, purchase.title or titles.get(purchase.product_id, "")
    for search in shop.searches:
        yield search.ts, normalise(search.query)
        if search.clicked_product_id:
            yield search.ts, titles.get(search.clicked_product_id, "")
