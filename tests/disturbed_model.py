"""A model that is worse than the packaged one, for tests that compare the two."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from encoders.recipe import locate


def disturbed_model(folder: Path) -> str:
    """The packaged model in a new folder, its weights disturbed until hardly anything is left of what it knew."""
    shutil.copytree(locate("")[0], folder)
    (file,) = folder.glob("*.safetensors")
    chance = torch.Generator().manual_seed(1)
    weights = load_file(file)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dim() == 2:
            weights[name] = torch.randn(tensor.shape, generator=chance) * tensor.std()
    save_file(weights, file)
    return str(folder)
