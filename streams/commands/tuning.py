"""What commands that train a model take, and what they make of it."""

from __future__ import annotations

import os
import re

import click


class Tune(click.ParamType):
    """Which weights are trained, as `encoders.training.network.TrainableModel` takes it."""

    name = "head|top-N|lora|full"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if re.fullmatch(r"head|lora|full|top-[1-9]\d*", value) is None:
            self.fail(f"{value!r} is none of head, top-1, top-2 …, lora, full", param, ctx)
        return value


def use_threads(threads: int) -> None:
    """Of the model and the tokenizer on a CPU; 0: every core. To be called before a tokenizer is first used."""
    import torch

    count = threads or os.cpu_count() or 1
    os.environ["RAYON_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def half_precision(precision: str, device: str) -> bool:
    """Whether matrix products are in bfloat16: "auto" where the device has it."""
    import torch

    if precision != "auto":
        return precision == "bfloat16"
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
