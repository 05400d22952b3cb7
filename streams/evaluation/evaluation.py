"""An evaluation: the history up to the cut is learned, and what happened next predicted by every method alike.

Without `prequential` everything is frozen at the cut, and the first order (and the first click) of each user after it
is predicted. With it each order and click is first predicted, as of just before it, and then learned. Queries are
given, so all of those after the cut are asked, either way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from threadpoolctl import threadpool_limits

from streams.evaluation.contenders import beside_baselines, of_models
from streams.evaluation.files import Shop
from streams.evaluation.rounds import Asked, Counted, Round, Rounds
from streams.evaluation.tasks import Task
from streams.evaluation.texts import EncodedShop, Encoder, encode_shop
from streams.evaluation.timeline import Step, timeline
from streams.products import stored_product
from streams.settings import Settings

_TASKS_AT_ONCE: Final = 256

Report: TypeAlias = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is, and of how much."""


class Options(NamedTuple):
    cut: int  # ms: what happened before is history
    limit: int  # length of a list
    prequential: bool
    seed: int


class NothingToPredict(ValueError):
    """Nothing happened after the cut that could be predicted."""


async def evaluate(
    shop: Shop, encoder: Encoder, settings: Settings, options: Options, report: Report = lambda *_: None
) -> list[Round]:
    """The rounds that the shop's history has tasks for.

    Raises NothingToPredict where there are none, UnfitFile, and what the encoder raises.
    """
    from streams.evaluation.tfidf import TfidfEncoder  # of a library that comparing models does without

    report("encoding texts", 0, 1)
    encoded = await encode_shop(shop, encoder)
    words = TfidfEncoder([stored_product(product).text for product in shop.products])
    counted = Counted(encoded)
    asked = beside_baselines(encoded, await encode_shop(shop, words), counted, settings, seed=options.seed)
    return await _rounds(shop, counted, asked, options, report)


async def compare(
    shop: Shop,
    encoded: Mapping[str, EncodedShop],
    settings: Settings,
    options: Options,
    report: Report = lambda *_: None,
) -> list[Round]:
    """The same rounds, by each model: `encoded` is the shop's texts by it. Raises NothingToPredict."""
    counted = Counted(next(iter(encoded.values())))
    return await _rounds(shop, counted, of_models(encoded, settings), options, report)


async def _rounds(shop: Shop, counted: Counted, asked: Asked, options: Options, report: Report) -> list[Round]:
    steps = timeline(shop.purchases, shop.searches)
    start = bisect_left(steps, options.cut, key=lambda step: step.ts)
    rounds = Rounds(counted, asked)
    with threadpool_limits(1, "blas"):  # thousands of small products of matrices: more threads hinder each other
        for done, step in enumerate(steps[:start]):
            report("learning the history", done, start)
            rounds.learn(step)
        rounds.reached_cut()
        if options.prequential:
            await _predict_and_learn(rounds, steps[start:], options, report)
        else:
            await _predict(rounds, steps[start:], options, report)
    found = [one for one in (rounds.of_orders, rounds.of_clicks, rounds.of_queries) if one.tasks]
    if not found:
        raise NothingToPredict(
            "nobody of whom anything was known at the cut has ordered or clicked after it: choose an earlier --cut"
        )
    return found


async def _predict_and_learn(rounds: Rounds, steps: Sequence[Step], options: Options, report: Report) -> None:
    for done, step in enumerate(steps):
        report("predicting, then learning", done, len(steps))
        for round_, task in rounds.tasks_of(step, at=step.ts):
            await round_.predict([task], options.limit)
        rounds.learn(step)


async def _predict(rounds: Rounds, steps: Sequence[Step], options: Options, report: Report) -> None:
    waiting: dict[str, tuple[Round, list[Task]]] = {}
    for step in steps:
        for round_, task in rounds.tasks_of(step, at=options.cut):
            if task.first or round_ is rounds.of_queries:
                waiting.setdefault(round_.kind, (round_, []))[1].append(task)
    of, done = sum(len(tasks) for _, tasks in waiting.values()), 0
    for round_, tasks in waiting.values():
        for start in range(0, len(tasks), _TASKS_AT_ONCE):
            report("predicting", done, of)
            chunk = tasks[start : start + _TASKS_AT_ONCE]
            await round_.predict(chunk, options.limit)
            done += len(chunk)
