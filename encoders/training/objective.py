"""The loss: what somebody was led to is nearer to what led them than the batch's other products are."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def centred(vectors: Tensor, mean: Tensor) -> Tensor:
    """Unit vectors of `vectors - mean`, [n, d]: what is compared when serving."""
    return F.normalize(vectors - mean, dim=1)


def contrast(
    asked: Tensor,
    products: Tensor,
    right: Tensor,
    masked: Tensor,
    weights: Tensor,
    *,
    scales: Tensor,
) -> Tensor:
    """InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748, equation 4), a mean by weight.

    `asked` [b, d] and `products` [m, d] are unit vectors, each product once, so that none is its own negative; `right`
    [b] is the row of each one's product; `masked` [b, m] says which products are no negatives of it; `weights` [b] > 0.
    `scales` [b] are 1 / temperature.
    """
    logits = (asked @ products.T) * scales[:, None]
    logits = logits.masked_fill(masked, -torch.inf)
    losses = F.cross_entropy(logits, right, reduction="none")
    return (losses * weights).sum() / weights.sum()
