"""A training's measures for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from encoders.training.measure import Measured


class Journal:
    """Writes into a folder that `tensorboard --logdir` shows; nothing where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, loss: float, validation: Measured) -> None:
        if self._writer is None:
            return
        self._writer.add_scalar("loss", loss, step)
        for side, scores in (("queries", validation.queries), ("purchases", validation.purchases)):
            for group, score in scores.items():
                self._writer.add_scalar(f"{side}/{group}/recall", score.recall, step)
                self._writer.add_scalar(f"{side}/{group}/mrr", score.mrr, step)
