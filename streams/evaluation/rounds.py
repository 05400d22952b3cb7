"""The rounds of an evaluation: for each kind of task, what is to be predicted, and by whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.text import clean
from streams.evaluation.methods import Learner, Method
from streams.evaluation.past import Past
from streams.evaluation.tasks import NEXT_CLICK, NEXT_ORDER, QUERY, Task, wanted_of
from streams.evaluation.texts import EncodedShop
from streams.evaluation.timeline import Order, Step
from streams.events import Search

AFTERGLOW: Final = "Afterglow"


class Lists(NamedTuple):
    """What one method recommended for one task, best first."""

    mixed: list[str]
    new_only: list[str]  # without what the user bought before; where a query is given, empty


@dataclass(slots=True)
class Round:
    """The tasks of one kind, and what every method made of them."""

    kind: str
    methods: Sequence[Method]
    tasks: list[Task] = field(default_factory=list)
    lists: dict[str, list[Lists]] = field(default_factory=dict)  # by method, parallel to `tasks`
    popularity: dict[str, float] = field(default_factory=dict)  # by available product: its orders before the cut

    def of_first(self) -> Round:
        """The same, of the first task of each user who was known at the cut: what an evaluation frozen there has."""
        rows = [row for row, task in enumerate(self.tasks) if task.first]
        return replace(
            self,
            tasks=[self.tasks[row] for row in rows],
            lists={method: [lists[row] for row in rows] for method, lists in self.lists.items()},
        )

    async def predict(self, tasks: Sequence[Task], limit: int) -> None:
        """Every method's lists for these tasks, which are of one moment."""
        self.tasks += tasks
        for method in self.methods:
            mixed = await method.lists(tasks, limit, new_only=False)
            new_only: list[list[str]] = [[] for _ in tasks]
            if self.kind != QUERY:
                new_only = await method.lists(tasks, limit, new_only=True)
            self.lists.setdefault(method.name, []).extend(map(Lists, mixed, new_only))


class Asked(NamedTuple):
    """Who learns from the timeline, and who is asked; of each kind of task the first is whom it is about."""

    learners: Sequence[Learner]
    orders: Sequence[Method]
    clicks: Sequence[Method]
    queries: Sequence[Method]


class Counted:
    """What everybody bought and clicked, and which of the products are available: [n], in the order of their ids."""

    def __init__(self, shop: EncodedShop) -> None:
        product_ids = sorted(shop.catalogue.vectors)
        shown = set(shop.catalogue.snapshot.titles)
        self.available = np.array([product_id in shown for product_id in product_ids])
        self.orders = Past(product_ids, Order)
        self.clicks = Past(product_ids, Search)


class Rounds:
    """All that learns from the timeline, and all that is asked."""

    def __init__(self, counted: Counted, asked: Asked) -> None:
        self._available = counted.available
        self._orders, self._clicks = counted.orders, counted.clicks
        self._learners = asked.learners
        self._known: set[str] = set()
        self._first_orders: set[str] = set()
        self._first_clicks: set[str] = set()
        self.of_orders = Round(NEXT_ORDER, asked.orders)
        self.of_clicks = Round(NEXT_CLICK, asked.clicks)
        self.of_queries = Round(QUERY, asked.queries)

    def learn(self, step: Step) -> None:
        """What happened next, to everyone who remembers. Steps come in the order of time."""
        self._known.add(step.user_id)
        for learner in self._learners:
            learner.learn(step)
        self._orders.learn(step)
        self._clicks.learn(step)

    def reached_cut(self) -> None:
        """All that came before the cut is learned: who is known now, and which products are the long tail."""
        self._first_orders, self._first_clicks = set(self._known), self._clicks.users()
        self.of_orders.popularity = self._popularity(self._orders.totals)
        self.of_clicks.popularity = self.of_queries.popularity = self._popularity(self._clicks.totals)

    def tasks_of(self, step: Step, at: int) -> Iterator[tuple[Round, Task]]:
        """What there is to predict of a step, at that moment, with what was learned so far.

        The next order is asked of customers of whom anything is known, the next click of those who searched before.
        """
        user_id, ts, wanted = step.user_id, step.ts, wanted_of(step)
        if not wanted:
            return
        if isinstance(step, Order):
            if user_id in self._known:
                first = user_id in self._first_orders
                self._first_orders.discard(user_id)
                known = frozenset(self._orders.times(user_id))
                yield self.of_orders, Task(user_id, ts, at, wanted, known, first=first)
            return
        known = frozenset(self._clicks.times(user_id))
        if self._clicks.knows(user_id):
            first = user_id in self._first_clicks
            self._first_clicks.discard(user_id)
            yield self.of_clicks, Task(user_id, ts, at, wanted, known, first=first)
        if clean(step.query):
            yield self.of_queries, Task(user_id, ts, at, wanted, known, step.query)

    def _popularity(self, totals: NDArray[np.float64]) -> dict[str, float]:
        shown = self._available
        return dict(zip(self._orders.product_ids[shown].tolist(), totals[shown].tolist(), strict=True))
