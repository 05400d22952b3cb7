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
from encoders.training import as_served, checkpoint, objective, training
from encoders.training.adversary import Adversary
from encoders.training.files import load_state, save_state
from encoders.training.learning import Learner
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
    assert card.history[-1].step == 24
    assert card.steps in {one.step for one in card.history}
    assert (card.share, card.averaged) == (result.share, result.averaged)
    assert 0 < card.share <= 1
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
    trained(chinese_bert, tmp_path / "tuned", msgspec.structs.replace(QUICK, tune=tune, learning_rate=5e-3))
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


def test_killed_when_its_folder_was_there_it_tidies_up(chinese_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"

    def killed(_: checkpoint.Checkpoint) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(chinese_bert, out)
    assert {path.name for path in tmp_path.iterdir()} >= {"tuned", "tuned.partial"}
    made = weights_of(out)
    with pytest.raises(OtherTraining):
        trained(chinese_bert, out, msgspec.structs.replace(QUICK, seed=2))

    result = trained(chinese_bert, out)
    card = read_card(out)
    assert card is not None
    assert (result.steps, result.share, result.after) == (card.steps, card.share, card.after)
    assert all(torch.equal(made[name], weight) for name, weight in weights_of(out).items())
    assert not (tmp_path / "tuned.partial").exists()
    with pytest.raises(TrainingError, match="tuned exists"):
        trained(chinese_bert, out)


def test_two_at_once_do_not_make_one_folder(chinese_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from encoders.training.checkpoint import working_on\n"
        "out = Path(sys.argv[1])\n"
        "with working_on(out.with_name('tuned.partial'), out): print('held', flush=True); time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(
        TrainingError, match=r"another training is making .*tuned: let it finish, or give another --out"
    ):
        trained(chinese_bert, out)
    other.kill()
    other.wait()
    trained(chinese_bert, out, msgspec.structs.replace(QUICK, steps=8))  # who is killed holds nothing
    assert list(tmp_path.iterdir()) == [out]


def test_a_soup_is_the_mean_of_trainings_by_several_seeds(chinese_bert: Path, tmp_path: Path) -> None:
    few = msgspec.structs.replace(QUICK, tune="top-1", steps=8, mix=False)
    for seed in (3, 4):
        trained(chinese_bert, tmp_path / f"{seed}", msgspec.structs.replace(few, seed=seed))

    def killed(what: str, step: int, _: int) -> None:
        if what.startswith("training") and step == 4 and (tmp_path / "soup.partial" / "checkpoint.pt").exists():
            raise KeyboardInterrupt

    two = msgspec.structs.replace(few, seed=3, soup=2)
    with pytest.raises(KeyboardInterrupt):  # in the second training
        train(examples(), str(chinese_bert), tmp_path / "soup", two, killed, device="cpu")
    trained(chinese_bert, tmp_path / "soup", two)
    soup, one, other = (weights_of(tmp_path / name) for name in ("soup", "3", "4"))
    assert not all(torch.equal(one[name], other[name]) for name in one)
    for name in soup:
        torch.testing.assert_close(soup[name], (one[name] + other[name]) / 2, atol=1e-6, rtol=1e-5)
    with pytest.raises(TrainingError, match="no --soup with --tune lora"):
        trained(chinese_bert, tmp_path / "lora", msgspec.structs.replace(two, tune="lora"))


def test_what_is_no_better_than_the_parent_leaves_its_weights(chinese_bert: Path, tmp_path: Path) -> None:
    result = trained(chinese_bert, tmp_path / "tuned", msgspec.structs.replace(QUICK, learning_rate=1e-12))
    assert (result.steps, result.share) == (0, 0.0)
    before, after = weights_of(chinese_bert), weights_of(tmp_path / "tuned")
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("tune", ["full", "top-1", "lora"])
def test_noise_is_where_the_loss_is_greater(tune: str, chinese_bert: Path) -> None:
    recipe = read_recipe(chinese_bert, query_prefix=None, product_prefix=None)
    model = TrainableModel(chinese_bert, recipe, tune, device="cpu", dropout=0.0, half=False)
    target = torch.nn.functional.normalize(torch.arange(1.0, 65.0), dim=0)

    def loss() -> torch.Tensor:
        return -(model.vectors(["usb", "wireless headphones"], TextKind.PRODUCT, train=True) @ target).sum()

    model.at_input = adversary = Adversary(0.01)
    first = loss()
    first.backward()
    adversary.turn()
    assert loss().item() > first.item()
    model.at_input = None
    assert loss().item() == pytest.approx(first.item())


def test_each_ingredient_makes_a_difference(chinese_bert: Path, tmp_path: Path) -> None:
    few = msgspec.structs.replace(QUICK, tune="top-1", steps=4, mix=False, evaluate_every=4)
    ingredients = [{}, {"adversarial": 0.02}, {"symmetric": 0.5}, {"kinds": 0.2}, {"augment": True}, {"balance": 0.5}]
    of = _with(examples(), pairs=[pair for i, pair in enumerate(examples().pairs) if i % 10 > 2 or i % 3])
    made = [
        trained(chinese_bert, tmp_path / f"{i}", msgspec.structs.replace(few, **ingredient), of).identity
        for i, ingredient in enumerate(ingredients)
    ]
    assert len(set(made)) == len(ingredients)


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
        saved = checkpoint.save_state
        patch.setattr(checkpoint, "save_state", lambda *a: (_full_disk() if told else None, told.append(1), saved(*a)))
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


def test_a_damaged_checkpoint_is_none(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"step": 1, "weights": torch.zeros(1000)})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", b"x" * len(whole), b"x"):
        path.write_bytes(damaged)
        assert load_state(path) is None


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


@pytest.mark.parametrize("of", [(objective, "contrast"), (as_served, "measure"), (Learner, "judge")])
def test_no_memory_on_the_device_is_said(
    of: tuple[object, str], chinese_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(*of, full)
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
