"""Models beside each other on the same tasks: what each is worth, what it has more than the first, and which is worse.

Pure. Differences are paired, and drawn by users (`streams.evaluation.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from encoders.text import normalise
from streams.evaluation.bootstrap import Bootstrap, Interval
from streams.evaluation.contenders import by_texts_alone
from streams.evaluation.metrics import recall, reciprocal_rank
from streams.evaluation.results import Figures, Values, decile_of, differences, figures_of, values_of
from streams.evaluation.rounds import Round
from streams.evaluation.tasks import NEXT_CLICK, NEXT_ORDER, QUERY

_TAIL: Final = 8
"""The long tail are the products of the lower eight tenths by how much they sold before the cut."""

LONG_TAIL: Final = "recall_long_tail"
UNSEEN: Final = "mrr_unseen_queries"

DECIDING: Final[Mapping[str, Mapping[bool, Sequence[str]]]] = {
    NEXT_ORDER: {
        False: ("recall", "recall_new_in_new_only_list"),
        True: ("recall_new_in_new_only_list", LONG_TAIL),
    },
    NEXT_CLICK: {False: ("mrr",), True: ("mrr",)},
    QUERY: {False: ("mrr", UNSEEN), True: ("mrr", UNSEEN, LONG_TAIL)},
}
"""What a model is judged by: of each kind of task, measures of it as it is served, and (True) of its texts alone. Those
are its own work: as it is served, what is known across users hides much of what it does.
"""

ENOUGH_USERS: Final = 20
"""Of fewer, nothing is concluded."""


class ModelFigures(Figures, frozen=True):
    """One model's, and what it has more than the first model (negative: less), paired."""

    minus_first: dict[str, Interval]


class Compared(msgspec.Struct, frozen=True):
    """Every model on the same tasks of one kind, first each as it is served, then each by its texts alone."""

    kind: str
    only_first: bool  # only the first task of each user who was known at the cut
    tasks: int
    users: int
    limit: int
    methods: list[ModelFigures]


class Measure(msgspec.Struct, frozen=True):
    """What one model is worth by one measure, beside another on the same tasks."""

    kind: str
    metric: str
    texts_alone: bool
    before: float  # of the other model
    after: float
    difference: Interval  # after - before

    @property
    def worse(self) -> bool:
        """Beyond doubt: all of the 95% interval is below 0."""
        return self.difference.high < 0

    @property
    def better(self) -> bool:
        """Beyond doubt: all of the 95% interval is above 0."""
        return self.difference.low > 0


def compared(
    rounds: Sequence[Round], models: Sequence[str], seen_queries: Collection[str], *, limit: int, seed: int
) -> list[Compared]:
    """Of rounds that `streams.evaluation.evaluation.compare` made of these models. `seen_queries` are normalised."""
    results = []
    for round_ in rounds:
        results.append(_compared(round_, models, seen_queries, limit=limit, seed=seed, only_first=False))
        first = round_.of_first()
        if 0 < len(first.tasks) < len(round_.tasks):
            results.append(_compared(first, models, seen_queries, limit=limit, seed=seed, only_first=True))
    return results


def measures(results: Sequence[Compared], model: str) -> list[Measure]:
    """By what this model is judged beside the first one; empty of kinds with too few users to conclude anything."""
    found = []
    for result in results:
        if result.only_first or result.users < ENOUGH_USERS:
            continue
        methods = {method.method: method for method in result.methods}
        first = result.methods[0].method
        for alone, metrics in DECIDING[result.kind].items():
            before, after = (methods[by_texts_alone(one) if alone else one] for one in (first, model))
            found += [
                Measure(result.kind, metric, alone, before.metrics[metric].mean, after.metrics[metric].mean, difference)
                for metric in metrics
                if (difference := after.minus_first.get(metric)) is not None
            ]
    return found


def _compared(
    round_: Round, models: Sequence[str], seen_queries: Collection[str], *, limit: int, seed: int, only_first: bool
) -> Compared:
    bootstrap = Bootstrap([task.user_id for task in round_.tasks], seed=seed)
    values = {name: _values(round_, name, seen_queries, limit) for name in round_.lists}
    methods = []
    for first, *others in (models, [*map(by_texts_alone, models)]):
        for name in (first, *others):
            more = {} if name == first else differences(values[name], values[first], bootstrap)
            figures = figures_of(round_, name, values[name], bootstrap)
            methods.append(ModelFigures(**msgspec.structs.asdict(figures), minus_first=more))
    users = len({task.user_id for task in round_.tasks})
    return Compared(round_.kind, only_first, len(round_.tasks), users, limit, methods)


def _values(round_: Round, method: str, seen_queries: Collection[str], limit: int) -> dict[str, Values]:
    """As of any method; and of products of the long tail alone, and of queries that nobody had typed before the cut."""
    lists, tenths = round_.lists[method], decile_of(round_.popularity)
    tail, unseen = np.full((2, len(lists)), np.nan)
    for row, (task, (mixed, _)) in enumerate(zip(round_.tasks, lists, strict=True)):
        wanted = [product_id for product_id in task.wanted if tenths.get(product_id, 0) < _TAIL]
        if wanted:
            tail[row] = recall(mixed, wanted, limit)
        if task.query and normalise(task.query) not in seen_queries:
            unseen[row] = reciprocal_rank(mixed, task.wanted, limit)
    return {**values_of(round_.tasks, lists, limit), LONG_TAIL: tail, UNSEEN: unseen}
