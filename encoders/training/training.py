"""A training: from a model folder and examples to another model folder. Killed, the same call goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor

from encoders.recipe import identity, locate, read_recipe
from encoders.training.as_served import measured_as_served
from encoders.training.augmentation import Augmentation
from encoders.training.checkpoint import Checkpoint, fingerprint, working_on, writing
from encoders.training.choice import FEWEST_PROBES
from encoders.training.files import names_of, publish, save_model
from encoders.training.journal import Journal
from encoders.training.learning import Learned, Learner, Report
from encoders.training.mixing import Kept, average, mix
from encoders.training.model_card import Measurement, ModelCard, Parent, licence_of, read_card
from encoders.training.options import Options
from encoders.training.pairs import Examples, NoMemory, Seen, TrainingError, sampled

__all__ = ["FEWEST_PAIRS", "FEWEST_PROBES", "MOST_PRODUCTS", "Options", "Report", "TrainingResult", "train"]

FEWEST_PAIRS: Final = 200
MOST_PRODUCTS: Final = 20_000
"""Among which is measured, and negatives are drawn: each evaluation encodes them all."""


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    identity: str
    parent: Parent
    steps: int
    """Of the weights that were kept; 0: they are the parent's, since none were better beyond chance."""
    share: float
    """Of what was learned; the rest are the parent's weights."""
    averaged: bool
    """Over the training's evaluations."""
    seconds: float
    before: Measurement
    after: Measurement


def train(
    examples: Examples,
    parent: str,
    out: Path,
    options: Options,
    report: Report = lambda *_: None,
    *,
    device: str = "auto",
    query_prefix: str | None = None,
    product_prefix: str | None = None,
    companions: Mapping[str, Sequence[str]] | None = None,
    rewritten: Mapping[str, Sequence[str]] | None = None,
    tensorboard: Path | None = None,
) -> TrainingResult:
    """Trains `parent` (a folder, a hub name in the local cache, or "" for the packaged MiniLM) into the folder `out`.

    The weights of the best validation are kept (`encoders.training.choice`). `out` must not exist; it appears whole, or
    not at all. What a killed training had done up to its last evaluation is in `out` + ".partial", and the same call
    goes on from there: same options, examples and parent give the same weights as without the kill, up to float noise.
    Where it was killed when `out` was there already, the same call tidies up, and gives what the model card says.

    `companions` and `rewritten` are as `encoders.training.augmentation.Augmentation` takes them; the former are used
    where the options say so.

    Raises TrainingError: too little to learn from or to be measured by, a loss that is no number, another training's
    remains, another process that is making `out`, no memory on the device, a full disk, an architecture that isn't an
    encoder; ModelError.
    """
    _check(examples, options)
    examples = sampled(examples, MOST_PRODUCTS, options.seed)
    began = time.monotonic()
    folder, name = locate(parent)
    recipe = read_recipe(folder, query_prefix=query_prefix, product_prefix=product_prefix)
    from_ = Parent(name, identity(folder, recipe), parent)
    unfinished = out.with_name(f"{out.name}.partial")
    with working_on(unfinished, out), _memory_of(device):
        checkpoint = Checkpoint(unfinished, fingerprint(examples, from_, options, rewritten or {}))
        if out.exists():
            card = _finished(out, checkpoint, from_, options)
        else:
            seen = Seen(examples.pairs)
            report("measuring the model as it is", 0, 1)
            before = measured_as_served(folder, recipe, examples, seen, device)
            augmentation = Augmentation((companions or {}) if options.augment else None, rewritten or {})
            with Journal(tensorboard) as journal:
                learner, learned = _learned(
                    lambda options: Learner(examples, seen, folder, recipe, options, device, augmentation),
                    options,
                    checkpoint,
                    report,
                    journal,
                )
            kept = _kept(learner, learned, options, report)
            made = unfinished / "model"
            with writing(made):
                save_model(folder, _weights(learner, names_of(folder)), made)
            report("measuring the tuned model", 0, 1)
            after = measured_as_served(made, recipe, examples, seen, device)
            card = _card(out.name, from_, licence_of(folder), examples, options, learned, kept, before, after)
            with writing(out):
                publish(made, out, card)
        checkpoint.remove()
    return TrainingResult(
        folder=str(out),
        identity=identity(out, recipe),
        parent=from_,
        steps=card.steps,
        share=card.share,
        averaged=card.averaged,
        seconds=time.monotonic() - began,
        before=card.before,
        after=card.after,
    )


@contextmanager
def _memory_of(device: str) -> Iterator[None]:
    """Raises NoMemory where torch finds none."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NoMemory(
            f"no memory is left on {device}: a smaller --batch needs less, and so does --tune top-1 "
            f"({str(error).splitlines()[0]})"
        ) from error


def _finished(out: Path, checkpoint: Checkpoint, parent: Parent, options: Options) -> ModelCard:
    """The card of `out`, where it is what this training had made when it was killed.

    Raises TrainingError where it is anything else.
    """
    card = read_card(out)
    if card is None or not checkpoint.is_left() or (card.parent, card.options) != (parent, options.recorded()):
        raise TrainingError(f"{out} exists: give --out the name of a folder that doesn't")
    return card


def _learned(
    begin: Callable[[Options], Learner],
    options: Options,
    checkpoint: Checkpoint,
    report: Report,
    journal: Journal,
) -> tuple[Learner, list[Learned]]:
    """What each seed learned, and the last one's network."""
    learned = [Learned.of(state) for state in checkpoint.finished()]
    while True:
        seed = options.seed + len(learned)
        learner = begin(msgspec.structs.replace(options, seed=seed))
        write = partial(checkpoint.write, seed, [one.state() for one in learned])
        learned.append(learner.learn(checkpoint.state(seed), write, report, journal))
        if len(learned) == options.soup:
            return learner, learned


def _kept(learner: Learner, learned: Sequence[Learned], options: Options, report: Report) -> Kept:
    """Leaves the weights that are kept in `learner`."""
    if options.mix:
        return mix(learner, learned, report)
    learner.load(average([one.best for one in learned]))
    return Kept(1.0 if any(one.best_step for one in learned) else 0.0, averaged=False)


def _weights(learner: Learner, names: set[str] | None) -> dict[str, Tensor]:
    """Those that the parent's folder has as well; all where `names` is None."""
    return {key: value for key, value in learner.merged().items() if names is None or _is_among(key, names)}


def _card(
    name: str,
    parent: Parent,
    licence: str,
    examples: Examples,
    options: Options,
    learned: Sequence[Learned],
    kept: Kept,
    before: Measurement,
    after: Measurement,
) -> ModelCard:
    return ModelCard(
        name=name,
        parent=parent,
        licence=licence,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        data=dict(examples.facts),
        options=options.recorded(),
        steps=max(one.history[-1].step if kept.averaged else one.best_step for one in learned) if kept.share else 0,
        share=kept.share,
        averaged=kept.averaged,
        before=before,
        after=after,
        history=[one for some in learned for one in some.history],
    )


def _check(examples: Examples, options: Options) -> None:
    if options.soup > 1 and options.tune == "lora":
        raise TrainingError("the mean of low-rank additions isn't that of what they add: no --soup with --tune lora")
    if not examples.listed:
        raise TrainingError("no product is available: there is nothing to find")
    if len(examples.pairs) < FEWEST_PAIRS:
        raise TrainingError(
            f"there are {len(examples.pairs)} pairs to learn from, and fewer than {FEWEST_PAIRS} teach nothing: more "
            "events, or a later --validation-from"
        )
    if len({pair.right for pair in examples.pairs}) < 2:
        raise TrainingError("all pairs lead to one product: there is nothing to tell it from")
    for name, probes in (("validation", examples.validation), ("test", examples.test)):
        if len(probes) < FEWEST_PROBES:
            raise TrainingError(
                f"the {name} has {len(probes)} searches or orders to predict, and fewer than {FEWEST_PROBES} say "
                "nothing: more events, or other times of the splits"
            )


def _is_among(name: str, names: set[str]) -> bool:
    return any(other == name or other.endswith(f".{name}") for other in names)
