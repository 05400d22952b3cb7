"""Pairs out of behaviour: what was clicked or bought after a search, and bought by those who bought what. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from encoders.protocol import TextKind
from encoders.text import clean, normalise
from encoders.training.pairs import Examples, Pair, Probe, TrainingError
from streams.evaluation.timeline import Order, timeline
from streams.events import Product, Purchase, Search
from streams.products import stored_product
from streams.training.labels import Label

SESSION_MS: Final = 30 * 60 * 1000
"""A purchase within half an hour after a search is one that it led to."""

HELD_OUT: Final = 0.3
"""Of those who were there both before validation begins and after: they are asked about, and nothing is learned from
them. Of the others nothing later is learned, and what they did in the time of the validation only helps to choose.
"""

MAX_PAIRS: Final = 300_000
"""Of each kind; of more, those of the customers whose hash comes first."""

MAX_RETURNING: Final = 5_000
"""Of what those learned from did in the time of the validation, of each kind; of more, as of pairs."""

_LEFTS: Final = 16  # of what a customer had bought, a sample for each pair
_VALIDATION_SHARE: Final = 0.8  # of what happened lies before validation begins, where nobody says when it does
_TEST_SHARE: Final = 0.9


class Splits(NamedTuple):
    """ms. Learned is what is before `validation_from`; what is from `until` on is left out."""

    validation_from: int
    test_from: int
    until: int


def splits_of(
    purchases: Sequence[Purchase],
    searches: Sequence[Search],
    *,
    validation_from: int | None = None,
    test_from: int | None = None,
    until: int | None = None,
) -> Splits:
    """What isn't given: a tenth of what happened for the test, and a tenth before it for validation.

    Raises TrainingError where they are in the wrong order, or nothing happened.
    """
    times = np.sort(np.array([event.ts for of in (purchases, searches) for event in of], np.int64))
    if until is not None:
        times = times[times < until]
    if not len(times):
        raise TrainingError("nothing happened that could be learned from: no purchase, no search")
    end = int(times[-1]) + 1 if until is None else until
    test = int(np.quantile(times, _TEST_SHARE)) if test_from is None else test_from
    before = times[times < test]
    share = _VALIDATION_SHARE / _TEST_SHARE
    validation = int(np.quantile(before, share)) if validation_from is None and len(before) else validation_from or 0
    if not times[0] < validation < test < end:
        raise TrainingError(
            f"validation would begin at {validation}, the test at {test}, and the end be {end} (ms), while the first "
            f"event is of {times[0]}: they have to follow each other"
        )
    return Splits(validation, test, end)


def mine(
    products: Iterable[Product],
    purchases: Sequence[Purchase],
    searches: Sequence[Search],
    splits: Splits,
    *,
    half_life_ms: int,
    seed: int,
    labels: Sequence[Label] = (),
) -> Examples:
    """`half_life_ms` is that of the lasting taste: after it what was bought weighs half in a profile.

    A label is a pair whose weight is its relevance, from 0 for the least of all labels to 1 for the greatest. Nobody
    typed it, so its query takes a customer's place where splits are made.
    """
    stored = {event.product_id: stored_product(event) for event in products}
    texts = {product_id: product.text for product_id, product in stored.items()}
    for purchase in purchases:
        if purchase.title and clean(purchase.title):
            texts.setdefault(purchase.product_id, purchase.title)
    steps = [step for step in timeline(purchases, searches) if step.ts < splits.until]
    first = {step.user_id: step.ts for step in reversed(steps)}
    last = {step.user_id: step.ts for step in steps}
    role = _roles(first, last, splits, seed)
    mined = _Mined(texts, splits, role, half_life_ms, seed)
    for step in steps:
        if isinstance(step, Order):
            mined.order(step)
        else:
            mined.search(step)
    mined.judge(labels, seed)
    pairs = _bounded(mined.pairs, MAX_PAIRS, seed)
    counts = {
        f"{name}_{kind}": sum(one.kind is of for one in some)
        for name, some in (("pairs", pairs), ("validation", mined.validation), ("test", mined.test))
        for kind, of in (("of_queries", TextKind.QUERY), ("of_purchases", TextKind.PRODUCT))
    }
    return Examples(
        products=texts,
        pairs=pairs,
        validation=mined.validation,
        test=mined.test,
        listed=frozenset(product_id for product_id, product in stored.items() if product.available),
        returning=_bounded(mined.returning, MAX_RETURNING, seed),
        categories={product_id: product.category for product_id, product in stored.items() if product.category},
        facts={"products": len(texts), **{f"{name}_ms": ms for name, ms in splits._asdict().items()}, **counts},
    )


def companions(products: Iterable[Product]) -> dict[str, list[str]]:
    """By product id its brand and category: words that people put before what they look for."""
    return {
        event.product_id: words
        for event in products
        if (words := [normalise(word) for word in (event.brand, event.category) if word and normalise(word)])
    }


_LEARNED, _VALIDATION, _TEST = "learned", "validation", "test"


def _roles(first: Mapping[str, int], last: Mapping[str, int], splits: Splits, seed: int) -> dict[str, str]:
    """By user; one role for good, so that nobody is in two of the splits."""
    roles = {}
    for user_id, ts in first.items():
        if last[user_id] < splits.validation_from:
            roles[user_id] = _LEARNED
        elif ts >= splits.validation_from:
            roles[user_id] = _VALIDATION if ts < splits.test_from else _TEST
        else:
            place = _place(user_id, seed)
            held = _VALIDATION if place < HELD_OUT / 2 else _TEST
            roles[user_id] = held if place < HELD_OUT else _LEARNED
    return roles


_Example = TypeVar("_Example", Pair, Probe)


def _bounded(examples: Sequence[_Example], most: int, seed: int) -> list[_Example]:
    """Kind by kind all examples of as many users as the bound allows."""
    kinds = ([one for one in examples if one.kind is kind] for kind in TextKind)
    return [one for some in kinds for one in (some if len(some) <= most else _of_some_users(some, most, seed))]


def _of_some_users(examples: Sequence[_Example], most: int, seed: int) -> list[_Example]:
    counts = Counter(one.user or one.lefts[0] for one in examples)
    kept, left = set(), most
    for user_id in sorted(counts, key=lambda user_id: _place(user_id, seed)):
        left -= counts[user_id]
        if left < 0:
            break
        kept.add(user_id)
    return [one for one in examples if (one.user or one.lefts[0]) in kept]


def _place(user_id: str, seed: int) -> float:
    """In [0, 1), the same for a user always."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {user_id}".encode(), digest_size=7).digest()) / 2**56


class _Mined:
    def __init__(
        self, texts: Mapping[str, str], splits: Splits, role: Mapping[str, str], half_life_ms: int, seed: int
    ) -> None:
        self.pairs: list[Pair] = []
        self.validation: list[Probe] = []
        self.test: list[Probe] = []
        self.returning: list[Probe] = []
        self._texts = texts
        self._splits = splits
        self._role = role
        self._half_life_ms = half_life_ms
        self._chance = np.random.default_rng(seed)
        self._bought: dict[str, dict[str, float]] = defaultdict(dict)  # by user: log2 of the decayed weight by product
        self._searched: dict[str, Search] = {}  # by user: the last search that nothing was clicked after

    def search(self, search: Search) -> None:
        if search.clicked_product_id is None:
            self._searched[search.user_id] = search
            return
        self._searched.pop(search.user_id, None)
        self._led(search, search.clicked_product_id, search.ts)

    def order(self, order: Order) -> None:
        search = self._searched.pop(order.user_id, None)
        known = sorted(product_id for product_id in order.products if product_id in self._texts)
        if search is not None and order.ts - search.ts <= SESSION_MS:
            for product_id in known:
                self._led(search, product_id, order.ts)
        bought = self._bought[order.user_id]
        new = [product_id for product_id in known if product_id not in bought]
        role = self._role[order.user_id]
        if role == _LEARNED and order.ts < self._splits.validation_from:
            self._together(order, new, known)
        elif new and bought and (probes := self._probes(role, order.ts)) is not None:
            latest = max(bought.values())
            weights = tuple(2.0 ** (weight - latest) for weight in bought.values())
            probes.append(
                Probe(
                    TextKind.PRODUCT, tuple(bought), weights, frozenset(new), frozenset(bought), order.user_id, order.ts
                )
            )
        for product_id in known:
            weight = order.ts / self._half_life_ms
            bought[product_id] = float(np.logaddexp2(bought.get(product_id, -np.inf), weight))

    def judge(self, labels: Sequence[Label], seed: int) -> None:
        least = min((label.relevance for label in labels), default=0.0)
        span = max((label.relevance for label in labels), default=0.0) - least
        best: dict[str, set[str]] = defaultdict(set)
        for label in labels:
            query, weight = normalise(label.query), (label.relevance - least) / span if span else 1.0
            if not query or label.product_id not in self._texts or not weight:
                continue
            if _place(query, seed) >= HELD_OUT:
                self.pairs.append(Pair(TextKind.QUERY, (query,), label.product_id, "", 0, weight))
            elif weight == 1.0:
                best[query].add(label.product_id)
        for query, wanted in best.items():
            probes = self.validation if _place(query, seed) < HELD_OUT / 2 else self.test
            probes.append(Probe(TextKind.QUERY, (query,), (1.0,), frozenset(wanted), frozenset(), "", 0))

    def _led(self, search: Search, product_id: str, ts: int) -> None:
        query, role = normalise(search.query), self._role[search.user_id]
        if not query or product_id not in self._texts:
            return
        if role == _LEARNED and ts < self._splits.validation_from:
            self.pairs.append(Pair(TextKind.QUERY, (query,), product_id, search.user_id, ts))
        elif (probes := self._probes(role, ts)) is not None:
            probes.append(
                Probe(TextKind.QUERY, (query,), (1.0,), frozenset((product_id,)), frozenset(), search.user_id, ts)
            )

    def _together(self, order: Order, new: Sequence[str], known: Sequence[str]) -> None:
        """Each product that is new to the customer, with what was bought before; in a first order, with the others."""
        bought = self._bought[order.user_id]
        for product_id in new:
            if bought:
                lefts = self._sample(list(bought), list(bought.values()))
            else:
                others = [other for other in known if other != product_id]
                lefts = self._sample(others, [0.0] * len(others))
            if lefts:
                self.pairs.append(Pair(TextKind.PRODUCT, lefts, product_id, order.user_id, order.ts))

    def _sample(self, product_ids: Sequence[str], weights: Sequence[float]) -> tuple[str, ...]:
        """Without putting back, by 2^weight (Efraimidis and Spirakis 2006: the largest log u / w)."""
        if len(product_ids) <= _LEFTS:
            return tuple(product_ids)
        keys = np.log(-np.log(self._chance.random(len(product_ids)))) - np.array(weights) * np.log(2.0)
        return tuple(product_ids[i] for i in np.argpartition(keys, _LEFTS)[:_LEFTS])

    def _probes(self, role: str, ts: int) -> list[Probe] | None:
        if self._splits.validation_from <= ts < self._splits.test_from:
            return {_VALIDATION: self.validation, _LEARNED: self.returning}.get(role)
        if role == _TEST and ts >= self._splits.test_from:
            return self.test
        return None
