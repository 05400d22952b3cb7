"""What an evaluation found, as figures: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.evaluation.bootstrap import Bootstrap, Interval
from streams.evaluation.metrics import ndcg, precision, recall, reciprocal_rank
from streams.evaluation.rounds import AFTERGLOW, Lists, Round
from streams.evaluation.tasks import QUERY, Task

Values = NDArray[np.float64]

DECILES: Final = 10
SHORT: Final = 5


class Decile(msgspec.Struct, frozen=True):
    """A tenth of the available products, by how many orders (or clicks) they were in before the cut."""

    decile: int  # 1: those sold least; 10: the best sellers
    wanted: int  # how often one of them was wanted after the cut
    found: int  # and in the mixed list
    recall: float | None  # found / wanted
    shown: float  # share of all places in the mixed lists


class Figures(msgspec.Struct, frozen=True):
    """One method's figures over all tasks of a kind."""

    method: str
    metrics: dict[str, Interval]
    coverage_mixed_list: float  # share of the available products that are in any list
    coverage_new_only_list: float | None
    deciles: list[Decile]


class MethodResult(Figures, frozen=True):
    """And what Afterglow has more (negative: less), paired."""

    afterglow_minus_this: dict[str, Interval]


class RoundResult(msgspec.Struct, frozen=True):
    """Every method on the same tasks of one kind, Afterglow first."""

    kind: str
    only_first: bool  # only the first task of each user who was known at the cut
    tasks: int
    users: int
    limit: int
    methods: list[MethodResult]


def results_of(round_: Round, *, limit: int, seed: int) -> list[RoundResult]:
    """Of all tasks; and where that is less, of the first of each user, which compare with what is frozen at the cut."""
    results = [_result(round_, limit=limit, seed=seed, only_first=False)]
    first = round_.of_first()
    if 0 < len(first.tasks) < len(round_.tasks):
        results.append(_result(first, limit=limit, seed=seed, only_first=True))
    return results


def _result(round_: Round, *, limit: int, seed: int, only_first: bool) -> RoundResult:
    tasks = round_.tasks
    bootstrap = Bootstrap([task.user_id for task in tasks], seed=seed)
    values = {name: values_of(tasks, lists, limit) for name, lists in round_.lists.items()}
    methods = [
        MethodResult(
            **msgspec.structs.asdict(figures_of(round_, name, own, bootstrap)),
            afterglow_minus_this={} if name == AFTERGLOW else differences(values[AFTERGLOW], own, bootstrap),
        )
        for name, own in values.items()
    ]
    return RoundResult(round_.kind, only_first, len(tasks), len({task.user_id for task in tasks}), limit, methods)


def figures_of(round_: Round, method: str, values: Mapping[str, Values], bootstrap: Bootstrap) -> Figures:
    """`values` are the method's by metric, one a task."""
    lists = round_.lists[method]
    return Figures(
        method=method,
        metrics=_intervals(bootstrap, values),
        coverage_mixed_list=_coverage(round_, [one.mixed for one in lists]),
        coverage_new_only_list=_coverage(round_, [one.new_only for one in lists]) if round_.kind != QUERY else None,
        deciles=deciles_of(round_.tasks, lists, round_.popularity),
    )


def differences(more: Mapping[str, Values], less: Mapping[str, Values], bootstrap: Bootstrap) -> dict[str, Interval]:
    """By metric, what `more` has more than `less` (negative: less), task by task."""
    return _intervals(bootstrap, {metric: row - less[metric] for metric, row in more.items()})


def _intervals(bootstrap: Bootstrap, values: Mapping[str, Values]) -> dict[str, Interval]:
    found = {metric: bootstrap.mean(row) for metric, row in values.items()}
    return {metric: interval for metric, interval in found.items() if interval is not None}


def _coverage(round_: Round, lists: Sequence[Sequence[str]]) -> float:
    return len({item for items in lists for item in items}) / len(round_.popularity)


def values_of(tasks: Sequence[Task], lists: Sequence[Lists], limit: int) -> dict[str, Values]:
    """Each metric's value for each task; NaN where it has none.

    `recall_new_in_mixed_list` looks for what is new to the user in the list of everything,
    `recall_new_in_new_only_list` in the list without what was bought before; tasks that want nothing new have neither.
    """
    short = min(SHORT, limit)
    rows = [
        (
            recall(mixed, task.wanted, limit),
            recall(mixed, task.wanted, short),
            ndcg(mixed, task.wanted, limit),
            reciprocal_rank(mixed, task.wanted, limit),
            precision(mixed, task.wanted, limit),
            recall(mixed, task.new, limit) if task.new and not task.query else np.nan,
            recall(new_only, task.new, limit) if task.new and not task.query else np.nan,
        )
        for task, (mixed, new_only) in zip(tasks, lists, strict=True)
    ]
    names = (
        "recall",
        f"recall_at_{short}",
        "ndcg",
        "mrr",
        "precision",
        "recall_new_in_mixed_list",
        "recall_new_in_new_only_list",
    )
    return dict(zip(names, np.array(rows, np.float64).T, strict=True))


def decile_of(popularity: Mapping[str, float]) -> dict[str, int]:
    """Of each product, 0 (sold least) to 9: of equally popular ones the lower id is first."""
    order = sorted(popularity, key=lambda product_id: (popularity[product_id], product_id))
    return {product_id: place * DECILES // len(order) for place, product_id in enumerate(order)}


def deciles_of(tasks: Sequence[Task], lists: Sequence[Lists], popularity: Mapping[str, float]) -> list[Decile]:
    """From the least popular tenth of the products to the most."""
    tenths = decile_of(popularity)
    wanted, found, shown = (np.zeros(DECILES, np.int64) for _ in range(3))
    for task, (mixed, _) in zip(tasks, lists, strict=True):
        listed = set(mixed)
        for product_id in task.wanted & tenths.keys():
            wanted[tenths[product_id]] += 1
            found[tenths[product_id]] += product_id in listed
        for product_id in mixed:
            shown[tenths[product_id]] += 1
    places = max(int(shown.sum()), 1)
    return [
        Decile(number + 1, of, hits, hits / of if of else None, places_here / places)
        for number, (of, hits, places_here) in enumerate(
            zip(wanted.tolist(), found.tolist(), shown.tolist(), strict=True)
        )
    ]
