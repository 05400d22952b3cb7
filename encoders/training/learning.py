"""The weights on their way: steps, and how good they are after so many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import torch
from torch import Tensor

from encoders.protocol import TextKind
from encoders.recipe import Recipe
from encoders.training.adversary import Adversary
from encoders.training.augmentation import Augmentation
from encoders.training.batches import Batch, Batches
from encoders.training.choice import gain, worth
from encoders.training.journal import Journal
from encoders.training.kinds import Kinds, kinds_of
from encoders.training.measure import UNLISTED, Catalogue, Judged, Vectors, catalogue_of, centre, judge
from encoders.training.model_card import Evaluated
from encoders.training.network import TrainableModel
from encoders.training.objective import Objective, centred
from encoders.training.options import Options
from encoders.training.pairs import Examples, Seen, TrainingError

Weights: TypeAlias = Mapping[str, Tensor]
"""Of what is trained, by name."""

Report: TypeAlias = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is, and of how much."""

_OBJECTIVE_RATE: Final = 0.05  # of learning the temperature and what kinds are like
_AT_ONCE: Final = 1024  # queries whose nearest products are looked for


class Learned(NamedTuple):
    """What a training ends with."""

    best_step: int
    """0 where no weights were better than before."""
    best: Weights
    mean: Weights
    """Of the weights of all evaluations but the first: of what the last steps chase after, less is in it."""
    history: list[Evaluated]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**self._asdict(), "history": msgspec.json.encode(self.history)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Learned:
        history = msgspec.json.decode(state["history"], type=list[Evaluated])
        return cls(state["best_step"], state["best"], state["mean"], history)


class Learner:
    """A network on its way from the parent's weights, by one seed."""

    def __init__(
        self,
        examples: Examples,
        seen: Seen,
        folder: Path,
        recipe: Recipe,
        options: Options,
        device: str,
        augmentation: Augmentation,
    ) -> None:
        torch.manual_seed(options.seed)
        self.probes = (*examples.validation, *examples.returning)
        """By which weights are chosen."""
        self._examples = examples
        self._seen = seen
        self._options = options
        self._augmentation = augmentation
        self._model = TrainableModel(
            folder, recipe, options.tune, device=device, dropout=options.dropout, half=options.half
        )
        self._parameters = self._model.parameters()
        self._batches = Batches(
            examples.pairs,
            seen,
            size=options.batch,
            bag=options.bag,
            random_negatives=options.random_negatives,
            balance=options.balance,
            seed=options.seed,
        )
        self._queries = sorted(seen.queries)
        self._hard: dict[str, list[str]] = {}
        catalogue = self._catalogue()
        self.parent = self.copied()
        """The weights it begins with."""
        self.base = self._judged(catalogue)
        """What these find."""
        kinds = None
        if options.kinds:
            centred_vectors = centre(catalogue.vectors, catalogue.mean)
            kinds = kinds_of(catalogue.product_ids, centred_vectors, examples.categories, options.seed)
        self._kind_of = {} if kinds is None else kinds.of
        self._objective = _objective(options, kinds).to(self._model.device)
        self._optimiser = torch.optim.AdamW(
            [
                *_by_decay(self._parameters, options.weight_decay),
                {
                    "params": list(self._objective.parameters()),
                    "weight_decay": 0.0,
                    "relative": _OBJECTIVE_RATE / options.rate,
                },
            ]
        )

    def learn(
        self, state: dict[str, Any] | None, save: Callable[[dict[str, Any]], None], report: Report, journal: Journal
    ) -> Learned:
        """From what `save` was given last, or from the beginning."""
        options = self._options
        step = best_step = 0
        best: Weights = self.parent
        mean: Weights = self.parent
        history = [Evaluated(0, 0.0, self.base.measured())]
        now = highest = self._worth(self.base)
        gained, gained_at = self._gain(self.base), 0
        if state is not None:
            self.load(state["weights"])
            self._objective.load_state_dict(state["objective"])
            self._optimiser.load_state_dict(state["optimiser"])
            step, now, highest = state["step"], state["now"], state["highest"]
            gained, gained_at = state["gained"], state["gained_at"]
            best_step, best, mean, history = Learned.of(state)
            self._catalogue()
        losses: list[float] = []
        while step < options.steps and step - gained_at < options.patience * options.evaluate_every:
            report(
                f"training: on the validation {now:.3f} times as good as before, {highest:.3f} at best",
                step,
                options.steps,
            )
            losses.append(self._step(step))
            step += 1
            if step % options.evaluate_every and step < options.steps:
                continue
            judged, weights = self.judge(), self.copied()
            now, loss, losses = self._worth(judged), float(np.mean(losses)), []
            if now > highest:
                highest, best_step, best = now, step, weights
            if (now_gained := self._gain(judged)) > gained:
                gained, gained_at = now_gained, step
            mean = {name: mean[name] + (weight - mean[name]) / len(history) for name, weight in weights.items()}
            history.append(Evaluated(step, loss, judged.measured()))
            journal.write(step, loss, history[-1].validation)
            save(
                {
                    **Learned(best_step, best, mean, history).state(),
                    "step": step,
                    "weights": weights,
                    "objective": self._objective.state_dict(),
                    "optimiser": self._optimiser.state_dict(),
                    "now": now,
                    "highest": highest,
                    "gained": gained,
                    "gained_at": gained_at,
                }
            )
        return Learned(best_step, best, mean, history)

    def judge(self) -> Judged:
        """What the weights find of `probes`; and what the next steps compare with is made anew."""
        return self._judged(self._catalogue())

    def load(self, weights: Weights) -> None:
        self._model.load(weights)

    def copied(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().clone() for name, weight in self._parameters.items()}

    def merged(self) -> dict[str, Tensor]:
        """All weights of the model; nothing can be learned afterwards."""
        return self._model.merged()

    def _worth(self, judged: Judged) -> float:
        return float(worth(judged, self.base, self.probes).sum())

    def _gain(self, judged: Judged) -> float:
        return float(gain(judged, self.base, self.probes).sum())

    def _step(self, step: int) -> float:
        options = self._options
        torch.manual_seed(options.seed * 1_000_003 + step)  # dropout: the same again after a kill
        rate = options.rate * _schedule(step, options.steps, options.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group.get("relative", 1.0)
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(options.accumulate):
            for loss in self._losses(step, part):
                if not math.isfinite(value := float(loss.detach())):
                    raise TrainingError(
                        f"the loss is {value} at step {step + 1}: a smaller --learning-rate, or another model; "
                        "nothing is written, and the last checkpoint is as it was"
                    )
                (loss / options.accumulate).backward()  # type: ignore[no-untyped-call]
                total += value / options.accumulate
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimiser.step()
        self._objective.bound()
        return total

    def _losses(self, step: int, part: int) -> Iterator[Tensor]:
        """Each to be passed back before the next is asked for: the second is where the first is greater."""
        batch = self._batches.at(step * self._options.accumulate + part, self._hard)
        queries = self._typed(batch, np.random.default_rng((self._options.seed, 3, step, part)))
        if not self._options.adversarial:
            yield self._loss(batch, queries)
            return
        adversary = Adversary(self._options.adversarial)
        self._model.at_input = adversary
        try:
            yield self._loss(batch, queries)
            adversary.turn()
            yield self._loss(batch, queries)
        finally:
            self._model.at_input = None

    def _typed(self, batch: Batch, chance: np.random.Generator) -> dict[int, str]:
        """By row of the batch its query, as it is typed this time."""
        queries = {i: batch.lefts[i][0] for i, pair in enumerate(batch.pairs) if pair.kind is TextKind.QUERY}
        return {i: self._augmentation.of(query, batch.pairs[i].right, chance) for i, query in queries.items()}

    def _loss(self, batch: Batch, queries: Mapping[int, str]) -> Tensor:
        device = self._model.device
        products = list(dict.fromkeys([*batch.products, *_product_lefts(batch)]))
        row_of = {product_id: row for row, product_id in enumerate(products)}
        texts = [self._examples.products[product_id] for product_id in products]
        vectors = self._model.vectors(texts, TextKind.PRODUCT, train=True)
        asked = torch.zeros(len(batch.pairs), vectors.shape[1], device=device)
        if queries:
            unique = list(dict.fromkeys(queries.values()))
            encoded = self._model.vectors(unique, TextKind.QUERY, train=True)
            at = {query: row for row, query in enumerate(unique)}
            asked = asked.index_add(
                0, torch.tensor(list(queries), device=device), encoded[[at[query] for query in queries.values()]]
            )
        bags = [
            (i, row_of[left])
            for i, pair in enumerate(batch.pairs)
            if pair.kind is TextKind.PRODUCT
            for left in batch.lefts[i]
        ]
        if bags:
            into, rows = torch.tensor(bags, device=device).T
            asked = asked.index_add(0, into, vectors[rows])
        asked = torch.nn.functional.normalize(asked, dim=1)
        loss: Tensor = self._objective(
            centred(asked, self._mean.to(device)),
            vectors[: len(batch.products)],
            torch.from_numpy(batch.right).to(device),
            torch.from_numpy(batch.masked).to(device),
            torch.from_numpy(batch.weights).to(device),
            sides=torch.tensor([pair.kind for pair in batch.pairs], device=device),
            kinds=torch.tensor([self._kind_of.get(pair.right, -1) for pair in batch.pairs], device=device),
        )
        return loss

    def _judged(self, catalogue: Catalogue) -> Judged:
        return judge(catalogue, self._encode, self.probes, self._seen)

    def _catalogue(self) -> Catalogue:
        """Of the weights as they are; the mean and the hard negatives of the next steps are taken from it."""
        catalogue = catalogue_of(self._examples, self._encode)
        self._mean = torch.from_numpy(catalogue.mean)
        if self._options.hard_negatives:
            self._hard = self._nearest(catalogue)
        return catalogue

    def _encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        vectors: Vectors = self._model.vectors(texts, kind, train=False).cpu().numpy()
        return vectors

    def _nearest(self, catalogue: Catalogue) -> dict[str, list[str]]:
        """By query the products nearest to it that it did not lead to.

        Not by product: what is like something bought is what is bought next.
        """
        led: dict[str, set[str]] = {query: set() for query in self._queries}
        for pair in self._examples.pairs:
            if pair.kind is TextKind.QUERY:
                led[pair.lefts[0]].add(pair.right)
        found = {}
        for start in range(0, len(self._queries), _AT_ONCE):
            queries = self._queries[start : start + _AT_ONCE]
            for query, scores in zip(queries, catalogue.scores(self._encode(queries, TextKind.QUERY)), strict=True):
                best = np.argsort(-scores)[: self._options.hard_negatives + len(led[query])]
                near = [catalogue.product_ids[row] for row in best if scores[row] > UNLISTED]
                found[query] = [one for one in near if one not in led[query]][: self._options.hard_negatives]
        return found


def _objective(options: Options, kinds: Kinds | None) -> Objective:
    return Objective(
        temperature=options.temperature,
        symmetric=options.symmetric,
        kinds=options.kinds,
        centres=None if kinds is None else torch.from_numpy(kinds.centres),
    )


def _by_decay(parameters: Mapping[str, Tensor], decay: float) -> list[dict[str, Any]]:
    """Weights of maps decay; biases and normalisations don't."""
    return [
        {"params": [w for w in parameters.values() if w.ndim > 1], "weight_decay": decay},
        {"params": [w for w in parameters.values() if w.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(step: int, steps: int, warm_up: float) -> float:
    """Of the learning rate: a linear rise, then a cosine down to a tenth."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))


def _product_lefts(batch: Batch) -> list[str]:
    return [
        left
        for pair, lefts in zip(batch.pairs, batch.lefts, strict=True)
        if pair.kind is TextKind.PRODUCT
        for left in lefts
    ]
