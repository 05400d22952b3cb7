"""What a tuned model's folder says of where it comes from: `model_card.json` for programs, README.md for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from encoders.errors import ModelError
from encoders.training.measure import Measured, Score
from encoders.training.pairs import Fact
from encoders.training.whole_files import replace_whole

CARD: Final = "model_card.json"
_README: Final = "README.md"
_GROUPS: Final = {
    "all": "all",
    "tail": "of the long tail",
    "unseen_products": "of products never seen in training",
    "unseen_queries": "of queries never seen in training",
}


class Parent(msgspec.Struct, frozen=True):
    """The model that training began from; `identity` is its fingerprint (`encoders.recipe.identity`)."""

    name: str
    identity: str
    source: str


class Measurement(msgspec.Struct, frozen=True):
    """On customers that nothing was learned from, later than all that was learned."""

    validation: Measured
    test: Measured


class Evaluated(msgspec.Struct, frozen=True):
    """At a step of the training."""

    step: int
    loss: float
    validation: Measured


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """`data`: times of the splits (ms) and counts. `options` are those of the training, its seed among them."""

    name: str
    parent: Parent
    licence: str
    made_at: str
    data: dict[str, Fact]
    options: dict[str, str | int | float | bool]
    steps: int
    """Of the weights that were kept; 0: they are the parent's."""
    share: float = 1.0
    """Of what was learned; the rest are the parent's weights."""
    averaged: bool = False
    """Over the training's evaluations."""
    before: Measurement
    after: Measurement
    history: list[Evaluated] = []
    version: int = 1


def read_card(folder: Path) -> ModelCard | None:
    """None where the folder has none. Raises ModelError where it can't be read."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelCard)
    except msgspec.MsgspecError as error:
        raise ModelError(f"{path} can't be read: {error}") from error


def write_card(folder: Path, card: ModelCard) -> None:
    """Each file is replaced whole. Raises OSError."""
    document = msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"
    replace_whole(folder / CARD, lambda path: path.write_bytes(document))
    replace_whole(folder / _README, lambda path: path.write_text(_readable(card)))


def licence_of(folder: Path) -> str:
    """What a model folder says of its licence: in its card, else at the head of its README; else that it is unknown."""
    card = read_card(folder)
    if card is not None:
        return card.licence
    readme = folder / _README
    lines = readme.read_text(errors="replace").splitlines() if readme.is_file() else []
    if lines and lines[0].strip() == "---":
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.strip() == "---":
                break
            if name.strip() in ("license", "licence") and value.strip():
                return value.strip().strip("\"'")
    return "unknown: that of the parent model"


def _readable(card: ModelCard) -> str:
    head = f"---\nlicense: {card.licence}\nbase_model: {card.parent.name}\n---\n" if ":" not in card.licence else ""
    lines = [
        f"# {card.name}",
        "",
        f"{card.parent.name} (`{card.parent.identity}`), tuned by `afterglow train` on what a shop's customers "
        f"searched for and bought; made {card.made_at}. Licence: {card.licence}.",
        "",
        "## What it is worth",
        "",
        "By closeness of vectors alone, among all products that may be listed. On customers that nothing was learned "
        "from, later than all that was learned. Recall is hits / min(20, wanted) of 20.",
        "",
        "| | split | | n | before | after |",
        "|---|---|---|---:|---:|---:|",
        *_rows(card),
        "",
        "## Data",
        "",
        *(f"- {name}: {value}" for name, value in card.data.items()),
        "",
        "## Training",
        "",
        f"- steps: {card.steps}",
        f"- kept: {card.share:.0%} of {'the mean' if card.averaged else 'the best'} of its evaluations",
        *(f"- {name}: {value}" for name, value in card.options.items()),
    ]
    return head + "\n".join(lines) + "\n"


def _rows(card: ModelCard) -> list[str]:
    rows = []
    for split in ("validation", "test"):
        before: Measured = getattr(card.before, split)
        after: Measured = getattr(card.after, split)
        sides: tuple[tuple[str, str, Mapping[str, Score], Mapping[str, Score]], ...] = (
            ("query → product, MRR", "mrr", before.queries, after.queries),
            ("bought → bought next, recall@20", "recall", before.purchases, after.purchases),
        )
        for what, metric, scores, tuned in sides:
            rows += [
                f"| {what} | {split} | {_GROUPS[group]} | {score.probes} | {getattr(score, metric):.3f} "
                f"| {getattr(tuned[group], metric):.3f} |"
                for group, score in scores.items()
            ]
    return rows
