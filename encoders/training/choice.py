"""Which weights are kept: those that the validation finds best, and of those that it can't tell apart the ones nearest
to the parent's. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoders.training.measure import Figure, Judged
from encoders.training.pairs import Probe

FEWEST_PROBES: Final = 20
"""Fewer say nothing of a group."""

_CHANCE: Final = 1.96  # standard errors, of a normal distribution's 95 %
_FLOOR: Final = 0.01  # added to both sides of a ratio: of next to nothing twice as much is no more than noise


def worth(judged: Judged, base: Judged, probes: Sequence[Probe]) -> NDArray[np.float64]:
    """How many times as good as `base`, as parts by customer, whose sum it is.

    The mean over kinds, and over all that was wanted, the long tail, what was never seen in training and queries that
    weren't: what only sells more of what sells anyway is worth no more than its share. Groups of too few probes don't
    count.
    """
    pairs = list(zip(judged.figures(), base.figures(), strict=True))
    return _parts([(now, before) for now, before in pairs if len(now.probes) >= FEWEST_PROBES] or pairs, probes)


def gain(judged: Judged, base: Judged, probes: Sequence[Probe]) -> NDArray[np.float64]:
    """How many times as good as `base` for all that was asked, the mean over kinds, as parts by customer likewise.

    By this it is told whether there is more to learn, and how much of what was learned is kept. Not by `worth`, whose
    rare groups are few: by chance they are the worse in turn for what the next steps mend, and its errors are so great
    that next to nothing would be as good as all.
    """
    return _parts(list(zip(judged.overall(), base.overall(), strict=True)), probes)


def is_harmless(judged: Judged, base: Judged) -> bool:
    """Whether no group of enough probes finds less than by `base`.

    What is worth more in sum can be worth less in the long tail: by that even what is worth most is turned down.
    """
    return all(
        now.values.mean() >= before.values.mean()
        for now, before in zip(judged.figures(), base.figures(), strict=True)
        if len(now.probes) >= FEWEST_PROBES
    )


def simplest(gains: Sequence[NDArray[np.float64]]) -> int:
    """The first that the best isn't better than by more than chance: 1.96 standard errors of the difference.

    The rule of Breiman et al. (1984, Classification and Regression Trees, section 3.4.3), the simplest first, with the
    error of the paired difference by customer, and as much of it as a comparison of two models takes for chance.
    """
    best = max(gains, key=np.sum)
    return next(row for row, one in enumerate(gains) if _is_as_good(one, best))


def _is_as_good(one: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    less = best - one
    error = np.sqrt(len(less) * less.var(ddof=1)) if len(less) > 1 else 0.0
    return bool(less.sum() <= _CHANCE * error)


def _customer(probe: Probe) -> str:
    """A label's query stands for one."""
    return probe.user or f"\0{probe.lefts[0]}"


def _parts(pairs: Sequence[tuple[Figure, Figure]], probes: Sequence[Probe]) -> NDArray[np.float64]:
    users = {user: row for row, user in enumerate(dict.fromkeys(_customer(probe) for probe in probes))}
    of = np.array([users[_customer(probe)] for probe in probes])
    parts = np.zeros(len(users))
    for now, before in pairs:
        ratios = (now.values + _FLOOR) / (before.values.mean() + _FLOOR)
        parts += np.bincount(of[now.probes], ratios / len(ratios), len(users)) / len(pairs)
    return parts
