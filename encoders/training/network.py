"""A model whose weights can change: which of them do, and its forward pass with gradients."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

from encoders.errors import ModelError
from encoders.model import device_of, tokenizer_of, transformers_model
from encoders.protocol import TextKind
from encoders.recipe import Recipe, read_architecture
from encoders.text import clean
from encoders.training.pairs import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYERED: Final = frozenset(("bert", "roberta", "xlm-roberta", "camembert"))
_TOKENS_AT_ONCE: Final = 2048  # of a forward pass, padding counted
_REMEMBERED_BYTES: Final = 512 * 1024 * 1024
_LORA_RANK: Final = 16
_LORA_DROPOUT: Final = 0.05
_LORA_TARGETS: Final = re.compile(r".*\.(query|key|value|dense|q_lin|k_lin|v_lin|out_lin|lin1|lin2)$")


class TrainableModel:
    """The network of a model folder, and what of it is trained.

    `tune`: "full" all weights; "top-N" the last N layers; "head" the last layer's last linear map and its
    normalisation; "lora" low-rank additions to every linear map (Hu et al. 2021, arXiv 2106.09685, by `peft`), merged
    before anything is saved. Of the families BERT, RoBERTa and XLM-R what the frozen layers make of a text is computed
    once and remembered, up to half a gigabyte.

    Raises ModelError where the folder can't be loaded, TrainingError where `tune` doesn't fit it.
    """

    def __init__(self, folder: Path, recipe: Recipe, tune: str, *, device: str, dropout: float, half: bool) -> None:
        self.device = device_of(device)
        self._recipe = recipe
        self._architecture = read_architecture(folder)
        if self._architecture.is_decoder:
            raise TrainingError(f"{folder} holds a decoder: only encoders can be trained")
        try:
            self._tokenizer = tokenizer_of(folder, self._recipe)
            self._model = transformers_model(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder} holds no model that can be trained: {error}") from error
        self._padding: int = getattr(self._model.config, "pad_token_id", None) or 0
        self._half = half
        self._remembered: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._remembered_bytes = 0
        self._peft: Any = None
        for module in self._model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.at_input: Callable[[Tensor], Tensor] | None = None
        """What the trained layers are given goes through it, [texts, length, d], where there is one."""
        self._frozen_layers = self._choose(tune, folder)
        if self._frozen_layers is None:
            self._model.get_input_embeddings().register_forward_hook(lambda _, __, given: self._given(given))
        _module(self._model).to(self.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Those that are trained, by name."""
        return {name: weight for name, weight in self._network.named_parameters() if weight.requires_grad}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Puts back what `parameters` had."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(weights[name])

    def merged(self) -> dict[str, Tensor]:
        """All weights by transformers' names; nothing can be trained afterwards."""
        if self._peft is not None:
            self._model = self._peft.merge_and_unload()
            self._peft = None
        return {name: tensor.detach().cpu().contiguous() for name, tensor in _module(self._model).state_dict().items()}

    def vectors(self, texts: Sequence[str], kind: TextKind, *, train: bool) -> Tensor:
        """Unit float32 vectors [n, d]. With `train` with dropout and gradients."""
        prefix = self._recipe.prefixes[kind]
        tokens = [
            encoding.ids for encoding in self._tokenizer.encode_batch_fast([prefix + clean(text) for text in texts])
        ]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        self._network.train(train)
        with nullcontext() if train else torch.inference_mode(), self._precision():
            parts = [self._pooled([tokens[i] for i in order[start:end]]) for start, end in _chunks(tokens, order)]
        unit = nn.functional.normalize(torch.cat(parts).float(), dim=1)
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return unit[back.to(self.device)]

    @property
    def _network(self) -> nn.Module:
        return cast(nn.Module, self._model if self._peft is None else self._peft)

    def _precision(self) -> AbstractContextManager[Any]:
        if not self._half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _pooled(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in tokens], device=self.device)
        longest = max(map(len, tokens))
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        if self._frozen_layers is None:
            hidden: Tensor = self._network(input_ids=self._padded(tokens), attention_mask=mask.long()).last_hidden_state
        else:
            hidden = self._upper(self._given(self._lower(tokens)), mask)
        if self._recipe.pooling == "cls":
            return hidden[:, 0]
        return (hidden * mask[:, :, None]).sum(1) / lengths[:, None]

    def _given(self, given: Tensor) -> Tensor:
        return given if self.at_input is None else self.at_input(given)

    def _upper(self, hidden: Tensor, mask: Tensor) -> Tensor:
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros(mask.shape, device=self.device, dtype=hidden.dtype).masked_fill_(~mask, -1e9)[
                :, None, None
            ]
        for layer in cast(Any, self._model).encoder.layer[self._frozen_layers :]:
            hidden = layer(hidden, bias)
        return hidden

    def _lower(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """What the frozen layers make of the texts, float32 [n, longest, d], 0 beyond a text's end."""
        keys = [tuple(ids) for ids in tokens]
        missing = [key for key in dict.fromkeys(keys) if key not in self._remembered]
        found = {key: self._remembered[key] for key in keys if key in self._remembered}
        if missing:
            hidden = self._frozen(missing)
            for key, rows in zip(missing, hidden, strict=True):
                found[key] = self._remember(key, rows[: len(key)].clone())
        longest, width = max(map(len, keys)), self._architecture.hidden_size
        together = torch.zeros(len(keys), longest, width, device=self.device)
        for i, key in enumerate(keys):
            together[i, : len(key)] = found[key]
        return together

    @torch.no_grad()
    def _frozen(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        model = cast(Any, self._model)
        training = model.training
        model.eval()
        ids = self._padded(tokens)
        mask = (
            torch.arange(ids.shape[1], device=self.device)
            < torch.tensor([len(t) for t in tokens], device=self.device)[:, None]
        )
        hidden = cast(Tensor, model.embeddings(input_ids=ids))
        bias = torch.zeros(mask.shape, device=self.device).masked_fill_(~mask, -1e9)[:, None, None]
        for layer in model.encoder.layer[: self._frozen_layers]:
            hidden = layer(hidden, bias)
        model.train(training)
        return hidden.float()

    def _remember(self, key: tuple[int, ...], rows: Tensor) -> Tensor:
        self._remembered[key] = rows
        self._remembered_bytes += rows.nbytes
        while self._remembered_bytes > _REMEMBERED_BYTES and len(self._remembered) > 1:
            self._remembered_bytes -= self._remembered.popitem(last=False)[1].nbytes
        return rows

    def _padded(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, tokens))
        return torch.tensor([[*ids, *[self._padding] * (longest - len(ids))] for ids in tokens], device=self.device)

    def _choose(self, tune: str, folder: Path) -> int | None:
        """Says what is trained; how many layers below are frozen and can be left out, None where none can."""
        for weight in _module(self._model).parameters():
            weight.requires_grad = False
        for name, weight in _module(self._model).named_parameters():
            if tune == "full" and not name.startswith("pooler."):
                weight.requires_grad = True
        layers = self._layers()
        layered = self._architecture.model_type in _LAYERED
        if tune == "full":
            return None
        if tune == "lora":
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=_LORA_RANK,
                lora_alpha=2 * _LORA_RANK,
                lora_dropout=_LORA_DROPOUT,
                target_modules=_LORA_TARGETS.pattern,
            )
            try:
                self._peft = get_peft_model(self._model, config)
            except ValueError as error:
                raise TrainingError(f"--tune lora finds nothing to add to in {folder}: {error}") from error
            return None
        if layers is None:
            raise TrainingError(
                f"{folder} is of the architecture {self._architecture.model_type!r}, whose layers aren't known: "
                "--tune full or lora trains it"
            )
        top = 1 if tune == "head" else int(tune.removeprefix("top-"))
        if top > len(layers):
            raise TrainingError(f"--tune {tune}: {folder} has {len(layers)} layers")
        trained: Iterator[nn.Parameter] = (
            _last_map(layers[-1]) if tune == "head" else (w for layer in layers[-top:] for w in layer.parameters())
        )
        for weight in trained:
            weight.requires_grad = True
        return len(layers) - top if layered else None

    def _layers(self) -> nn.ModuleList | None:
        """The stack of transformer layers: the longest list of modules."""
        lists = [module for module in _module(self._model).modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=None)


def _last_map(layer: nn.Module) -> Iterator[nn.Parameter]:
    """The last linear map of a layer, and all that comes after it."""
    names = [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    after = False
    for name, module in layer.named_modules():
        after = after or name == names[-1]
        if after and not list(module.children()):
            yield from module.parameters()


def _chunks(tokens: Sequence[Sequence[int]], order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Bounds of texts that go together, shortest first."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * len(tokens[order[end]]) > _TOKENS_AT_ONCE:
            yield start, end
            start = end


def _module(model: PreTrainedModel) -> nn.Module:
    return cast(nn.Module, model)
