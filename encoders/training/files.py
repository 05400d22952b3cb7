"""A training's checkpoint, and the folder it makes: there whole or not at all, whatever kills the process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from encoders.recipe import weight_files
from encoders.training.model_card import CARD, ModelCard, write_card
from encoders.training.whole_files import replace_whole, to_disk

_WEIGHTS = "model.safetensors"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Raises OSError."""
    try:
        replace_whole(path, lambda beside: torch.save(dict(state), beside))
    except RuntimeError as error:  # torch's own writer says so where a disk is full
        raise OSError(f"torch could not write all of it: {str(error).splitlines()[0]}") from error


def load_state(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or it is damaged. It holds tensors and plain values: nothing in it is run."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        UnpicklingError,
    ):  # cut off, or of other bytes
        return None
    return state


def save_model(parent: Path, weights: Mapping[str, Tensor], folder: Path) -> None:
    """The parent's folder with other weights, in `folder`, which is made anew. Raises OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    weights_of_parent = {path.name for path in weight_files(parent)} | {CARD, "README.md"}
    shutil.copytree(
        parent, folder, ignore=lambda _, names: [name for name in names if _is_other(name, weights_of_parent)]
    )
    try:
        save_file(dict(weights), folder / _WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # what it says where a disk is full
        raise OSError(str(error)) from error


def publish(folder: Path, out: Path, card: ModelCard) -> None:
    """The finished folder becomes `out`, whole. Raises OSError."""
    write_card(folder, card)
    for path in (*folder.rglob("*"), folder):
        to_disk(path)
    folder.rename(out)
    to_disk(out.parent)


def names_of(parent: Path) -> set[str] | None:
    """Names of the parent's weights; None where they are in another format than safetensors."""
    files = weight_files(parent)
    if any(path.suffix != ".safetensors" for path in files):
        return None
    names: set[str] = set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    return names


def _is_other(name: str, left_out: set[str]) -> bool:
    return name in left_out or name.endswith((".bin", ".safetensors", ".index.json", ".onnx", ".h5", ".msgpack"))
