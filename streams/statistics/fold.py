"""Events of a sample of users become statistics across users. Pure: no I/O, no clock; time is that of the events.

Approximate by design: events should come in the order of their time. An order that comes late follows what came
before it, with the little that a sale of its time is worth now. Memory is bounded by the number of users and products,
whatever comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinks.ledgers import ORDER_DECAY
from sinks.scoring import DAY_MS, Weights
from sinks.statistics import (
    NEVER,
    NEWS_MS,
    RELATED,
    Neighbourhood,
    Statistics,
    no_neighbours,
    shown_in_a_thousand,
)
from streams.profiles import stable_hash
from streams.statistics.columns import Columns
from streams.statistics.kin import Kin
from streams.statistics.learning import Learner, probability_of
from streams.statistics.offering import Offered, Offering, Rows, Similarities
from streams.statistics.pairs import Pairs
from streams.statistics.relations import Relations
from streams.statistics.searching import Click, Clicks, Searchers
from streams.statistics.shoppers import Shopper

Likeness = Callable[[Sequence[str]], Neighbourhood]
"""Finds, for each of these products, those of like text among them: s = max(0, centred cosine)⁴."""

_HASH_BITS: Final = 64
_HISTORY: Final = 512  # products remembered of a user
_ORDER_MS: Final = 1_800_000  # an order is complete so long after its first line came
_REFRESH_MS: Final = 3 * DAY_MS  # how often similarities are computed anew; every day is no better (online-retail)
_UNREFRESHED: Final = 0.1  # or when so large a share of all lines has come since
_FEW_LINES: Final = 16
_LIST: Final = 20  # products of a list, where it is counted what would be shown
_BEST: Final = 200  # of the products new to a user, so many of the best-scored are learned from
_RANDOM: Final = 20  # and so many others
_POPULAR: Final = 200
_VISIT_MS: Final = 3_600_000  # clicks of one visit; 30 days are worth as much (game-searches)


class Bounds(NamedTuple):
    """How much is remembered: beyond so many users, only those of half as large a sample; beyond so many products,
    those that sell best, with room for twice as many between two refreshes.
    """

    users: int = 20_000
    products: int = 100_000
    queries: int = 50_000


class Order(NamedTuple):
    id: int
    ts: int
    rows: dict[int, None]
    came: int  # the newest event's time by then


class StatisticsFold:
    """Takes purchases and clicks, roughly in the order of their time; `statistics` is what is known by then."""

    def __init__(self, likeness: Likeness | None = None, bounds: Bounds | None = None) -> None:
        """Without `likeness`, nothing is alike."""
        self.likeness = likeness
        self._bounds = bounds or Bounds()
        self.product_ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self.users: dict[int, Shopper] = {}
        self.halvings = 0
        """Of all users those whose hash begins with so many zero bits are in the sample."""
        self.columns = Columns()
        self.pairs = Pairs()
        self.views = Pairs(most=RELATED)  # what is clicked in one visit
        self.learner = Learner()
        self.clicks = Clicks(self._bounds.queries)
        self.searchers = Searchers(self._bounds.users)
        self.relations = Relations()
        self.kin = Kin(2 * self._bounds.products)
        self.now = 0  # time of the newest event, ms
        self.refreshed_at = 0
        self.lines = 0  # folded in
        self.clicked = 0
        self.refreshed_lines = 0
        self.open: OrderedDict[int, Order] = OrderedDict()  # by user, the oldest first
        self._near = Similarities.none()
        self._relations_changed = False
        self._hashes = np.zeros(0, np.uint64)  # of the ids of products
        self._seen: dict[int, None] = {}  # rows of what was bought or clicked, in that order
        self._popular: Rows = np.zeros(0, np.int64)
        self._chance = np.random.default_rng(0)

    def know(self, product_ids: Sequence[str]) -> None:
        """Gives these products a row, in this order."""
        for product_id in product_ids:
            self._row(product_id)

    def note_seen(self) -> None:
        """What was bought or clicked, after `columns` were filled in."""
        products = len(self.product_ids)
        seen = (self.columns.first_sold[:products] != NEVER) | (self.columns.clicked[:products] > 0.0)
        waiting = {row for order in self.open.values() for row in order.rows}
        self._seen = dict.fromkeys([*np.flatnonzero(seen).tolist(), *sorted(waiting)])

    def purchase(self, user: int, product_id: str, order: int, ts: int) -> None:
        """A line of an order. `user` and `order` are 64-bit hashes; `ts` is event time, ms."""
        self._advance(ts)
        opened = self.open.get(user)
        if opened is not None and opened.id != order:
            self._close(user)
            opened = None
        if user >> (_HASH_BITS - self.halvings):
            return
        if opened is None:
            opened = self.open[user] = Order(order, ts, {}, self.now)
        opened.rows[self._counted(product_id)] = None

    def click(self, user: int, query: int, product_id: str, ts: int) -> None:
        """A product that was clicked after a search. `query` is its `sinks.clicks.query_hash`."""
        self._advance(ts)
        product = self._counted(product_id)
        if not self.lines:  # what people click next tells what to show them while nobody buys
            self._learn_click(user, product)
        self.columns.add("clicked", product, self.now)
        self.clicks.add(query, product, self.now)
        self._note_view(user, product)
        self.searchers.add(user, Click(self.now, query, product))
        self.clicked += 1

    def relate(self, product_id: str, related: Sequence[int], announced: int, kinds: Sequence[int] = ()) -> bool:
        """What the catalogue says that a product goes with, as 64-bit hashes of ids, known or not; and when it said so,
        ms, or 0; and which brand and category it is of, as hashes. Replaces what it said before. Whether that changes
        anything.
        """
        row = self._row_of.get(product_id)
        of_a_kind = self.kin.put(stable_hash(product_id), product_id, kinds, announced)
        if row is not None and self.columns.first_sold[row] != NEVER:
            of_a_kind = False  # what counts for its kinds is seen at the next refresh
        elif kinds and announced <= max(self.now - NEWS_MS, 0):
            of_a_kind = False  # nor is it lent anything
        self._relations_changed = self._relations_changed or of_a_kind
        named = np.unique(np.array(related, np.uint64))
        if row is None and not len(named):
            return of_a_kind
        row = self._row(product_id)
        before = self.relations.named.get(row)
        as_before = np.array_equal(named, () if before is None else before)
        if as_before and (not len(named) or self.columns.announced[row] == announced):
            return of_a_kind
        self.relations.put(row, named)
        self.columns.announced[row] = announced if len(named) else 0
        self._relations_changed = True
        if len(self.product_ids) > 2 * self._bounds.products:
            self.refresh()
        return True

    def close_orders(self) -> None:
        """Folds in the orders that may not be complete yet: nothing more is there to be read."""
        while self.open:
            self._close(next(iter(self.open)))

    def statistics(self) -> Statistics:
        """What is known now. Similarities may be some days of events old, or miss a tenth of the lines."""
        if self.lines + self.clicked - self.refreshed_lines >= max(_FEW_LINES, self.refreshed_lines * _UNREFRESHED):
            self.refresh()
        if self._relations_changed:
            self._relate()
        columns, products = self.columns, len(self.product_ids)
        columns.decay(self.now)
        return Statistics(
            as_of=self.now,
            product_ids=tuple(self.product_ids),
            first_sold=columns.first_sold[:products].copy(),
            announced=columns.announced[:products].copy(),
            buyers=columns.buyers[:products].astype(np.float32),
            repeats=columns.repeats[:products].astype(np.float32),
            sold_5=columns.sold_5[:products].astype(np.float32),
            sold_20=columns.sold_20[:products].astype(np.float32),
            clicked=columns.clicked[:products].astype(np.float32),
            shown=shown_in_a_thousand(columns.shown[:products], columns.lists),
            surprise=columns.surprise(slice(products), self.now).astype(np.float32),
            **self._near.widened(products)._asdict(),
            weights=Weights(*(part.copy() for part in self.learner.weights)),
            clicks=self.clicks.table(self.now),
        )

    def offered_to(self, user: int) -> Offered | None:
        """What somebody might be shown now; None where nothing is known that could be."""
        nobody = np.zeros(0, np.int64)
        offering, clicked = self._offering(nobody, self.now), self.searchers.clicks(user)
        return offering.to_shopper(self.users[user], clicked) if self.lines else offering.to_searcher(clicked)

    def _advance(self, ts: int) -> None:
        if not self.now:
            self.columns.as_of = ts
            self.pairs, self.views = Pairs(as_of=ts), Pairs(as_of=ts, most=RELATED)
            self.refreshed_at = ts
        self.now = max(self.now, ts)
        while self.open:
            user, oldest = next(iter(self.open.items()))
            if oldest.came > self.now - _ORDER_MS and len(self.open) <= self._bounds.users:
                break
            self._close(user)
        if self.now - self.refreshed_at > _REFRESH_MS or len(self.product_ids) > 2 * self._bounds.products:
            self.refresh()

    def _row(self, product_id: str) -> int:
        row = self._row_of.get(product_id)
        if row is None:
            row = self._row_of[product_id] = len(self.product_ids)
            self.product_ids.append(product_id)
            self.columns.reserve(row + 1)
            self._relations_changed = self._relations_changed or bool(self.relations.named)
        return row

    def _counted(self, product_id: str) -> int:
        row = self._row(product_id)
        self._seen.setdefault(row)
        return row

    def _close(self, user: int) -> None:
        order = self.open.pop(user)
        shopper = self.users.get(user) or Shopper()
        rows = np.fromiter(order.rows, np.int64, len(order.rows))
        if shopper.orders and order.ts - shopper.last_ts >= DAY_MS:
            self._learn(user, shopper, rows, order.ts)
        self._fold(shopper, rows, order.ts)
        self.users[user] = shopper
        while len(self.users) > self._bounds.users:
            self.halvings += 1
            out = _HASH_BITS - self.halvings
            self.users = {one: shopper for one, shopper in self.users.items() if not one >> out}
            self.open = OrderedDict((one, order) for one, order in self.open.items() if not one >> out)

    def _fold(self, shopper: Shopper, rows: Rows, ts: int) -> None:
        columns, bought = self.columns, shopper.bought
        self.lines += len(rows)
        known = self._among(bought["row"], rows)
        again = bought["row"][known].astype(np.int64)
        new = rows[~self._among(rows, again)] if len(again) else rows
        shopper.orders += 1
        shopper.repeats += len(again)
        shopper.later_lines += len(again) + (len(new) if shopper.orders > 1 else 0)
        shopper.last_ts = max(shopper.last_ts, ts)
        if len(again):
            bought["recency"][known] *= ORDER_DECAY ** (shopper.orders - bought["last"][known])
            bought["recency"][known] += 1.0
            bought["times"][known] += 1
            bought["last"][known] = shopper.orders
            bought["last_ts"][known] = ts
            columns.repeats[again] += 1.0
        columns.buyers[new] += 1.0
        columns.first_sold[new] = np.minimum(columns.first_sold[new], ts)
        columns.add("sold_5", rows, ts, times=2.0**self.halvings)
        columns.add("sold_20", rows, ts, times=2.0**self.halvings)
        if len(new):
            new = new[-_HISTORY:]
            self.pairs.add(new, bought["row"].astype(np.int64), ts)
            bought = shopper.with_lines(new, ts)
            if len(bought) > _HISTORY:
                bought = bought[np.argsort(bought["last"], kind="stable")[-_HISTORY:]]
        shopper.bought = bought

    def _learn(self, user: int, shopper: Shopper, ordered: Rows, ts: int) -> None:
        """Before the order is folded in: what would have been shown, and what of it was ordered."""
        others = self._some_others(len(self._near.together.rows))
        offered = self._offering(others, ts).to_shopper(shopper, self.searchers.clicks(user))
        if offered is None:
            return
        scores = offered.new @ self.learner.weights.new
        best = highest(scores, _BEST)
        again = offered.again @ self.learner.weights.bought
        self._count_shown(np.concatenate([offered.pool[best], offered.seen]), np.concatenate([scores[best], again]), ts)
        self._note_foretold(offered.pool, scores, self._among(offered.pool, ordered), ts)
        sample = self._among(offered.pool, others)
        sample[best] = True
        self.learner.learn_new(offered.new[sample], self._among(offered.pool[sample], ordered))
        self.learner.learn_bought(offered.again, self._among(offered.seen, ordered))

    def _learn_click(self, user: int, clicked: int) -> None:
        """Before the click is folded in: what would have been shown to somebody who only searches."""
        others = self._some_others(len(self._near.alike.rows))
        offered = self._offering(others, self.now).to_searcher(self.searchers.clicks(user))
        if offered is None:
            return
        scores = offered.new @ self.learner.weights.new
        self._note_foretold(offered.pool, scores, offered.pool == clicked, self.now)
        sample = self._among(offered.pool, others)
        sample[highest(scores, _BEST)] = True
        self.learner.learn_new(offered.new[sample], offered.pool[sample] == clicked)

    def _offering(self, others: Rows, ts: int) -> Offering:
        """By the similarities of the last refresh."""
        return Offering(self._near, self._popular, others, self.columns, self.clicks, len(self.product_ids), ts)

    def _some_others(self, products: int) -> Rows:
        return self._chance.integers(0, products, _RANDOM) if products else np.zeros(0, np.int64)

    def _note_view(self, user: int, product: int) -> None:
        """Before the click is folded in: it is of one visit with those of the hour before."""
        visit = [click.product for click in self.searchers.clicks(user) if self.now - click.ts < _VISIT_MS]
        before = [one for one in dict.fromkeys(visit) if one != product]
        self.views.add(np.array([product], np.int64), np.array(before, np.int64), self.now)

    def _among(self, rows: Rows, those: Rows) -> NDArray[np.bool_]:
        """Which of `rows` are among those; np.isin would sort."""
        marked = np.zeros(len(self.product_ids), np.bool_)
        marked[those] = True
        return marked[rows]

    def _note_foretold(self, rows: Rows, scores: NDArray[np.float64], taken: NDArray[np.bool_], ts: int) -> None:
        self.columns.add("foretold", rows, ts, times=probability_of(scores))
        self.columns.add("taken", rows[taken], ts)

    def _count_shown(self, rows: Rows, scores: NDArray[np.float64], ts: int) -> None:
        self.columns.add("shown", rows[highest(scores, _LIST)], ts)
        self.columns.lists += self.columns.gain("shown", ts)

    def refresh(self) -> None:
        """Computes similarities anew, as of the newest event, and forgets what is too much."""
        self.columns.decay(self.now)
        self.refreshed_at, self.refreshed_lines = self.now, self.lines + self.clicked
        if len(self.product_ids) > self._bounds.products:
            self._forget_products()
        products = len(self.product_ids)
        self._near = self._near._replace(
            together=self.pairs.neighbours(products, self.now),
            viewed=self.views.neighbours(products, self.now) if self.clicked else no_neighbours(products, 0),
            alike=self._alike_now(),
        )
        popular = self.columns.sold_5 if self.lines else self.columns.clicked
        self._popular = highest(popular[:products], _POPULAR)
        self._relate()

    def _alike_now(self) -> Neighbourhood:
        """Of what was bought or clicked: what nobody has seen yet would only push that out of the neighbours kept."""
        found = no_neighbours(len(self.product_ids))
        if self.likeness is not None:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            near = self.likeness([self.product_ids[row] for row in self._seen])
            found.rows[seen], found.similarity[seen] = seen[near.rows], near.similarity
        return found

    def _relate(self) -> None:
        """Takes the catalogue's word, and the similarities of the last refresh."""
        lent_to = self._newest_of_kinds()
        self._relations_changed = False
        new = [stable_hash(product_id) for product_id in self.product_ids[len(self._hashes) :]]
        self._hashes = np.concatenate([self._hashes, np.array(new, np.uint64)])
        together = self._near.together
        sold = self.columns.first_sold[: len(self.product_ids)] != NEVER
        self._near = self._near._replace(
            related=self.relations.neighbours(self._hashes, together),
            kin=self.kin.neighbours(self._hashes, sold, lent_to, together),
        )

    def _newest_of_kinds(self) -> dict[str, int]:
        """The rows of what its kind was announced of lately and nobody bought yet, new ones where there were none."""
        rows = {}
        for product_id, announced in self.kin.announced(self.now - NEWS_MS).items():
            row = self._row(product_id)
            if self.columns.first_sold[row] == NEVER:
                self.columns.announced[row] = announced
                rows[product_id] = row
        return rows

    def _forget_products(self) -> None:
        """Keeps the products that sell best now, and leaves room for new ones."""
        columns = self.columns
        products = len(self.product_ids)
        selling = columns.sold_20[:products] + columns.sold_5[:products] + columns.clicked[:products]
        waiting = {row for order in self.open.values() for row in order.rows}
        selling[list(waiting)] = np.inf
        kept = np.sort(np.argsort(-selling, kind="stable")[: self._bounds.products * 9 // 10])
        new_row = np.full(products, -1, np.int64)
        new_row[kept] = np.arange(len(kept))
        self.product_ids = [self.product_ids[row] for row in kept.tolist()]
        self._row_of = {product_id: row for row, product_id in enumerate(self.product_ids)}
        self.columns = columns.of(kept)
        self.pairs.reordered(kept)
        self.views.reordered(kept)
        self.clicks.reordered(new_row)
        self.searchers.reordered(new_row)
        self.relations.reordered(new_row)
        self._hashes = self._hashes[:0]
        self._seen = {row: None for row in new_row[[*self._seen]].tolist() if row >= 0}
        for shopper in self.users.values():
            rows = new_row[shopper.bought["row"]]
            shopper.bought = shopper.bought[rows >= 0].copy()
            shopper.bought["row"] = rows[rows >= 0]
        for user, order in self.open.items():
            rows = new_row[list(order.rows)]
            self.open[user] = order._replace(rows=dict.fromkeys(rows[rows >= 0].tolist()))
        self._near = Similarities.none()


def highest(scores: NDArray[np.float64], at_most: int) -> Rows:
    """Where the highest scores are, in no order."""
    if len(scores) <= at_most:
        return np.arange(len(scores))
    found: Rows = np.argpartition(scores, -at_most)[-at_most:]
    return found
