"""What a model learns from, and what it is measured by: plain data. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from encoders.protocol import TextKind


class TrainingError(ValueError):
    """A training that can't be done as asked: what is wrong, and what to do."""


class OtherTraining(TrainingError):
    """What is left in `folder` is of another training."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} is of a training with other options, events or another parent: remove it, or give another --out"
        )
        self.folder = folder


class Unwritable(TrainingError):
    """A disk is full, or can't be written to. The last checkpoint is as it was: the same call goes on from there."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} can't be written ({error}): make room, and the same call goes on from the last checkpoint"
        )


class NoMemory(TrainingError):
    """The device's memory did not suffice, for itself or beside what others hold. The last checkpoint is as it was."""


class Pair(NamedTuple):
    """Something that led somebody to a product."""

    kind: TextKind
    """Of `lefts`."""
    lefts: tuple[str, ...]
    """The query, cleaned and case-folded; or ids of products that the customer had bought, a sample of them."""
    right: str
    """Id of the product that was clicked or bought then."""
    user: str
    ts: int
    """ms"""
    weight: float = 1.0
    """How much it counts beside the others; above 0."""


class Probe(NamedTuple):
    """A product, or several, to be found again among all of them."""

    kind: TextKind
    lefts: tuple[str, ...]
    """As in `Pair`, but all products that the customer had bought."""
    weights: tuple[float, ...]
    """Of `lefts`, above 0: what was bought lately weighs more."""
    wanted: frozenset[str]
    """Product ids; at least one."""
    hidden: frozenset[str]
    """Product ids that are not listed: bought before."""
    user: str
    ts: int
    """ms"""


Fact: TypeAlias = str | int | float | dict[str, str]


@dataclass(frozen=True, slots=True)
class Examples:
    """Whoever is asked about in `validation` gives nothing to `pairs`, nor does whoever is in `test`; what they did is
    later than all `pairs`, and that of `test` later than that of `validation`.
    """

    products: Mapping[str, str]
    """By product id the text that is encoded: all that may be listed, or was bought."""
    pairs: Sequence[Pair]
    validation: Sequence[Probe]
    test: Sequence[Probe]
    listed: frozenset[str]
    """Ids of the products that may be listed."""
    returning: Sequence[Probe] = ()
    """What those did in the time of the validation that `pairs` are of, later than all pairs. They are asked about as
    well where weights are chosen, since the more are asked the less of the choice is chance; nothing is reported of it.
    """
    categories: Mapping[str, str] = field(default_factory=dict)
    """By product id the shop's category, of those that have one."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """What the model card says of the data: times, counts."""


class Seen:
    """What was in the pairs, and how often."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.queries: set[str] = set()
        self.products: set[str] = set()
        self.rights: Counter[str] = Counter()
        for pair in pairs:
            self.rights[pair.right] += 1
            self.products.add(pair.right)
            (self.queries if pair.kind is TextKind.QUERY else self.products).update(pair.lefts)
        self.head = _head(self.rights)
        """The products that half of all pairs lead to, the most frequent first; the others are the long tail."""


def _head(rights: Counter[str]) -> frozenset[str]:
    half, reached, head = sum(rights.values()) / 2, 0, set()
    for product_id, count in sorted(rights.items(), key=lambda item: (-item[1], item[0])):
        if reached >= half:
            break
        reached += count
        head.add(product_id)
    return frozenset(head)


def sampled(examples: Examples, most: int, seed: int) -> Examples:
    """With no more than `most` products, but for all that are in pairs or wanted; the others are drawn.

    What is measured is then how well products are found among these: before and after a training alike.
    """
    if len(examples.products) <= most:
        return examples
    kept = Seen(examples.pairs).products
    for probe in (*examples.validation, *examples.returning, *examples.test):
        kept |= probe.wanted
        if probe.kind is TextKind.PRODUCT:
            kept.update(probe.lefts)
    others = sorted(examples.products.keys() - kept)
    kept.update(random.Random(seed).sample(others, min(len(others), max(0, most - len(kept)))))
    products = {product_id: text for product_id, text in examples.products.items() if product_id in kept}
    return replace(examples, products=products, listed=examples.listed & products.keys())
