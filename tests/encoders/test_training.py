"""Training small models with random weights: what is trained, what comes out, and what happens when it can't."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import T5Config, T5Model

from encoders import model as serving
from encoders.errors import ModelError
from encoders.protocol import TextKind
from encoders.recipe import read_recipe
from encoders.text import clean
from encoders.training import training
from encoders.training.files import load_state
from encoders.training.model_card import read_card
from encoders.training.network import TrainableModel
from encoders.training.pairs import Examples, NoMemory, OtherTraining, Pair, Probe, TrainingError, Unwritable
from encoders.training.training import Options, TrainingResult, train

WORDS = ("wireless", "headphones", "cable", "usb", "akku", "casque", "audio", "seven", "nine", "typed")
QUICK = Options(
    tune="full", steps=24, batch=16, learning_rate=2e-3, random_negatives=0, evaluate_every=8, dropout=0.1, patience=9
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def examples(pairs: int = 240) -> Examples:
    """A shop where a query is another language's word for its product: nothing that letters would tell."""
    products = {f"p{i}": f"{word} {WORDS[(i + 3) % 10]}" for i, word in enumerate(WORDS)}
    asked = {f"p{i}": WORDS[(i + 5) % 10] + " one" for i in range(10)}

    def probe(i: int) -> Probe:
        return Probe(TextKind.QUERY, (asked[f"p{i % 10}"],), (1.0,), frozenset({f"p{i % 10}"}), frozenset(), f"v{i}", 9)

    return Examples(
        products=products,
        pairs=[Pair(TextKind.QUERY, (asked[f"p{i % 10}"],), f"p{i % 10}", f"u{i}", i) for i in range(pairs)],
        validation=[probe(i) for i in range(20)],
        test=[probe(i) for i in range(20, 40)],
        listed=frozenset(products),
        facts={"until_ms": 10},
    )


def trained(folder: Path, out: Path, options: Options = QUICK, of: Examples | None = None) -> TrainingResult:
    return train(of or examples(), str(folder), out, options, device="cpu")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(params=["chinese_bert", "xlm_roberta", "distilbert"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_what_led_to_a_product_is_nearer_to_it_afterwards(folder: Path, tmp_path: Path) -> None:
    result = trained(folder, tmp_path / "tuned")
    assert result.after.validation.queries["all"].mrr > result.before.validation.queries["all"].mrr + 0.1
    model = serving.load(result.folder, device="cpu")
    assert model.description.identity == result.identity != result.parent.identity
    assert list(tmp_path.iterdir()) == [tmp_path / "tuned"]

    card = read_card(tmp_path / "tuned")
    assert card is not None
    assert (card.name, card.parent.name, card.parent.identity) == ("tuned", folder.name, result.parent.identity)
    assert card.before == result.before
    assert card.after == result.after
    assert card.data == {"until_ms": 10}
    assert card.options["seed"] == 1
    assert card.history[0].step == 0
    assert max(card.history, key=lambda one: sum(one.validation.figures())).step == card.steps
    readme = (tmp_path / "tuned" / "README.md").read_text()
    assert "query → product, MRR | validation | all | 20 |" in readme


@pytest.mark.parametrize(
    ("tune", "changed"),
    [
        ("head", {"encoder.layer.1.output"}),
        ("top-1", {"encoder.layer.1.attention", "encoder.layer.1.intermediate", "encoder.layer.1.output"}),
        ("full", {"embeddings", "encoder.layer.0", "encoder.layer.1"}),
        ("lora", {"encoder.layer.0", "encoder.layer.1"}),
    ],
)
def test_only_what_is_to_be_tuned_changes(tune: str, changed: set[str], chinese_bert: Path, tmp_path: Path) -> None:
    trained(chinese_bert, tmp_path / "tuned", msgspec.structs.replace(QUICK, tune=tune, learning_rate=1e-2))
    before, after = weights_of(chinese_bert), weights_of(tmp_path / "tuned")
    assert before.keys() == after.keys()
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert {prefix for prefix in changed if any(name.startswith(prefix) for name in differing)} == changed
    assert all(name.startswith(tuple(changed)) for name in differing)


@pytest.mark.parametrize("tune", ["full", "top-1", "top-2", "head", "lora"])
def test_before_any_step_vectors_are_those_that_are_served(tune: str, folder: Path, texts: list[str]) -> None:
    recipe = read_recipe(folder, query_prefix="query: ", product_prefix=None)
    model = TrainableModel(folder, recipe, tune, device="cpu", dropout=0.1, half=False)
    served = serving.load(str(folder), device="cpu", query_prefix="query: ")
    for kind in TextKind:
        tokens = served.tokenise([served.input_text(clean(text), kind) for text in texts])
        expected = np.concatenate([served.launch([ids]).vectors() for ids in tokens])
        for _ in range(2):  # the second time what frozen layers made is remembered
            vectors = model.vectors(texts, kind, train=False).numpy()
            assert (vectors * expected).sum(1).min() > 0.9999


def test_a_training_that_is_killed_goes_on_and_ends_the_same(chinese_bert: Path, tmp_path: Path) -> None:
    options = msgspec.structs.replace(QUICK, tune="top-1", steps=40, evaluate_every=4)
    whole = trained(chinese_bert, tmp_path / "whole", options)
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import msgspec, torch; from pathlib import Path\n"
        "from test_training import QUICK, trained\n"
        "torch.set_num_threads(1)\n"
        "options = msgspec.structs.replace(QUICK, tune='top-1', steps=40, evaluate_every=4)\n"
        "trained(Path(sys.argv[1]), Path(sys.argv[2]), options)\n"
    )
    out = tmp_path / "killed"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    killed = subprocess.Popen([sys.executable, "-c", program, str(chinese_bert), str(out), *paths])
    checkpoint = tmp_path / "killed.partial" / "checkpoint.pt"
    while killed.poll() is None and not checkpoint.is_file():
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not out.exists()
    state = load_state(checkpoint)
    assert state is not None
    assert 0 < state["step"] < 40

    went_on = trained(chinese_bert, out, options)
    assert went_on.steps == whole.steps
    for name, weight in weights_of(out).items():
        torch.testing.assert_close(weight, weights_of(tmp_path / "whole")[name], atol=1e-5, rtol=1e-4)
    assert not (tmp_path / "killed.partial").exists()


def test_the_remains_of_another_training_are_left_alone(chinese_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_model", _full_disk)
        with pytest.raises(Unwritable, match=r"can't be written \(.*No space left on device\): make room"):
            trained(chinese_bert, out)
    assert not out.exists()
    with pytest.raises(OtherTraining, match=r"tuned\.partial is of a training with other options"):
        trained(chinese_bert, out, msgspec.structs.replace(QUICK, seed=2))
    trained(chinese_bert, out)  # the disk has room again: it goes on


def test_a_full_disk_leaves_the_last_checkpoint(chinese_bert: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "tuned", []
    with pytest.MonkeyPatch.context() as patch:
        saved = training.save_state
        patch.setattr(training, "save_state", lambda *a: (_full_disk() if told else None, told.append(1), saved(*a)))
        with pytest.raises(Unwritable, match=r"can't be written \(.*No space left on device\): make room"):
            trained(chinese_bert, out)
    assert [path.name for path in (tmp_path / "tuned.partial").iterdir()] == ["checkpoint.pt"]
    state = load_state(tmp_path / "tuned.partial" / "checkpoint.pt")
    assert state is not None
    assert state["step"] == 8


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_is_too_large_for_its_disk_is_not_left_behind(chinese_bert: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from encoders.training.files import save_model, save_state\n"
        "path, parent = map(Path, sys.argv[1:])\n"
        "save_state(path, {'step': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "weights = {'weights': torch.zeros(100_000)}\n"
        "model = path.with_name('model')\n"
        "for save in (lambda: save_state(path, weights), lambda: save_model(parent, weights, model)):\n"
        "    try: save()\n"
        "    except OSError as error: print(error)\n"
    )
    path = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-c", program, str(path), str(chinese_bert)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    of_state, of_model = done.stdout.splitlines()
    assert of_state.startswith("torch could not write all of it: ")
    assert "File too large" in of_model
    assert {one.name for one in tmp_path.iterdir()} == {"checkpoint.pt", "model"}
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert load_state(path) == {"step": 1}


def test_too_little_is_refused(chinese_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are 12 pairs to learn from, and fewer than 200 teach nothing"):
        trained(chinese_bert, tmp_path / "tuned", of=examples(pairs=12))
    one = examples()
    same = [pair._replace(right="p1") for pair in one.pairs]
    with pytest.raises(TrainingError, match="all pairs lead to one product"):
        trained(chinese_bert, tmp_path / "tuned", of=_with(one, pairs=same))
    with pytest.raises(TrainingError, match="the test has 3 searches or orders to predict"):
        trained(chinese_bert, tmp_path / "tuned", of=_with(one, test=one.test[:3]))
    with pytest.raises(TrainingError, match="no product is available"):
        trained(chinese_bert, tmp_path / "tuned", of=_with(one, listed=frozenset()))
    assert list(tmp_path.iterdir()) == []


def _with(of: Examples, **changes: object) -> Examples:
    import dataclasses

    return dataclasses.replace(of, **changes)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_ends_it(chinese_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+: a smaller --learning-rate"):
        trained(chinese_bert, tmp_path / "tuned", msgspec.structs.replace(QUICK, learning_rate=1e30, warm_up=0.0))
    assert list(tmp_path.iterdir()) == []


def test_no_memory_on_the_device_is_said(chinese_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(training, "contrast", full)
    with pytest.raises(NoMemory, match=r"no memory is left on cpu: a smaller --batch needs less"):
        trained(chinese_bert, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_a_folder_that_is_there_is_never_written_to(chinese_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    with pytest.raises(TrainingError, match="tuned exists"):
        trained(chinese_bert, tmp_path / "tuned")


def test_what_does_not_fit_the_architecture_is_said(chinese_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--tune top-3: .* has 2 layers"):
        trained(chinese_bert, tmp_path / "tuned", msgspec.structs.replace(QUICK, tune="top-3"))
    decoder = tmp_path / "decoder"
    shutil.copytree(chinese_bert, decoder)
    config = json.loads((decoder / "config.json").read_text())
    (decoder / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    with pytest.raises(TrainingError, match="holds a decoder: only encoders can be trained"):
        trained(decoder, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_an_architecture_that_is_no_encoder_of_texts_is_said(chinese_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    T5Model(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(folder)
    shutil.copy(chinese_bert / "tokenizer.json", folder)
    with pytest.raises(ModelError, match="t5 holds no encoder of texts"):
        trained(folder, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()
