"""Which pairs a step learns from, and what they are told from. Pure: the same seed and step give the same batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.training.pairs import Pair, Seen


class Batch(NamedTuple):
    """One step."""

    pairs: list[Pair]
    lefts: list[tuple[str, ...]]
    """As many of each pair's lefts as are looked at in this step."""
    products: list[str]
    """Ids of what is compared: what the pairs lead to, and negatives; each once."""
    right: NDArray[np.int64]
    """[b]: rows of `products`."""
    masked: NDArray[np.bool_]
    """[b, m]: no negatives, since they are on the pair's own left side."""
    weights: NDArray[np.float32]
    """[b]"""


class Batches:
    """Draws pairs without putting any back, pass after pass."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        seen: Seen,
        *,
        size: int,
        bag: int,
        random_negatives: int,
        balance: float,
        seed: int,
    ) -> None:
        """`bag`: how many of a pair's lefts a step looks at. A pair weighs (times its product was seen)^-balance.

        `random_negatives` are drawn from the products that pairs lead to. Another, such as a new one, would never be
        what is right, and so only be pushed away from everything.
        """
        self._pairs = pairs
        self._product_ids = sorted(seen.rights)
        self._size = min(size, len(pairs))
        self._bag = bag
        self._random_negatives = random_negatives
        self._seed = seed
        weights = np.array([pair.weight * seen.rights[pair.right] ** -balance for pair in pairs])
        self._weights = (weights / weights.mean()).astype(np.float32)
        self.steps_a_pass = max(1, len(pairs) // self._size)

    def at(self, step: int, hard: Mapping[str, Sequence[str]]) -> Batch:
        """The batch of a step, counted from 0. `hard` has, by query, what is near it."""
        passed, place = divmod(step, self.steps_a_pass)
        order = np.random.default_rng((self._seed, 1, passed)).permutation(len(self._pairs))
        rows = order[place * self._size : (place + 1) * self._size]
        chance = np.random.default_rng((self._seed, 2, step))
        pairs = [self._pairs[row] for row in rows]
        lefts = [self._some(pair, chance) for pair in pairs]
        asked = [pair.lefts[0] for pair in pairs if pair.kind is TextKind.QUERY]
        negatives = [product_id for query in asked for product_id in hard.get(query, ())]
        drawn = chance.integers(0, len(self._product_ids), self._random_negatives)
        products = list(
            dict.fromkeys([*(pair.right for pair in pairs), *negatives, *(self._product_ids[row] for row in drawn)])
        )
        at = {product_id: row for row, product_id in enumerate(products)}
        masked = np.zeros((len(pairs), len(products)), np.bool_)
        for i, pair in enumerate(pairs):
            if pair.kind is TextKind.PRODUCT:
                masked[i, [at[left] for left in pair.lefts if left in at and left != pair.right]] = True
        right = np.array([at[pair.right] for pair in pairs])
        return Batch(pairs, lefts, products, right, masked, self._weights[rows])

    def _some(self, pair: Pair, chance: np.random.Generator) -> tuple[str, ...]:
        if len(pair.lefts) <= self._bag:
            return pair.lefts
        return tuple(pair.lefts[i] for i in chance.choice(len(pair.lefts), self._bag, replace=False))
