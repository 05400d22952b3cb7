"""Who recommends: Afterglow as it is, and what of it is left without a part. Baselines are in modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from encoders.text import normalise
from sinks.derivation import centred
from sinks.queries import Query, understood
from sinks.ranking import RankingRules
from sinks.recommendation import recommend, search
from sinks.statistics import Statistics
from streams.evaluation.history import History
from streams.evaluation.tasks import Task
from streams.evaluation.texts import EncodedShop
from streams.evaluation.timeline import Step


class Learner(Protocol):
    """Whatever remembers what happened."""

    def learn(self, step: Step) -> None:
        """Called with every step, in the order of time."""
        ...


class Method(Protocol):
    """Whoever predicts, from what it, or the learner it looks at, has learned."""

    name: str

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        """For each task the product ids, best first, at most `limit`. All of the tasks are of one moment `at`.

        With `new_only`, without what the user bought before.
        """
        ...


class Recommended:
    """What `afterglow recommend` shows, from the state that the user's events have made."""

    def __init__(self, name: str, history: History, *, exclude_bought: bool) -> None:
        """`exclude_bought`: whether the settings leave out what was bought, whatever is asked for."""
        self.name = name
        self._history = history
        self._exclude_bought = exclude_bought

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        history, catalogue = self._history, self._history.shop.catalogue
        states = history.states([task.user_id for task in tasks])
        tastes = history.tastes(states, tasks[0].at)
        rules = RankingRules(limit, exclude_bought=new_only or self._exclude_bought)
        found = await recommend(
            catalogue,
            states,
            tastes,
            catalogue.mean,
            rules,
            snapshot=catalogue.snapshot,
            statistics=history.statistics(),
        )
        return [[item.product_id for item in items] for items in found]


class DecayedAverage:
    """The products nearest to one average of all that a user did, by the long half-life: the usual profile vector."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self._history = history

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        history, catalogue = self._history, self._history.shop.catalogue
        tastes = history.tastes(history.states([task.user_id for task in tasks]), tasks[0].at)
        asked = [taste.long for taste in tastes if taste.long is not None]
        if not asked:
            return [[] for _ in tasks]
        hidden = [task.known if new_only else frozenset[str]() for task in tasks]
        depth = limit + max(map(len, hidden))
        unit = np.stack(asked) / np.linalg.norm(asked, axis=1, keepdims=True)
        found = iter(catalogue.snapshot.near(centred(unit, catalogue.mean), depth))
        return [
            []
            if taste.long is None
            else [product_id for product_id in next(found).product_ids if product_id not in without][:limit]
            for taste, without in zip(tastes, hidden, strict=True)
        ]


class RecommendedForQuery:
    """What `afterglow recommend USER --query` shows."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self._history = history

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        history, catalogue = self._history, self._history.shop.catalogue
        states = history.states([task.user_id for task in tasks])
        tastes = history.tastes(states, tasks[0].at)
        statistics, rules = history.statistics(), RankingRules(limit, exclude_bought=new_only)
        lists = []
        for task, state, taste in zip(tasks, states, tastes, strict=True):
            query = await _query(task.query, history.shop, statistics)
            (items,) = await recommend(
                catalogue, [state], [taste], catalogue.mean, rules, query=query, statistics=statistics
            )
            lists.append([item.product_id for item in items])
        return lists


class Searched:
    """What `afterglow search` finds, whoever asks."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self._history = history

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        shop, statistics = self._history.shop, self._history.statistics()
        lists = []
        for task in tasks:
            query = await _query(task.query, shop, statistics)
            found = await search(shop.catalogue, query, shop.catalogue.mean, limit, statistics=statistics)
            lists.append([one.product_id for one, _ in found])
        return lists


class Nearest:
    """The products whose texts are nearest to the query's, and nothing else: no words, no clicks, no person."""

    def __init__(self, name: str, shop: EncodedShop) -> None:
        self.name = name
        self._shop = shop

    async def lists(self, tasks: Sequence[Task], limit: int, *, new_only: bool) -> list[list[str]]:
        catalogue = self._shop.catalogue
        queries = np.stack([self._shop.queries[task.query] for task in tasks])
        found = catalogue.snapshot.near(centred(queries, catalogue.mean), limit)
        return [list(one.product_ids) for one in found]


async def _query(text: str, shop: EncodedShop, statistics: Statistics) -> Query:
    return await understood(
        text,
        shop.queries[text],
        key=normalise,
        catalogue=shop.catalogue,
        vocabulary=shop.catalogue.vocabulary,
        clicks=statistics.clicks,
    )
