"""Step 2 of a retraining: whether it is time for another model, and what that is to learn from."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from encoders.recipe import locate
from sinks.collections import Generation
from streams.commands.judging import encoded, encoding_as
from streams.commands.moments import shown
from streams.commands.tuning import half_precision
from streams.models import found_here
from streams.rollout.attempts import Attempt, came_since, repeated
from streams.rollout.drift import Windows, drift, in_words, reasons
from streams.rollout.judgement import MOST_PREDICTED, WINDOW, moments, tells_anything
from streams.rollout.task import Outcome, Task, outcome_of
from streams.settings import Settings
from streams.training.topics import extent_now, read_history

if TYPE_CHECKING:
    from encoders.training.pairs import Examples
    from streams.evaluation.evaluation import Report
    from streams.evaluation.files import Shop

_VALIDATION: Final = 0.1  # of what happened before the window, the newest part tells when training is to stop

_CAME_TO: Final = {"refused": "was refused", "failed": "failed"}


class Asked(NamedTuple):
    """What the command was asked for."""

    force: bool  # whether or not anything has drifted, and whatever was tried
    threads: int  # of training, on a CPU; 0: every core
    options: Mapping[str, str | int | float | bool]  # of the training, beside its defaults


class Decided(NamedTuple):
    """A retraining that is worth while, and the history that it is about."""

    task: Task
    shop: Shop


def decide(
    settings: Settings, generation: Generation, attempts: Sequence[Attempt], asked: Asked, report: Report
) -> Decided | Outcome:
    """What to do, or why nothing. `generation` is the one that readers see, `settings` have its fold.

    Raises HistoryGone, KafkaUnreachable, EncoderError, and ClickException where the generation's model is not here.
    """
    from encoders.training.training import Options

    limits = settings.retraining
    extent = extent_now(settings, limits.events)
    shop = read_history(settings, extent, report).shop
    learned_until = _learned_until(settings, generation, extent.topics)
    times = moments(shop)
    since = [ts for ts in times if learned_until is None or ts >= learned_until]
    predicted = min(round(WINDOW * len(times)), MOST_PREDICTED, len(since) // 2)
    if not tells_anything(shop) or predicted < 1 or len(times) < 3 * predicted:
        return outcome_of("too little", "hardly anything is new that could be learned", generation.name)
    windows = Windows(before=times[-2 * predicted], now=times[-predicted])
    report("looking for drift", 0, 1)
    with encoding_as(settings, generation) as serving:
        by_it = encoded(serving, shop)
    found = asyncio.run(drift(shop, by_it, learned_until, windows, settings, report))
    why = reasons(found, limits) or (["asked for"] if asked.force else [])
    if not why:
        return outcome_of("kept", f"nothing has drifted: {in_words(found)}", generation.name, drift=found)
    before = [ts for ts in times if ts < windows.now]
    half = half_precision("auto", settings.encoder.device)
    task = Task(
        name=time.strftime("%Y%m%d-%H%M%S", time.gmtime()),
        began_at=time.time_ns() // 1_000_000,
        generation=generation.name,
        parent=generation.model.identity,
        why=why,
        drift=found,
        extent=extent,
        events=limits.events,
        cut=windows.now,
        validation_from=before[-max(1, round(_VALIDATION * len(before)))],
        half_life_ms=settings.profiles.half_life_long.milliseconds,
        options=msgspec.convert({**asked.options, "half": half}, Options).recorded(),
    )
    attempt = None if asked.force else repeated(attempts, task, generation.model.source, limits.new_events)
    if attempt is not None:
        return outcome_of("kept", _not_yet(attempt, task, limits.new_events), generation.name, drift=found)
    if too_little := _too_little(task.examples(shop)):
        return outcome_of("too little", too_little, generation.name, drift=found)
    return Decided(task, shop)


def _not_yet(attempt: Attempt, task: Task, enough: float) -> str:
    before, when = attempt.task.extent, f"{shown(attempt.at)} UTC"
    if attempt.outcome != "rolled out":
        came = f"a training from the same {_CAME_TO[attempt.outcome]} ({when}: {attempt.why})"
    elif attempt.task.parent == task.parent:
        came = f"readers were led back from what a training from the same made ({when})"
    else:
        came = f"the model in service was made of much the same ({when})"
    return (
        f"{', '.join(task.why)}; but {came}. {came_since(before, task.extent):,} events came since, and the next "
        f"training is due after {math.ceil(enough * before.events):,} (retraining.new_events), with other options, or "
        "by --force"
    )


def _too_little(examples: Examples) -> str:
    """Why nothing can be learned, in words; empty where it can."""
    from encoders.training.training import FEWEST_PAIRS, FEWEST_PROBES

    if len(examples.pairs) < FEWEST_PAIRS:
        return f"{len(examples.pairs)} pairs to learn from, and fewer than {FEWEST_PAIRS} teach nothing"
    if len({pair.right for pair in examples.pairs}) < 2:
        return "all pairs lead to one product, and there is nothing to tell it from"
    asked = min(len(examples.validation), len(examples.test))
    if asked < FEWEST_PROBES:
        return f"{asked} searches or orders to measure it by, and fewer than {FEWEST_PROBES} say nothing"
    return ""


def _learned_until(settings: Settings, generation: Generation, topics: Mapping[str, str]) -> int | None:
    """Event time up to which the model in service has learned from these topics, ms; None where it has not."""
    from encoders.training.model_card import read_card

    found = found_here(settings, generation.model)
    card = read_card(locate(found.source)[0]) if found is not None else None
    if card is None or card.data.get("topics") != topics:
        return None
    until = card.data.get("validation_from_ms")
    return until if isinstance(until, int) else None
