"""Packed and padded models against transformers' own float32 forward."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModel, ViTConfig, ViTModel

from encoders.errors import ModelError
from encoders.model import Model, load
from encoders.packed import PackedTransformer
from encoders.padded import PaddedTransformer
from encoders.protocol import TextKind
from encoders.recipe import locate


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def encode(model: Model, texts: list[str]) -> NDArray[np.float32]:
    """All texts in one batch."""
    tokens = model.tokenise(texts)
    order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
    vectors = np.empty((len(texts), model.description.dimension), np.float32)
    vectors[order] = model.launch([tokens[i] for i in order]).vectors()
    return vectors


def reference(folder: Path, tokens: list[list[int]], pooling: str) -> NDArray[np.float32]:
    """transformers in float32, one text at a time: no padding, no mask, none of our code."""
    network = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    with torch.inference_mode():
        for ids in tokens:
            hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
            rows.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1).numpy()


MODELS = {
    "minilm": (PackedTransformer, "mean"),
    "xlm_roberta": (PackedTransformer, "mean"),
    "chinese_bert": (PackedTransformer, "cls"),
    "distilbert": (PaddedTransformer, "mean"),
}


@pytest.fixture(params=list(MODELS))
def folder(request: pytest.FixtureRequest) -> Path:
    return locate("")[0] if request.param == "minilm" else request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", list(MODELS))
def test_vectors_are_those_of_transformers(name: str, request: pytest.FixtureRequest, texts: list[str]) -> None:
    network, pooling = MODELS[name]
    folder = locate("")[0] if name == "minilm" else request.getfixturevalue(name)
    model = load(str(folder), device="cpu")
    vectors = encode(model, texts)
    expected = reference(folder, model.tokenise(texts), pooling)

    assert type(model._network) is network
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors * expected).sum(1).min() >= 0.9999
    closest = (expected @ expected.T - np.eye(len(texts))).max()
    assert closest < 0.99, "the texts' vectors are all alike: agreeing with them means nothing"


def test_a_vector_does_not_depend_on_its_companions(folder: Path, texts: list[str]) -> None:
    model = load(str(folder), device="cpu")
    together = encode(model, texts)
    alone = np.concatenate([encode(model, [text]) for text in texts])
    assert (together * alone).sum(1).min() >= 0.9999


def test_long_texts_attend_as_short_ones_do(texts: list[str]) -> None:
    folder, _ = locate("")
    model = load(device="cpu")
    long = [" ".join(texts[:n]) for n in (8, 9, 10, 11)]
    tokens = model.tokenise(long)
    assert max(map(len, tokens)) > 64
    assert (encode(model, long) * reference(folder, tokens, "mean")).sum(1).min() >= 0.9999


def test_numbers_in_float32_where_the_cpu_has_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch, xlm_roberta: Path, texts: list[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    model = load(str(xlm_roberta), device="cpu")
    expected = reference(xlm_roberta, model.tokenise(texts), "mean")
    np.testing.assert_allclose(encode(model, texts), expected, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_vectors(folder: Path, texts: list[str]) -> None:
    on_gpu, on_cpu = load(str(folder), device="cuda"), load(str(folder), device="cpu")
    assert (encode(on_gpu, texts) * encode(on_cpu, texts)).sum(1).min() >= 0.9998
    assert on_gpu.description.identity == on_cpu.description.identity


def test_special_tokens_in_a_text_are_text(chinese_bert: Path) -> None:
    model = load(str(chinese_bert), device="cpu")
    tokens = model.tokenise(["[SEP] [PAD]"])[0]
    assert tokens.count(3) == 1  # [SEP], at the end
    assert 0 not in tokens  # [PAD]


def test_a_text_is_cut_at_the_models_limit(xlm_roberta: Path, texts: list[str]) -> None:
    model = load(str(xlm_roberta), device="cpu")
    assert [len(tokens) for tokens in model.tokenise([texts[-1]])] == [32]


def test_prefixes_make_other_vectors_and_another_identity(xlm_roberta: Path) -> None:
    plain = load(str(xlm_roberta), device="cpu")
    prefixed = load(str(xlm_roberta), device="cpu", query_prefix="query: ")
    assert plain.input_text("usb", TextKind.QUERY) == "usb"
    assert prefixed.input_text("usb", TextKind.QUERY) == "query: usb"
    assert prefixed.input_text("usb", TextKind.PRODUCT) == "usb"
    assert plain.description.identity != prefixed.description.identity


@pytest.mark.parametrize("form", ["under a task's prefix", "as a pickle"])
def test_weights_stored_otherwise_are_the_same_model(
    form: str, xlm_roberta: Path, tmp_path: Path, texts: list[str]
) -> None:
    folder = Path(shutil.copytree(xlm_roberta, tmp_path / "stored"))
    weights = load_file(folder / "model.safetensors")
    if form == "as a pickle":
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        save_file({f"roberta.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    vectors = [encode(load(str(path), device="cpu"), texts) for path in (xlm_roberta, folder)]
    np.testing.assert_array_equal(*vectors)


def test_the_description_names_model_dimension_and_device(xlm_roberta: Path) -> None:
    description = load(str(xlm_roberta), device="cpu").description
    assert (description.name, description.dimension, description.device) == ("tiny-xlm-roberta", 64, "cpu")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model that can be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "abacus"}'), "abacus"),
    ],
)
def test_a_folder_without_a_usable_model_is_refused(
    chinese_bert: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = Path(shutil.copytree(chinese_bert, tmp_path / "damaged"))
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(chinese_bert: Path, device: str) -> None:
    with pytest.raises(ModelError, match=device):
        load(str(chinese_bert), device=device)


def _narrower(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": config["hidden_size"] // 2}))


def _of_fewer_words(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**load_file(weights), name: load_file(weights)[name][:5].clone()}, weights)


def _of_pictures(folder: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=8, patch_size=4)).save_pretrained(folder)


@pytest.mark.parametrize("change", [_narrower, _of_fewer_words, _of_pictures])
def test_a_folder_whose_files_are_of_several_models_is_refused_before_anything_is_asked_of_it(
    change: Callable[[Path], None], chinese_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(chinese_bert, folder)
    change(folder)
    with pytest.raises(
        ModelError, match=r"mixed holds no (encoder of texts, or its files are of several models|model)"
    ):
        load(str(folder), device="cpu")


def test_that_no_memory_is_left_is_said_and_not_that_the_model_is_bad(
    chinese_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    for where in ("_network", "Model.launch"):
        with monkeypatch.context() as patch:
            patch.setattr(f"encoders.model.{where}", full)
            with pytest.raises(
                ModelError, match=r"no memory is left on cpu for .*: make room there, or set encoder\.device"
            ):
                load(str(chinese_bert), device="cpu")
