"""Adversarial noise: what the trained layers are given, moved a little to where the loss is greater.

The fast gradient method for texts (Miyato et al. 2017, arXiv 1605.07725, equation 5): r = ε |x| g / |g|, of a text's
input x, with g the loss's gradient there; the step follows the gradients of both losses, with and without r. The input
is the word embeddings, or what the frozen layers made of a text. A step costs twice as much.
"""

from __future__ import annotations

from torch import Tensor


class Adversary:
    """Passes the inputs of a step's forward passes through, in turn; the same passes again get them disturbed."""

    def __init__(self, size: float) -> None:
        """`size` is ε."""
        self._size = size
        self._inputs: list[Tensor] = []
        self._noise: list[Tensor] | None = None

    def __call__(self, given: Tensor) -> Tensor:
        """`given` is [texts, length, d]; so is what the trained layers get instead."""
        if self._noise is not None:
            return given + self._noise.pop(0)
        if not given.requires_grad:
            given = given.detach().requires_grad_()
        given.retain_grad()
        self._inputs.append(given)
        return given

    def turn(self) -> None:
        """After the backward pass: what comes now is the same once more."""
        self._noise = [self._of(one) for one in self._inputs]

    def _of(self, given: Tensor) -> Tensor:
        gradient = given.grad
        assert gradient is not None, "turned before the backward pass"
        sizes = [one.detach().norm(dim=(1, 2), keepdim=True) for one in (given, gradient)]
        noise: Tensor = self._size * gradient * sizes[0] / sizes[1].clamp_min(1e-12)
        return noise
