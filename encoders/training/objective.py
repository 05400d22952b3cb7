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
    symmetric: float = 0.0,
) -> Tensor:
    """InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748, equation 4), a mean by weight.

    `asked` [b, d] and `products` [m, d] are unit vectors, each product once, so that none is its own negative; `right`
    [b] is the row of each one's product; `masked` [b, m] says which products are no negatives of it; `weights` [b] > 0.
    `scales` [b] are 1 / temperature.

    With `symmetric` s > 0, (1 - s) InfoNCE + s reverse cross-entropy (Wang et al. 2019, arXiv 1908.06112, equation 6):
    a pair that the model finds absurd then pulls no harder than any other wrong one.
    """
    logits = (asked @ products.T) * scales[:, None]
    logits = logits.masked_fill(masked, -torch.inf)
    losses = F.cross_entropy(logits, right, reduction="none")
    if symmetric:
        reverse = 1.0 - torch.softmax(logits, 1).gather(1, right[:, None])[:, 0]
        losses = (1 - symmetric) * losses + symmetric * -_LOG_ZERO * reverse
    return (losses * weights).sum() / weights.sum()


_LOG_ZERO = -4.0  # what the paper takes log 0 for
