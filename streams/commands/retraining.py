"""One retraining, step by step. Each step's result is whole or not there, so that a killed one goes on where it was.

1. Is one under way? It goes on, if readers still see the generation that it began from.
2. Drift is looked at, and decides.                             The task is recorded: models/task.json.
3. Pairs are mined, and the model in service is trained on.     The model's folder appears, whole.
4. Both models predict the newest window; a worse one ends it.  The judgement is put into the folder.
5. The topics are replayed into a new generation.               A replay goes on by itself; readers are led over last.
6. Old generations and models are deleted.                      The outcome is recorded, and the task is over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
import msgspec

from encoders.errors import ModelError
from encoders.recipe import locate
from sinks.collections import Generation
from streams.commands.judging import described, encoded, encoding_as, in_service
from streams.commands.own_encoder import encoding_with
from streams.commands.replay import replay
from streams.commands.tuning import half_precision, use_threads
from streams.generations import as_folded
from streams.models import found_here
from streams.rollout.drift import Drift, Windows, drift, reasons
from streams.rollout.judgement import (
    MOST_PREDICTED,
    WINDOW,
    Judgement,
    in_words,
    judge,
    keep,
    kept,
    moments,
    nothing_concluded,
    tells_anything,
)
from streams.rollout.models_folder import ModelsFolder, Outcome, Task
from streams.rollout.pruning import prune
from streams.settings import Settings, changed
from streams.training.topics import HistoryGone, extent_now, read_history

if TYPE_CHECKING:
    from encoders.training.pairs import Examples
    from streams.evaluation.evaluation import Report
    from streams.evaluation.files import Shop
    from streams.replay import Progress

_VALIDATION: Final = 0.1  # of what happened before the window, the newest part tells when training is to stop


class Asked(NamedTuple):
    """What the command was asked for."""

    force: bool  # whether or not anything has drifted
    threads: int  # of training, on a CPU; 0: every core
    options: Mapping[str, str | int | float | bool]  # of the training, beside its defaults


def retrain(settings: Settings, models: ModelsFolder, asked: Asked, report: Report) -> Outcome:
    """Runs one retraining, or what is left of one; the caller holds the folder.

    Raises TrainingError, ModelError, HistoryGone, KafkaUnreachable, QdrantUnreachable, ClickException, OSError, and
    what a replay raises. What was done until then counts when it is called again.
    """
    began = time.monotonic()
    now = in_service(settings)
    if now is None:
        raise click.ClickException("there is no generation yet, so there is no model in service: start a worker first")
    generation = now.generation
    settings = as_folded(settings, generation)  # the model is all that changes
    task = models.task()
    if task is not None and generation.model.source == str(models.path(task.name)):
        return _finished(settings, models, task, generation, began)  # killed when readers had been led over
    if task is not None and generation.model.identity != task.parent:
        report("readers see another model than the one that was trained on: that is given up", 0, 1)
        models.abandon(task)
        task = None
    if task is not None:
        try:
            shop = read_history(settings, task.extent, report).shop
        except HistoryGone:  # what it learned from can't be read again
            models.abandon(task)
            task = None
    if task is None:
        decided = _decided(settings, models, generation, asked, report)
        if isinstance(decided, Outcome):
            models.finish(decided)
            return decided
        task, shop = decided
        models.begin(task)
    return _carried_out(settings, models, task, shop, generation, asked.threads, report, began)


def _decided(
    settings: Settings, models: ModelsFolder, generation: Generation, asked: Asked, report: Report
) -> Outcome | tuple[Task, Shop]:
    """Step 2: what to do, or why nothing."""
    from encoders.training.training import Options

    extent = extent_now(settings, settings.retraining.events)
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
    why = reasons(found, settings.retraining) or (["asked for"] if asked.force else [])
    if not why:
        return outcome_of("kept", f"nothing has drifted: {_drift_in_words(found)}", generation.name, drift=found)
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
        cut=windows.now,
        validation_from=before[-max(1, round(_VALIDATION * len(before)))],
        options=msgspec.structs.asdict(Options(**asked.options, half=half)),  # type: ignore[arg-type]
    )
    if too_little := _too_little(_examples(settings, task, shop)):
        return outcome_of("too little", too_little, generation.name, drift=found)
    return task, shop


def _carried_out(
    settings: Settings,
    models: ModelsFolder,
    task: Task,
    shop: Shop,
    generation: Generation,
    threads: int,
    report: Report,
    began: float,
) -> Outcome:
    """Steps 3 to 6."""
    from encoders.training.pairs import TrainingError, Unwritable

    folder = models.path(task.name)
    if not folder.exists():
        try:
            use_threads(threads)
            _train(settings, task, shop, generation, folder, report)
        except Unwritable:  # with room on the disk it goes on
            raise
        except (TrainingError, ModelError):  # it would fail again
            models.abandon(task)
            raise
    prefixed = _prefixed(settings, generation)
    with encoding_with(prefixed, str(folder)) as candidate:
        judgement = _judgement(settings, candidate, task, shop, generation, folder, report)
        if refusal := _refusal(judgement):
            outcome = outcome_of(
                "refused", refusal, generation.name, model=str(folder), drift=task.drift, judgement=judgement
            )
            return _tidied(settings, models, outcome, began)
        report("replaying", 0, 1)
        replayed = asyncio.run(replay(candidate, None, generation.from_ms, _told(report), activate=True))
    if not replayed.served:
        raise click.ClickException(
            f"generation {replayed.generation} is complete, but readers were led elsewhere meanwhile: nothing is lost, "
            "the next run looks again"
        )
    now = in_service(settings)
    assert now is not None  # it has just been served
    return _finished(settings, models, task, now.generation, began)


def _finished(settings: Settings, models: ModelsFolder, task: Task, generation: Generation, began: float) -> Outcome:
    """Step 6, when readers see the new model."""
    folder = models.path(task.name)
    judgement = kept(folder, (task.parent, generation.model.identity), task.extent.topics, within_ms=math.inf)
    better = [measure for measure in judgement.measures if measure.better] if judgement is not None else []
    told = "; ".join(map(in_words, better)) or "as good in each measure"
    outcome = outcome_of(
        "rolled out",
        f"{', '.join(task.why)}. {told}",
        generation.name,
        model=str(folder),
        drift=task.drift,
        judgement=judgement,
    )
    return _tidied(settings, models, outcome, began)


def _tidied(settings: Settings, models: ModelsFolder, outcome: Outcome, began: float) -> Outcome:
    from streams.existing import asked

    async def ask() -> tuple[list[str], list[str]]:
        async with asked(settings) as client:
            return await prune(settings, client, models.holds, settings.retraining.keep)

    dropped, needed = asyncio.run(ask())
    outcome = msgspec.structs.replace(outcome, dropped=dropped, seconds=round(time.monotonic() - began, 1))
    models.finish(outcome)
    models.tidy(needed)
    return outcome


def _train(settings: Settings, task: Task, shop: Shop, generation: Generation, folder: Path, report: Report) -> None:
    """Step 3: from the model in service, by the task alone, so that a killed one goes on."""
    from transformers.utils.logging import disable_progress_bar

    from encoders.training.training import Options, train

    disable_progress_bar()  # type: ignore[no-untyped-call]  # ours says more
    found = found_here(settings, generation.model)
    if found is None:
        raise ModelError(
            f"the model in service, {generation.model.name} ({generation.model.identity}), is not on this machine: "
            "set encoder.model to where it is"
        )
    report("mining pairs", 0, 1)
    train(
        _examples(settings, task, shop),
        found.source,
        folder,
        Options(**task.options),  # type: ignore[arg-type]
        report,
        device=settings.encoder.device,
        query_prefix=found.query_prefix,
        product_prefix=found.product_prefix,
    )


def _examples(settings: Settings, task: Task, shop: Shop) -> Examples:
    from streams.training.mining import Splits, mine

    seed = int(task.options["seed"])
    splits = Splits(task.validation_from, task.cut, moments(shop)[-1] + 1)
    half_life_ms = settings.profiles.half_life_long.milliseconds
    examples = mine(shop.products, shop.purchases, shop.searches, splits, half_life_ms=half_life_ms, seed=seed)
    return dataclasses.replace(examples, facts={**examples.facts, "topics": task.extent.topics})


def _too_little(examples: Examples) -> str:
    """Why nothing can be learned, in words; empty where it can."""
    from encoders.training.training import FEWEST_PAIRS, FEWEST_PROBES

    if len(examples.pairs) < FEWEST_PAIRS:
        return f"{len(examples.pairs)} pairs to learn from, and fewer than {FEWEST_PAIRS} teach nothing"
    asked = min(len(examples.validation), len(examples.test))
    if asked < FEWEST_PROBES:
        return f"{asked} searches or orders to measure it by, and fewer than {FEWEST_PROBES} say nothing"
    return ""


def _judgement(
    settings: Settings,
    candidate: Settings,
    task: Task,
    shop: Shop,
    generation: Generation,
    folder: Path,
    report: Report,
) -> Judgement:
    """Step 4."""
    identities = generation.model.identity, described(candidate).identity
    if len({*identities}) == 1:  # training found nothing better, and there is nothing to compare
        return nothing_concluded(shop, identities, task.extent.topics)
    if (judgement := kept(folder, identities, task.extent.topics, within_ms=math.inf)) is not None:
        return judgement
    report("judging the new model", 0, 1)
    with encoding_as(settings, generation) as serving:
        before = encoded(serving, shop)
    both = before, encoded(candidate, shop)
    judgement = asyncio.run(judge(shop, both, identities, task.extent.topics, settings, report, cut=task.cut))
    keep(folder, judgement)
    return judgement


def _refusal(judgement: Judgement) -> str:
    """Why a new model is not rolled out; empty where it is."""
    if judgement.identity == judgement.against:
        return "training found nothing better than the model in service"
    if judgement.worse:
        return f"the new model is worse. {'; '.join(map(in_words, judgement.worse))}"
    if not judgement.measures:
        return "too little happened in the newest window to judge the new model by"
    if judgement.gain <= 0.0:
        return f"the new model is no better: {judgement.gain:+.1%} on average of {len(judgement.measures)} measures"
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


def _prefixed(settings: Settings, generation: Generation) -> Settings:
    """The new model gets the same prefixes as the one in service."""
    model = generation.model
    given = {"query": model.query_prefix, "product": model.product_prefix}
    return changed(settings, {f"encoder.{kind}_prefix": prefix for kind, prefix in given.items() if prefix})


def _drift_in_words(found: Drift) -> str:
    told = [
        f"{found.unseen_words:.1%} of words are new" if found.unseen_words is not None else "",
        f"{found.bad_matches:.1%} of queries match badly" if found.bad_matches is not None else "",
        *(f"recall@20 {one.now.mean:.3f} after {one.before.mean:.3f}" for one in found.recall),
    ]
    return ", ".join(filter(None, told)) or "too little to say"


def _told(report: Report) -> Callable[[Progress], None]:
    return lambda progress: report(progress.stage, progress.done, progress.of)


def outcome_of(
    outcome: str,
    why: str,
    generation: str,
    *,
    model: str | None = None,
    drift: Drift | None = None,
    judgement: Judgement | None = None,
) -> Outcome:
    """At this moment."""
    return Outcome(
        outcome=outcome,
        at=time.time_ns() // 1_000_000,
        why=why,
        generation=generation,
        model=model,
        drift=drift,
        judgement=judgement,
    )
