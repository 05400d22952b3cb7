"""A sentence encoder, loaded: text to tokens to unit vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from encoders import packed
from encoders.errors import DeviceLost, ModelError
from encoders.padded import PaddedTransformer
from encoders.protocol import ModelDescription, TextKind
from encoders.recipe import Recipe, identity, locate, read_architecture, read_recipe, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TASK_PREFIXES = ("bert.", "roberta.")


class Network(Protocol):
    """The part of a model that runs on the device."""

    @property
    def padded(self) -> bool:
        """Whether a batch costs as much as its longest text times its number of texts."""

    @property
    def dimension(self) -> int: ...

    def pooled(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Pooled float32 vectors [n, dimension], not normalised, of token ids ordered by length."""


class Batch:
    """A batch given to the device."""

    def __init__(self, result: Tensor, done: torch.cuda.Event | None) -> None:
        self._result = result
        self._done = done

    def vectors(self) -> NDArray[np.float32]:
        """Waits for, and returns, unit float32 rows [n, dimension] in the order launched. Raises FloatingPointError
        if the model produced something that is not a number, DeviceLost."""
        if self._done is not None:
            try:
                self._done.synchronize()
            except torch.AcceleratorError as error:
                raise DeviceLost(str(error)) from error
        vectors: NDArray[np.float32] = self._result.numpy()
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the model produced a vector that is not finite")
        return vectors


class Model:
    """A loaded model. `tokenise`, `launch` and `Batch.vectors` may run in three threads, each in one at a time.

    A text's vector doesn't depend on its companions in a batch beyond float noise (cosine > .9999; the bits may
    differ, since matrix kernels choose their blocking by the size of the batch).
    """

    def __init__(self, description: ModelDescription, tokenizer: Tokenizer, network: Network, recipe: Recipe) -> None:
        self.description = description
        self.padded = network.padded
        self._tokenizer = tokenizer
        self._network = network
        self._prefixes = recipe.prefixes

    def input_text(self, text: str, kind: TextKind) -> str:
        """The text with its kind's prefix: what is tokenised, and the key of a cached vector."""
        return self._prefixes[kind] + text

    def tokenise(self, texts: list[str]) -> list[list[int]]:
        """Token ids, special tokens included, cut at the model's length limit. Lets go of the GIL."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def launch(self, texts: Sequence[Sequence[int]]) -> Batch:
        """Gives token ids, ordered by length, to the device; a GPU is not waited for. Raises DeviceLost."""
        try:
            return self._launch(texts)
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error

    @torch.inference_mode()
    def _launch(self, texts: Sequence[Sequence[int]]) -> Batch:
        unit = torch.nn.functional.normalize(self._network.pooled(texts), dim=1)
        if unit.device.type != "cuda":
            return Batch(unit, None)
        with torch.cuda.device(unit.device):
            host = torch.empty(unit.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(unit, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        return Batch(host, done)


def load(
    model: str = "",
    *,
    device: str = "auto",
    query_prefix: str | None = None,
    product_prefix: str | None = None,
) -> Model:
    """Loads a model by folder, or by hub name from the local Hugging Face cache; "" is the packaged MiniLM.

    Nothing is downloaded and none of the model's own code is run. `device` is "auto" (CUDA where there is one),
    "cpu", "cuda" or "cuda:N". A prefix of None is the model's own prompt, if it has one. BERT, RoBERTa and XLM-R
    models run packed, others padded. Raises ModelError, also where it has no vector for a text.
    """
    folder, name = locate(model)
    target = device_of(device)
    recipe = read_recipe(folder, query_prefix=query_prefix, product_prefix=product_prefix)
    try:
        network = _network(folder, recipe.pooling, target)
        tokenizer = tokenizer_of(folder, recipe)
    except torch.OutOfMemoryError as error:
        raise _no_memory(folder, target, error) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no model that can be loaded: {_first_paragraph(error)}") from error
    is_folder = bool(model) and Path(model).expanduser().is_dir()
    source = str(folder) if is_folder else model
    description = ModelDescription(
        name,
        identity(folder, recipe),
        network.dimension,
        str(target),
        source,
        query_prefix=recipe.prefixes[TextKind.QUERY],
        product_prefix=recipe.prefixes[TextKind.PRODUCT],
    )
    loaded = Model(description, tokenizer, network, recipe)
    try:
        loaded.launch(loaded.tokenise(["what it makes of this is not looked at"])).vectors()
    except torch.OutOfMemoryError as error:
        raise _no_memory(folder, target, error) from error
    except DeviceLost:
        raise
    except Exception as error:  # each architecture that isn't one of these, or has another's weights, in its own way
        raise ModelError(
            f"{folder} holds no encoder of texts, or its files are of several models ({type(error).__name__}: "
            f"{_first_paragraph(error)})"
        ) from error
    return loaded


def _no_memory(folder: Path, device: torch.device, error: torch.OutOfMemoryError) -> ModelError:
    return ModelError(
        f"no memory is left on {device} for {folder}: make room there, or set encoder.device to cpu "
        f"({_first_paragraph(error)})"
    )


def _first_paragraph(error: Exception) -> str:
    return str(error).split("\n\n")[0]


def _network(folder: Path, pooling: str, device: torch.device) -> Network:
    architecture = read_architecture(folder)
    if packed.supports(architecture):
        weights = _safetensors(folder) or transformers_model(folder).state_dict()
        return packed.PackedTransformer(weights, architecture, pooling=pooling, device=device)
    return PaddedTransformer(transformers_model(folder), pooling=pooling, device=device)


def _safetensors(folder: Path) -> dict[str, Tensor] | None:
    """The weights without transformers, whose import takes three times as long as all else; None where they are in
    an old format or under old names, which transformers knows to convert."""
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            return None
        for name, tensor in load_file(path).items():
            prefix = next((prefix for prefix in _TASK_PREFIXES if name.startswith(prefix)), "")
            weights[name.removeprefix(prefix)] = tensor
    return weights if "embeddings.LayerNorm.weight" in weights else None


def transformers_model(folder: Path) -> "PreTrainedModel":
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return cast("PreTrainedModel", model)


def device_of(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N") from error
    if target.type not in ("cpu", "cuda"):
        raise ModelError(f"device {device!r} is not supported: use auto, cpu, cuda or cuda:N")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"there is no device {device}: torch sees {torch.cuda.device_count()} CUDA devices")
    return target


def tokenizer_of(folder: Path, recipe: Recipe) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        from transformers import AutoTokenizer

        tokenizer = cast(
            Tokenizer, AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True).backend_tokenizer
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(recipe.max_tokens)
    tokenizer.encode_special_tokens = True  # "[SEP]" typed by a shopper is text, not a special token
    if recipe.lower_case:
        parts = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(parts)
    return tokenizer
