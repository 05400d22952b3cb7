import json
import shutil
from pathlib import Path

import pytest

from encoders.errors import ModelError
from encoders.protocol import TextKind
from encoders.recipe import Recipe, identity, locate, read_recipe


def recipe(folder: Path) -> Recipe:
    return read_recipe(folder, query_prefix=None, product_prefix=None)


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_the_packaged_model_is_the_default() -> None:
    folder, name = locate("")
    assert name == "all-MiniLM-L6-v2"
    assert recipe(folder) == Recipe("mean", 256, False, {TextKind.QUERY: "", TextKind.PRODUCT: ""})


def test_a_plain_folder_is_pooled_by_the_mean(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"model_type": "bert", "max_position_embeddings": 128})
    assert recipe(tmp_path) == Recipe("mean", 128, False, {TextKind.QUERY: "", TextKind.PRODUCT: ""})


def test_xlm_roberta_has_fewer_positions_than_rows(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1})
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 8192, "do_lower_case": True})
    write(tmp_path / "tokenizer_config.json", {"model_max_length": 1000000000000000019884624838656})
    assert recipe(tmp_path).max_tokens == 512
    assert recipe(tmp_path).lower_case is True


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "mean", "embedding_dimension": 384}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
    ],
)
def test_pooling_is_read_from_the_models_own_file(tmp_path: Path, pooling: object, expected: str) -> None:
    write(tmp_path / "modules.json", [{"type": "a.b.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_P"}])
    write(tmp_path / "1_P" / "config.json", pooling)
    assert recipe(tmp_path).pooling == expected


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_max_tokens": True}, {"pooling_mode": ["mean", "cls"]}, {"pooling_mode": "lasttoken"}, {}]
)
def test_a_pooling_that_is_not_supported_is_refused(tmp_path: Path, pooling: object) -> None:
    write(tmp_path / "modules.json", [{"type": "a.Pooling", "path": "1_Pooling"}])
    write(tmp_path / "1_Pooling" / "config.json", pooling)
    with pytest.raises(ModelError, match=r"1_Pooling.*only one of \['cls', 'mean', 'mean_sqrt_len_tokens'\]"):
        recipe(tmp_path)


def test_a_further_module_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "modules.json", [{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "2_Dense"}])
    with pytest.raises(ModelError, match="has a Dense module"):
        recipe(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match=r"modules\.json can't be read"):
        recipe(tmp_path)


def test_prefixes_are_the_models_own_unless_given(tmp_path: Path) -> None:
    write(tmp_path / "config_sentence_transformers.json", {"prompts": {"query": "query: ", "passage": "passage: "}})
    assert recipe(tmp_path).prefixes == {TextKind.QUERY: "query: ", TextKind.PRODUCT: "passage: "}
    given = read_recipe(tmp_path, query_prefix="", product_prefix="item: ")
    assert given.prefixes == {TextKind.QUERY: "", TextKind.PRODUCT: "item: "}


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="`hf download nobody/has-this-model`"):
        locate("nobody/has-this-model")
    with pytest.raises(ModelError, match="there is no folder /no/such/folder"):
        locate("/no/such/folder")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        locate(str(tmp_path))


def test_identity_changes_with_whatever_changes_a_vector(chinese_bert: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(chinese_bert, tmp_path / name))

    same, weights, vocabulary, config = copy("same"), copy("weights"), copy("vocabulary"), copy("config")
    content = bytearray((weights / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (weights / "model.safetensors").write_bytes(content)
    (vocabulary / "tokenizer.json").write_text((vocabulary / "tokenizer.json").read_text().replace("##", "@@"))
    settings = json.loads((config / "config.json").read_text())
    write(config / "config.json", settings | {"layer_norm_eps": 0.1})
    write(same / "config.json", settings | {"_name_or_path": "elsewhere", "transformers_version": "0"})

    original = identity(chinese_bert, recipe(chinese_bert))
    assert len(original) == 16
    assert identity(same, recipe(same)) == original
    prefixed = read_recipe(chinese_bert, query_prefix="query: ", product_prefix=None)
    others = {identity(folder, recipe(folder)) for folder in (weights, vocabulary, config)}
    assert len(others | {original, identity(chinese_bert, prefixed)}) == 5
