"""How well a model's vectors alone find what was clicked or bought next. Pure.

The ranking is that of a search by text, and of one profile vector: unit(Σ w v) of the left side's vectors, centred by
the catalogue's mean, and the products by the cosine of their vectors, which are stored as they are. No words, clicks,
popularity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.training.pairs import Examples, Probe, Seen

Vectors: TypeAlias = NDArray[np.float32]
Encode: TypeAlias = Callable[[Sequence[str], TextKind], Vectors]
"""Unit float32 vectors [n, d] of texts of one kind."""

DEPTH: Final = 20
"""Of the lists whose recall is taken."""

UNLISTED: Final = -2.0
"""The score of what may not be listed: below every cosine."""

_SHRINKAGE: Final = 16  # as the catalogue's mean is taken when serving: Σ v / (n + 16)
_AT_ONCE: Final = 256


class Score(msgspec.Struct, frozen=True):
    """Means over the probes that have something of a group among what is wanted."""

    probes: int
    recall: float
    """At 20: hits / min(20, wanted)."""
    mrr: float
    """Of the first that is wanted, however far down."""


class Measured(msgspec.Struct, frozen=True):
    """By kind of left side; None where there was nothing to ask.

    Groups: "all"; "tail", products outside those that half of the training's pairs lead to; "unseen_products", in no
    pair of the training; "unseen_queries".
    """

    queries: dict[str, Score] = {}
    purchases: dict[str, Score] = {}


class Found(NamedTuple):
    """What was found for the probes that have something of a group among what is wanted."""

    probes: NDArray[np.int64]
    """Rows of all probes."""
    recall: NDArray[np.float64]
    mrr: NDArray[np.float64]


class Figure(NamedTuple):
    """By what a kind of left side is judged, in a group."""

    probes: NDArray[np.int64]
    values: NDArray[np.float64]


class Judged(NamedTuple):
    """By group, as in `Measured`, and probe."""

    queries: dict[str, Found]
    purchases: dict[str, Found]

    def measured(self) -> Measured:
        return Measured(_scores(self.queries), _scores(self.purchases))

    def figures(self) -> list[Figure]:
        """MRR of queries, then recall of purchases, of each group there is."""
        return [
            *(Figure(found.probes, found.mrr) for found in self.queries.values()),
            *(Figure(found.probes, found.recall) for found in self.purchases.values()),
        ]

    def overall(self) -> list[Figure]:
        """Those of the group "all"."""
        found = (self.queries.get("all"), self.purchases.get("all"))
        return Judged(*({} if one is None else {"all": one} for one in found)).figures()


class Catalogue:
    """The products' vectors, and what is needed to ask them."""

    def __init__(self, product_ids: Sequence[str], vectors: Vectors, listed: frozenset[str]) -> None:
        """`vectors` are unit, [n, d], parallel to `product_ids`."""
        self.product_ids = product_ids
        self.rows = {product_id: row for row, product_id in enumerate(product_ids)}
        self.vectors = vectors
        self.mean = mean_of(vectors)
        self.listed = np.array([product_id in listed for product_id in product_ids])

    def scores(self, asked: Vectors) -> Vectors:
        """Cosines [m, n] to unit vectors [m, d] once these are centred; `UNLISTED` for what may not be listed."""
        scores: Vectors = centre(asked, self.mean) @ self.vectors.T
        scores[:, ~self.listed] = UNLISTED
        return scores


def mean_of(vectors: Vectors) -> Vectors:
    """The catalogue's mean, float32 [d]."""
    mean: Vectors = (vectors.sum(0, dtype=np.float64) / (len(vectors) + _SHRINKAGE)).astype(np.float32)
    return mean


def centre(vectors: Vectors, mean: Vectors) -> Vectors:
    """Unit vectors of `vectors - mean`, float32 [n, d]."""
    moved: Vectors = vectors - mean
    moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
    return moved


def catalogue_of(examples: Examples, encode: Encode) -> Catalogue:
    product_ids = sorted(examples.products)
    texts = [examples.products[product_id] for product_id in product_ids]
    return Catalogue(product_ids, encode(texts, TextKind.PRODUCT), examples.listed)


def measure(catalogue: Catalogue, encode: Encode, probes: Sequence[Probe], seen: Seen) -> Measured:
    """Of all probes. A probe of purchases none of which is known by the catalogue finds nothing."""
    return judge(catalogue, encode, probes, seen).measured()


def judge(catalogue: Catalogue, encode: Encode, probes: Sequence[Probe], seen: Seen) -> Judged:
    """As `measure`, probe by probe. The same probes have the same groups, whatever the vectors."""
    rows = {kind: [row for row, probe in enumerate(probes) if probe.kind is kind] for kind in TextKind}
    return Judged(
        queries=_judge(catalogue, encode, probes, rows[TextKind.QUERY], seen),
        purchases=_judge(catalogue, encode, probes, rows[TextKind.PRODUCT], seen),
    )


def _judge(
    catalogue: Catalogue, encode: Encode, probes: Sequence[Probe], rows: Sequence[int], seen: Seen
) -> dict[str, Found]:
    judged: dict[str, list[tuple[int, float, float]]] = {}
    queries = sorted({probes[row].lefts[0] for row in rows if probes[row].kind is TextKind.QUERY})
    vectors = dict(zip(queries, encode(queries, TextKind.QUERY), strict=True)) if queries else {}
    for start in range(0, len(rows), _AT_ONCE):
        chunk = rows[start : start + _AT_ONCE]
        asked = [
            vectors[probe.lefts[0]] if probe.kind is TextKind.QUERY else _profile(catalogue, probe)
            for probe in (probes[row] for row in chunk)
        ]
        for row, scores in zip(chunk, catalogue.scores(np.stack(asked)), strict=True):
            probe = probes[row]
            scores[[catalogue.rows[product_id] for product_id in probe.hidden if product_id in catalogue.rows]] = (
                UNLISTED
            )
            for group, wanted in _groups(probe, seen).items():
                places = [catalogue.rows[product_id] for product_id in wanted if product_id in catalogue.rows]
                judged.setdefault(group, []).append((row, *_judged(scores, places)))
    return {
        group: Found(np.array([row for row, *_ in all_]), *np.array([values for _, *values in all_]).T)
        for group, all_ in judged.items()
    }


def _scores(found: Mapping[str, Found]) -> dict[str, Score]:
    return {
        group: Score(len(one.probes), float(one.recall.mean()), float(one.mrr.mean())) for group, one in found.items()
    }


def _profile(catalogue: Catalogue, probe: Probe) -> Vectors:
    known = [
        (catalogue.rows[left], w) for left, w in zip(probe.lefts, probe.weights, strict=True) if left in catalogue.rows
    ]
    total: Vectors = np.zeros(catalogue.vectors.shape[1], np.float32)
    for row, weight in known:
        total += weight * catalogue.vectors[row]
    total /= max(float(np.linalg.norm(total)), 1e-9)
    return total


def _groups(probe: Probe, seen: Seen) -> dict[str, frozenset[str]]:
    groups = {"all": probe.wanted, "tail": probe.wanted - seen.head, "unseen_products": probe.wanted - seen.products}
    if probe.kind is TextKind.QUERY and probe.lefts[0] not in seen.queries:
        groups["unseen_queries"] = probe.wanted
    return {group: wanted for group, wanted in groups.items() if wanted}


def _judged(scores: Vectors, wanted: Sequence[int]) -> tuple[float, float]:
    """Recall at 20 and reciprocal rank; a tie is lost."""
    ranks = [int((scores >= scores[row]).sum()) for row in wanted if scores[row] > UNLISTED]
    hits = sum(rank <= DEPTH for rank in ranks)
    return hits / max(1, min(DEPTH, len(wanted))), 1.0 / min(ranks) if ranks else 0.0
