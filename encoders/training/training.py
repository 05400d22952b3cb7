"""A training: from a model folder and examples to another model folder. Killed, the same call goes on."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import torch
from torch import Tensor

from encoders import model as serving
from encoders.protocol import TextKind
from encoders.recipe import Recipe, identity, locate, read_recipe
from encoders.text import clean
from encoders.training.augmentation import Augmentation
from encoders.training.batches import Batch, Batches
from encoders.training.files import load_state, names_of, publish, save_model, save_state
from encoders.training.journal import Journal
from encoders.training.measure import UNLISTED, Catalogue, Encode, Measured, Vectors, catalogue_of, measure
from encoders.training.model_card import Evaluated, Measurement, ModelCard, Parent, licence_of
from encoders.training.network import TrainableModel
from encoders.training.objective import centred, contrast
from encoders.training.pairs import Examples, NoMemory, OtherTraining, Seen, TrainingError, Unwritable, sampled

FEWEST_PAIRS: Final = 200
FEWEST_PROBES: Final = 20
MOST_PRODUCTS: Final = 20_000
"""Among which is measured, and negatives are drawn: each evaluation encodes them all."""

_SCALE_RATE: Final = 0.05  # of learning the temperature, each kind's own
_FLOOR: Final = 0.01  # added to both sides of a ratio: of next to nothing twice as much is no more than noise
_AT_ONCE: Final = 1024  # queries whose nearest products are looked for
_SHARES: Final = (0.75, 0.5)  # of what was learned, where weights are mixed with the parent's
_SHARPEST: Final = math.log(100.0)  # as in CLIP (Radford et al. 2021, section 2.5)

Report: TypeAlias = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is, and of how much."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Of a training. All that shapes the result is here, or in the examples.

    Rates are those of AdamW; `warm_up` is the share of the steps in which the rate rises, `temperature` where the
    learning of it begins, `bag` how many of what a customer had bought a step looks at. Validation is every
    `evaluate_every` steps, and training ends when `patience` of them in turn were no better.
    """

    tune: str = "top-3"
    steps: int = 120
    batch: int = 128
    bag: int = 4
    learning_rate: float = 2e-4
    warm_up: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    temperature: float = 0.1
    hard_negatives: int = 1
    random_negatives: int = 64
    balance: float = 0.0
    augment: bool = False
    accumulate: int = 1
    evaluate_every: int = 20
    patience: int = 3
    soup: bool = True
    half: bool = False
    seed: int = 1


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    identity: str
    parent: Parent
    steps: int
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
    tensorboard: Path | None = None,
) -> TrainingResult:
    """Trains `parent` (a folder, a hub name in the local cache, or "" for the packaged MiniLM) into the folder `out`.

    The weights of the best validation are kept. `out` must not exist; it appears whole, or not at all. What a killed
    training had done up to its last evaluation is in `out` + ".partial", and the same call goes on from there: same
    options, examples and parent give the same weights as without the kill, up to float noise.

    Raises TrainingError: too little to learn from or to be measured by, a loss that is no number, another training's
    remains, no memory on the device, a full disk, an architecture that isn't an encoder; ModelError.
    """
    _check(examples, out)
    examples = sampled(examples, MOST_PRODUCTS, options.seed)
    began = time.monotonic()
    folder, name = locate(parent)
    recipe = read_recipe(folder, query_prefix=query_prefix, product_prefix=product_prefix)
    from_ = Parent(name, identity(folder, recipe), parent)
    seen = Seen(examples.pairs)
    partial = out.with_name(f"{out.name}.partial")
    fingerprint = _fingerprint(examples, from_, options)
    state = _state_of(partial, fingerprint)
    report("measuring the model as it is", 0, 1)
    before = _measured(folder, recipe, examples, seen, device)
    with _writing(partial):
        partial.mkdir(parents=True, exist_ok=True)
    try:
        run = _Run(examples, seen, folder, recipe, options, device, companions or {})
        with Journal(tensorboard) as journal:
            kept, history = run.learn(state, partial / "checkpoint.pt", fingerprint, report, journal)
    except torch.OutOfMemoryError as error:
        raise NoMemory(
            f"no memory is left on {device}: a smaller --batch needs less, and so does --tune top-1 "
            f"({str(error).splitlines()[0]})"
        ) from error
    finally:
        with suppress(OSError):  # where nothing is kept, nothing is left
            partial.rmdir()
    made = partial / "model"
    names = names_of(folder)
    weights = {key: value for key, value in run.weights().items() if names is None or _is_among(key, names)}
    with _writing(made):
        save_model(folder, weights, made)
    report("measuring the tuned model", 0, 1)
    after = _measured(made, recipe, examples, seen, device)
    card = ModelCard(
        name=out.name,
        parent=from_,
        licence=licence_of(folder),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        data=dict(examples.facts),
        options=msgspec.to_builtins(options),
        steps=kept,
        before=before,
        after=after,
        history=history,
    )
    with _writing(out):
        publish(made, out, card)
    (partial / "checkpoint.pt").unlink(missing_ok=True)
    partial.rmdir()
    return TrainingResult(
        folder=str(out),
        identity=identity(out, recipe),
        parent=from_,
        steps=kept,
        seconds=time.monotonic() - began,
        before=before,
        after=after,
    )


class _Run:
    """The weights on their way."""

    def __init__(
        self,
        examples: Examples,
        seen: Seen,
        folder: Path,
        recipe: Recipe,
        options: Options,
        device: str,
        companions: Mapping[str, Sequence[str]],
    ) -> None:
        torch.manual_seed(options.seed)
        self._examples = examples
        self._seen = seen
        self._options = options
        self._model = TrainableModel(
            folder, recipe, options.tune, device=device, dropout=options.dropout, half=options.half
        )
        self._parameters = self._model.parameters()
        self._scale = torch.nn.Parameter(
            torch.full((len(TextKind),), -math.log(options.temperature), device=self._model.device)
        )
        self._optimiser = torch.optim.AdamW(
            [
                *_by_decay(self._parameters, options.weight_decay),
                {"params": [self._scale], "weight_decay": 0.0, "relative": _SCALE_RATE / options.learning_rate},
            ]
        )
        self._batches = Batches(
            examples.pairs,
            seen,
            sorted(examples.listed & examples.products.keys()),
            size=options.batch,
            bag=options.bag,
            random_negatives=options.random_negatives,
            balance=options.balance,
            seed=options.seed,
        )
        self._augmentation = Augmentation(companions) if options.augment else None
        self._mean = torch.zeros(1)
        self._hard: dict[str, list[str]] = {}
        self._queries = sorted(seen.queries)

    def weights(self) -> dict[str, Tensor]:
        return self._model.merged()

    def learn(
        self, state: dict[str, Any] | None, path: Path, fingerprint: str, report: Report, journal: Journal
    ) -> tuple[int, list[Evaluated]]:
        """Ends with the best weights in the model; returns their step, and what was seen on the way."""
        options = self._options
        history: list[Evaluated] = []
        step = best_step = 0
        original = best = self._copied()
        if state is not None:
            self._model.load(state["weights"])
            self._scale.data.copy_(state["scale"])
            self._optimiser.load_state_dict(state["optimiser"])
            step, best_step, best = state["step"], state["best_step"], state["best"]
            history = msgspec.json.decode(state["history"], type=list[Evaluated])
        found = self._evaluate()
        if not history:
            history.append(Evaluated(0, 0.0, found))
        losses: list[float] = []
        while step < options.steps and step - best_step < options.patience * options.evaluate_every:
            worth = max(_worth(one.validation, history[0].validation) for one in history)
            last = _worth(history[-1].validation, history[0].validation)
            report(
                f"training: on the validation {last:.3f} times as good as before, {worth:.3f} at best",
                step,
                options.steps,
            )
            losses.append(self._step(step))
            step += 1
            if step % options.evaluate_every and step < options.steps:
                continue
            validation = self._evaluate()
            loss = float(np.mean(losses))
            losses = []
            if _worth(validation, history[0].validation) > worth:
                best_step, best = step, self._copied()
            history.append(Evaluated(step, loss, validation))
            journal.write(step, loss, validation)
            with _writing(path):
                save_state(
                    path,
                    {
                        "fingerprint": fingerprint,
                        "step": step,
                        "weights": self._copied(),
                        "scale": self._scale.detach().cpu().clone(),
                        "optimiser": self._optimiser.state_dict(),
                        "best_step": best_step,
                        "best": best,
                        "history": msgspec.json.encode(history),
                    },
                )
        self._model.load(best)
        if options.soup and best_step:
            self._mix(
                original,
                best,
                max(_worth(one.validation, history[0].validation) for one in history),
                history[0].validation,
                report,
            )
        return best_step, history

    def _mix(
        self, original: Mapping[str, Tensor], tuned: Mapping[str, Tensor], worth: float, base: Measured, report: Report
    ) -> None:
        """Weights between those it began with and the tuned ones, where the validation is best (Wortsman et al. 2022,
        arXiv 2109.01903): what the parent knew of rare products is kept, and serving costs nothing.
        """
        best = tuned
        for part, share in enumerate(_SHARES):
            report("mixing with the parent", part, len(_SHARES))
            self._model.load(mixed := {name: _between(name, original[name], tuned[name], share) for name in tuned})
            found = _worth(self._evaluate(), base)
            if found > worth:
                worth, best = found, mixed
        self._model.load(best)

    def _step(self, step: int) -> float:
        options = self._options
        torch.manual_seed(options.seed * 1_000_003 + step)  # dropout: the same again after a kill
        rate = options.learning_rate * _schedule(step, options.steps, options.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group.get("relative", 1.0)
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(options.accumulate):
            batch = self._batches.at(step * options.accumulate + part, self._hard)
            loss = self._loss(batch, np.random.default_rng((options.seed, 3, step, part)))
            if not math.isfinite(value := float(loss.detach())):
                raise TrainingError(
                    f"the loss is {value} at step {step + 1}: a smaller --learning-rate, or another model; "
                    "nothing is written, and the last checkpoint is as it was"
                )
            (loss / options.accumulate).backward()  # type: ignore[no-untyped-call]
            total += value / options.accumulate
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimiser.step()
        with torch.no_grad():
            self._scale.clamp_(0.0, _SHARPEST)
        return total

    def _loss(self, batch: Batch, chance: np.random.Generator) -> Tensor:
        device = self._model.device
        products = list(dict.fromkeys([*batch.products, *_product_lefts(batch)]))
        row_of = {product_id: row for row, product_id in enumerate(products)}
        texts = [self._examples.products[product_id] for product_id in products]
        vectors = self._model.vectors(texts, TextKind.PRODUCT, train=True)
        asked_rows = [i for i, pair in enumerate(batch.pairs) if pair.kind is TextKind.QUERY]
        asked = torch.zeros(len(batch.pairs), vectors.shape[1], device=device)
        if asked_rows:
            queries = [batch.lefts[i][0] for i in asked_rows]
            if self._augmentation is not None:
                rights = [batch.pairs[i].right for i in asked_rows]
                queries = [
                    self._augmentation.of(query, right, chance) for query, right in zip(queries, rights, strict=True)
                ]
            unique = list(dict.fromkeys(queries))
            encoded = self._model.vectors(unique, TextKind.QUERY, train=True)
            at = {query: row for row, query in enumerate(unique)}
            asked = asked.index_add(
                0, torch.tensor(asked_rows, device=device), encoded[[at[query] for query in queries]]
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
        mean = self._mean.to(device)
        return contrast(
            centred(asked, mean),
            centred(vectors[: len(batch.products)], mean),
            torch.from_numpy(batch.right).to(device),
            torch.from_numpy(batch.masked).to(device),
            torch.from_numpy(batch.weights).to(device),
            scales=self._scale.exp()[torch.tensor([pair.kind for pair in batch.pairs], device=device)],
        )

    def _evaluate(self) -> Measured:
        """On the validation; and what the next steps compare with is made anew: the mean, and hard negatives."""
        catalogue = catalogue_of(self._examples, self._encode)
        self._mean = torch.from_numpy(catalogue.mean)
        if self._options.hard_negatives:
            self._hard = self._nearest(catalogue)
        return measure(catalogue, self._encode, self._examples.validation, self._seen)

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

    def _copied(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().clone() for name, weight in self._parameters.items()}


def _check(examples: Examples, out: Path) -> None:
    if out.exists():
        raise TrainingError(f"{out} exists: give --out the name of a folder that doesn't")
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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(path, error) from error


def _state_of(partial: Path, fingerprint: str) -> dict[str, Any] | None:
    path = partial / "checkpoint.pt"
    state = load_state(path)
    if state is not None and state["fingerprint"] != fingerprint:
        raise OtherTraining(partial)
    return state


def _fingerprint(examples: Examples, parent: Parent, options: Options) -> str:
    digest = hashlib.sha256(msgspec.json.encode([parent, options]))
    for part in (sorted(examples.products.items()), examples.pairs):
        digest.update(msgspec.msgpack.encode(part))
    digest.update(str((len(examples.validation), len(examples.test))).encode())
    return digest.hexdigest()


def _measured(folder: Path, recipe: Recipe, examples: Examples, seen: Seen, device: str) -> Measurement:
    """By the model as it is served."""
    encode = _served(folder, recipe, device)
    catalogue = catalogue_of(examples, encode)
    return Measurement(
        measure(catalogue, encode, examples.validation, seen), measure(catalogue, encode, examples.test, seen)
    )


def _served(folder: Path, recipe: Recipe, device: str) -> Encode:
    model = serving.load(
        str(folder),
        device=device,
        query_prefix=recipe.prefixes[TextKind.QUERY],
        product_prefix=recipe.prefixes[TextKind.PRODUCT],
    )

    def encode(texts: Sequence[str], kind: TextKind) -> Vectors:
        tokens = model.tokenise([model.input_text(clean(text), kind) for text in texts])
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.empty((len(tokens), model.description.dimension), np.float32)
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            vectors[rows] = model.launch([tokens[i] for i in rows]).vectors()
        return vectors

    return encode


def _worth(measured: Measured, base: Measured) -> float:
    """How many times as good: the mean over kinds, and over all that was wanted and its long tail. What only sells
    more of what sells anyway is worth no more than half of what it says.
    """
    return float(
        np.mean(
            [(now + _FLOOR) / (before + _FLOOR) for now, before in zip(measured.figures(), base.figures(), strict=True)]
        )
    )


def _between(name: str, original: Tensor, tuned: Tensor, share: float) -> Tensor:
    """Of low-rank additions A·B only B is mixed: what is added is then linear in `share`."""
    return tuned if "lora_A" in name else original + share * (tuned - original)


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


def _is_among(name: str, names: set[str]) -> bool:
    return any(other == name or other.endswith(f".{name}") for other in names)
