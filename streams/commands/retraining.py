"""One retraining, step by step. Each step's result is whole or not there, so that a killed one goes on where it was.

1. Is one under way? It goes on, if readers still see the model that it began from.
2. Drift is looked at, and decides.                             The task is recorded: models/task.json.
3. Pairs are mined, and the model in service is trained on.     The model's folder appears, whole.
4. Both models predict the newest window; a worse one ends it.  The judgement is put into the folder.
5. The topics are replayed into a new generation.               A replay goes on by itself; readers are led over last.
6. Old generations and models are deleted.                      The outcome is recorded, and the task is over.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from encoders.errors import ModelError
from sinks.collections import Generation
from streams.commands.deciding import Asked, decide
from streams.commands.judging import described, encoded, encoding_as, in_service
from streams.commands.own_encoder import encoding_with
from streams.commands.replay import replay
from streams.commands.tuning import use_threads
from streams.generations import as_folded
from streams.models import found_here
from streams.rollout.judgement import Judgement, in_words, judge, keep, kept, nothing_concluded
from streams.rollout.models_folder import ModelsFolder
from streams.rollout.pruning import prune
from streams.rollout.task import Outcome, Task, outcome_of
from streams.settings import Settings, changed
from streams.training.topics import HistoryGone, read_history

if TYPE_CHECKING:
    from streams.evaluation.evaluation import Report
    from streams.evaluation.files import Shop
    from streams.replay import Progress


def retrain(settings: Settings, models: ModelsFolder, asked: Asked, report: Report) -> Outcome:
    """Runs one retraining, or what is left of one; the caller holds the folder.

    Raises TrainingError, ModelError, HistoryGone, KafkaUnreachable, QdrantUnreachable, ClickException, and what a
    replay raises. What was done until then counts when it is called again.
    """
    from encoders.training.pairs import OtherTraining

    began = time.monotonic()
    now = in_service(settings)
    if now is None:
        raise click.ClickException("there is no generation yet, so there is no model in service: start a worker first")
    generation = now.generation
    settings = as_folded(settings, generation)  # the model is all that changes
    task = _under_way(models, generation, asked, report)
    outcome = None
    if task is not None:
        try:
            outcome = _Retraining(settings, models, generation, task, asked.threads, report).outcome()
        except (HistoryGone, OtherTraining):  # what it was to learn from can't be had again
            models.abandon(task)
            task = None
    if outcome is None:
        decided = decide(settings, generation, models.attempts(), asked, report)
        if isinstance(decided, Outcome):
            outcome = decided
        else:
            task, shop = decided
            models.begin(task)
            outcome = _Retraining(settings, models, generation, task, asked.threads, report, shop).outcome()
    return _tidied(settings, models, outcome, task, began)


def _under_way(models: ModelsFolder, generation: Generation, asked: Asked, report: Report) -> Task | None:
    """Step 1: what a killed run left, if it is still to be done."""
    task = models.task()
    if task is None:
        return None
    if generation.model.source == str(models.path(task.name)):  # readers had been led over
        return task
    other = {name: value for name, value in asked.options.items() if task.options.get(name) != value}
    if generation.model.identity != task.parent:
        reason = "readers see another model than the one that was trained on"
    elif other and not models.path(task.name).exists():
        reason = f"the training under way was begun with another {' and '.join(other).replace('_', ' ')}"
    else:
        return task
    report(f"{reason}: that is given up", 0, 1)
    models.abandon(task)
    return None


class _Retraining:
    """Steps 3 to 5 of a task, which is recorded; what is done of them already is not done again."""

    def __init__(
        self,
        settings: Settings,
        models: ModelsFolder,
        generation: Generation,
        task: Task,
        threads: int,
        report: Report,
        shop: Shop | None = None,
    ) -> None:
        """`generation` is the one that readers see; `shop` the history of the task's extent, where it was read."""
        self._settings = settings
        self._models = models
        self._generation = generation
        self._task = task
        self._threads = threads
        self._report = report
        self._shop = shop
        self._folder = models.path(task.name)

    def outcome(self) -> Outcome:
        if self._generation.model.source == str(self._folder):
            return self._rolled_out(self._generation)
        if not self._folder.exists():
            self._make_model()
        with encoding_with(_prefixed(self._settings, self._generation), str(self._folder)) as candidate:
            judgement = self._judgement(candidate)
            if refusal := _refusal(judgement):
                return self._came_to("refused", refusal, self._generation.name, judgement)
            if self._served().name == self._generation.name:
                self._replay(candidate)
        generation = self._served()
        if generation.model.identity != judgement.identity:
            raise click.ClickException(
                f"readers see generation {generation.name} now, and saw {self._generation.name} when the model was "
                "judged: they are not led to it. Nothing is lost, and the next run looks again"
            )
        return self._rolled_out(generation)

    def _make_model(self) -> None:
        """Step 3. What would only fail again is given up, and remembered."""
        from encoders.training.pairs import NoMemory, OtherTraining, TrainingError, Unwritable

        use_threads(self._threads)
        try:
            self._train()
        except (Unwritable, NoMemory, OtherTraining):  # with more room it goes on; or it begins anew
            raise
        except TrainingError as error:
            failed = outcome_of("failed", str(error), self._generation.name, drift=self._task.drift)
            self._models.finish(failed, self._task)
            self._models.abandon(self._task)
            raise

    def _train(self) -> None:
        """From the model in service, by the task alone, so that a killed one goes on."""
        from transformers.utils.logging import disable_progress_bar

        from encoders.training.training import Options, train

        found = found_here(self._settings, self._generation.model)
        if found is None:
            raise ModelError(
                f"the model in service, {self._generation.model.name} ({self._generation.model.identity}), is not on "
                "this machine: put it back, or set encoder.model to where it is"
            )
        disable_progress_bar()  # type: ignore[no-untyped-call]  # ours says more
        shop = self._history()
        self._report("mining pairs", 0, 1)
        train(
            self._task.examples(shop),
            found.source,
            self._folder,
            msgspec.convert(self._task.options, Options),
            self._report,
            device=self._settings.encoder.device,
            query_prefix=found.query_prefix,
            product_prefix=found.product_prefix,
        )

    def _judgement(self, candidate: Settings) -> Judgement:
        """Step 4, of the model that the encoding worker of `candidate` has."""
        identities = self._generation.model.identity, described(candidate).identity
        topics = self._task.extent.topics
        if (judgement := kept(self._folder, identities, topics, within_ms=math.inf)) is not None:
            return judgement
        shop = self._history()
        if len({*identities}) == 1:  # training found nothing better, and there is nothing to compare
            return nothing_concluded(shop, identities, topics)
        self._report("judging the new model", 0, 1)
        with encoding_as(self._settings, self._generation) as serving:
            before = encoded(serving, shop)
        both = before, encoded(candidate, shop)
        judgement = asyncio.run(judge(shop, both, identities, topics, self._settings, self._report, cut=self._task.cut))
        keep(self._folder, judgement)
        return judgement

    def _replay(self, candidate: Settings) -> None:
        """Step 5; readers are led over if they still see what the model was judged beside."""
        self._report("replaying", 0, 1)
        name, from_ms = self._generation.name, self._generation.from_ms
        asyncio.run(replay(candidate, None, from_ms, _told(self._report), activate=True, instead_of=name))

    def _served(self) -> Generation:
        now = in_service(self._settings)
        assert now is not None  # there was one, and nothing takes it away
        return now.generation

    def _history(self) -> Shop:
        """Raises HistoryGone."""
        if self._shop is None:
            self._shop = read_history(self._settings, self._task.extent, self._report).shop
        return self._shop

    def _rolled_out(self, generation: Generation) -> Outcome:
        """When readers see it."""
        identities = self._task.parent, generation.model.identity
        judgement = kept(self._folder, identities, self._task.extent.topics, within_ms=math.inf)
        better = [measure for measure in judgement.measures if measure.better] if judgement is not None else []
        told = "; ".join(map(in_words, better)) or "as good in each measure"
        return self._came_to("rolled out", f"{', '.join(self._task.why)}. {told}", generation.name, judgement)

    def _came_to(self, outcome: str, why: str, generation: str, judgement: Judgement | None) -> Outcome:
        model = str(self._folder)
        return outcome_of(outcome, why, generation, model=model, drift=self._task.drift, judgement=judgement)


def _tidied(settings: Settings, models: ModelsFolder, outcome: Outcome, task: Task | None, began: float) -> Outcome:
    """Step 6."""
    from streams.existing import asked

    async def ask() -> tuple[list[str], list[str]]:
        async with asked(settings) as client:
            return await prune(settings, client, models.holds, settings.retraining.keep)

    dropped, needed = asyncio.run(ask())
    outcome = msgspec.structs.replace(outcome, dropped=dropped, seconds=round(time.monotonic() - began, 1))
    models.finish(outcome, task)
    models.tidy(needed)
    return outcome


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


def _prefixed(settings: Settings, generation: Generation) -> Settings:
    """The new model gets the same prefixes as the one in service."""
    model = generation.model
    given = {"query": model.query_prefix, "product": model.product_prefix}
    return changed(settings, {f"encoder.{kind}_prefix": prefix for kind, prefix in given.items() if prefix})


def _told(report: Report) -> Callable[[Progress], None]:
    return lambda progress: report(progress.stage, progress.done, progress.of)
