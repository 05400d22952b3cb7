"""What a training is asked to do. All that shapes the result is here, or in the examples."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Of a training; recorded in the model card.

    Rates are those of AdamW; `warm_up` is the share of the steps in which the rate rises, `temperature` where the
    learning of it begins, `bag` how many of what a customer had bought a step looks at. Validation is every
    `evaluate_every` steps, and training ends when `patience` of them in turn found no more of all that is asked.
    """

    tune: str = "top-3"
    steps: int = 120
    batch: int = 128
    bag: int = 4
    learning_rate: float | None = None
    """None: what is usual for `tune`."""
    warm_up: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    temperature: float = 0.1
    hard_negatives: int = 1
    random_negatives: int = 64
    balance: float = 0.0
    augment: bool = False
    adversarial: float = 0.0
    """Size of the noise (`encoders.training.adversary`), as a share of what is disturbed; 0: none."""
    symmetric: float = 0.0
    """Weight of the reverse cross-entropy (`encoders.training.objective.contrast`)."""
    kinds: float = 0.0
    """Weight of the second task, the kind of product (`encoders.training.kinds`)."""
    soup: int = 1
    """Trainings, of this seed and those after it, whose weights are averaged."""
    mix: bool = True
    """Whether as much of the parent's weights is kept as costs nothing (`encoders.training.choice`)."""
    accumulate: int = 1
    evaluate_every: int = 20
    patience: int = 3
    half: bool = False
    seed: int = 1

    @property
    def rate(self) -> float:
        """The learning rate: where few weights are trained they need a greater one to learn as much."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-3 if self.tune in ("head", "lora") else 2e-4

    def recorded(self) -> dict[str, str | int | float | bool]:
        """As a model card has them."""
        recorded: dict[str, str | int | float | bool] = msgspec.to_builtins(
            msgspec.structs.replace(self, learning_rate=self.rate)
        )
        return recorded
