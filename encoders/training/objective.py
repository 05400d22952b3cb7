"""The loss: what somebody was led to is nearer to what led them than the batch's other products are."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from encoders.protocol import TextKind

_SHARPEST: Final = math.log(100.0)  # as in CLIP (Radford et al. 2021, section 2.5)
_LOG_OF_NOTHING: Final = -4.0  # the A of Wang et al. 2019, section 4.1
_KIND_SCALE: Final = 10.0


class Objective(nn.Module):
    """The loss of a step, and what of it is learned with the weights: how sharply to choose, and what kinds are like.

    Searches and purchases choose by a temperature of their own: a purchase says less than a click.
    """

    def __init__(self, *, temperature: float, symmetric: float, kinds: float, centres: Tensor | None) -> None:
        """`centres` [k, d] are what the kinds of products are like at first; without them there is no second task,
        whose weight is `kinds`.
        """
        super().__init__()
        self.log_scales = nn.Parameter(torch.full((len(TextKind),), -math.log(temperature)))
        self.centres = None if centres is None else nn.Parameter(centres.clone())
        self._symmetric = symmetric
        self._kinds = kinds

    def forward(
        self,
        asked: Tensor,
        products: Tensor,
        right: Tensor,
        masked: Tensor,
        weights: Tensor,
        sides: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        """As `contrast`; `sides` [b] are the kinds of text that led, `kinds` [b] of product they led to, -1 unknown."""
        loss = contrast(
            asked,
            products,
            right,
            masked,
            weights,
            scales=self.log_scales.exp()[sides],
            symmetric=self._symmetric,
        )
        if self.centres is not None and bool((kinds >= 0).any()):
            logits = asked @ F.normalize(self.centres, dim=1).T * _KIND_SCALE
            losses = F.cross_entropy(logits, kinds, reduction="none", ignore_index=-1)
            loss = loss + self._kinds * (losses * weights).sum() / weights[kinds >= 0].sum()
        return loss

    def bound(self) -> None:
        """After each step: no sharper than a scale of 100, no flatter than 1."""
        with torch.no_grad():
            self.log_scales.clamp_(0.0, _SHARPEST)


def centred(vectors: Tensor, mean: Tensor) -> Tensor:
    """Unit vectors of `vectors - mean`, [n, d]: what asks when serving, of products that are stored as they are."""
    return F.normalize(vectors - mean, dim=1)


def contrast(
    asked: Tensor,
    products: Tensor,
    right: Tensor,
    masked: Tensor,
    weights: Tensor,
    *,
    scales: Tensor,
    symmetric: float = 0.0,
) -> Tensor:
    """InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748, equation 4), a mean by weight.

    `asked` [b, d] and `products` [m, d] are unit vectors, each product once, so that none is its own negative; `right`
    [b] is the row of each one's product; `masked` [b, m] says which products are no negatives of it; `weights` [b] > 0.
    `scales` [b] are 1 / temperature.

    `symmetric` weighs the reverse cross-entropy besides, -A (1 - p) with A = -4, where p is what the right product
    gets: bounded, so that pairs that were no choice pull less (Wang et al. 2019, arXiv 1908.06112, equations 5 to 8).
    """
    logits = (asked @ products.T) * scales[:, None]
    logits = logits.masked_fill(masked, -torch.inf)
    losses = F.cross_entropy(logits, right, reduction="none")
    if symmetric:
        losses = losses - symmetric * _LOG_OF_NOTHING * (1.0 - torch.exp(-losses))
    return (losses * weights).sum() / weights.sum()
