"""What of several weights is kept: means of them, and of these and the parent's. Serving costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from encoders.training.choice import gain, is_harmless, simplest
from encoders.training.learning import Learned, Learner, Report, Weights

_SHARES: Final = (0.25, 0.5, 0.75, 1.0)


class Kept(NamedTuple):
    """What was learned, or some of it."""

    share: float
    """The rest are the parent's weights; 0: nothing was better than these beyond chance."""
    averaged: bool
    """Over the training's evaluations; else it is the best of them."""


def mix(learner: Learner, learned: Sequence[Learned], report: Report) -> Kept:
    """Leaves in `learner` the weights that are kept: as near to the parent's as the validation allows.

    Between the parent's weights and tuned ones what is rare gets worse later than what is frequent gets better
    (Wortsman et al. 2022, arXiv 2109.01903), and a mean over the way there keeps less of what the last steps chased
    after (Izmailov et al. 2018, arXiv 1803.05407). Which of them is kept: of those that harm no group,
    `encoders.training.choice.simplest`.
    """
    ways = {True: average([one.mean for one in learned]), False: average([one.best for one in learned])}
    candidates = [Kept(0.0, averaged=False)]
    gains = [gain(learner.base, learner.base, learner.probes)]
    for place, share in enumerate(_SHARES):
        for averaged, weights in ways.items():
            report("mixing with the parent", place * len(ways), len(_SHARES) * len(ways))
            learner.load(_between(learner.parent, weights, share))
            judged = learner.judge()
            if is_harmless(judged, learner.base):
                candidates.append(Kept(share, averaged))
                gains.append(gain(judged, learner.base, learner.probes))
    kept = candidates[simplest(gains)]
    learner.load(_between(learner.parent, ways[kept.averaged], kept.share))
    return kept


def average(all_weights: Sequence[Weights]) -> dict[str, Tensor]:
    """Of trainings from the same weights (model soup: Wortsman et al. 2022, arXiv 2203.05482)."""
    return {name: torch.stack([weights[name] for weights in all_weights]).mean(0) for name in all_weights[0]}


def _between(parent: Weights, tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Of low-rank additions A·B only B is mixed: what is added is then linear in `share`."""
    return {
        name: weight if "lora_A" in name else parent[name] + share * (weight - parent[name])
        for name, weight in tuned.items()
    }
