"""`afterglow train`: from files of events to a model folder."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from encoders.model import load
from encoders.recipe import identity, locate, read_recipe
from encoders.training.model_card import read_card
from streams.commands import main

DAY_MS = 86_400_000
T0 = 1_700_000_000_000

CALLED = {  # what a shop calls its things, and what people call them
    "Aeron Pro": "office chair",
    "Bora Classic": "hair dryer",
    "Cirrus 40": "vacuum cleaner",
    "Delta Nine": "coffee machine",
    "Ember XL": "electric heater",
    "Fjord": "bath towel",
    "Gale II": "ceiling fan",
    "Halo Mini": "reading lamp",
    "Iris Plus": "kitchen scales",
    "Juno": "steam iron",
}

Train = Callable[[Sequence[str]], tuple[int, str, str]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    """Runs the command in a folder with `products.jsonl` and `searches.jsonl`: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    products = [{"product_id": f"p{i}", "title": title} for i, title in enumerate(CALLED)]
    searches = [
        {"user_id": f"user {n}", "query": query, "ts": T0 + n * DAY_MS // 20, "clicked_product_id": f"p{n % 10}"}
        for n in range(400)
        for query in [list(CALLED.values())[n % 10]]
    ]
    for name, rows in (("products", products), ("searches", searches)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["train", *arguments])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


FILES = ["--products", "products.jsonl", "--searches", "searches.jsonl"]


@pytest.mark.end_to_end
def test_the_packaged_model_learns_what_a_shop_calls_its_things(train: Train) -> None:
    few = [
        "--tune",
        "top-1",
        "--kinds",
        "0.1",
        "--steps",
        "12",
        "--batch",
        "32",
        "--learning-rate",
        "1e-3",
        "--threads",
        "1",
    ]
    code, out, err = train([*FILES, *few, "--out", "models/ours", "--tensorboard", "board", "--json"])
    assert code == 0, err
    result = json.loads(out)
    before, after = (result[when]["test"]["queries"]["all"] for when in ("before", "after"))
    assert before["probes"] == after["probes"] >= 40
    assert after["mrr"] > before["mrr"] + 0.2

    folder, _ = locate("models/ours")
    assert load("models/ours", device="cpu").description.identity == result["identity"]
    assert identity(folder, read_recipe(folder, query_prefix=None, product_prefix=None)) == result["identity"]
    card = read_card(folder)
    assert card is not None
    assert (card.parent.name, card.licence) == ("all-MiniLM-L6-v2", "apache-2.0")
    assert card.data["pairs_of_queries"] == 320
    assert next(Path("board").iterdir()).name.startswith("events.out.tfevents")
    assert "license: apache-2.0" in Path("models/ours/README.md").read_text()

    code, out, err = train([*FILES, "--model", "models/ours", "--out", "models/ours"])
    assert code == 1
    assert "error: models/ours exists: give --out the name of a folder that doesn't" in err


def test_what_is_missing_is_said(train: Train) -> None:
    code, _, err = train(["--searches", "searches.jsonl", "--out", "ours"])
    assert code == 2
    assert "give --products FILE as well" in err
    code, _, err = train(["--products", "products.jsonl", "--out", "ours"])
    assert code == 2
    assert "give --purchases FILE, --searches FILE, --labels FILE, or some of them" in err
    code, _, err = train([*FILES, "--out", "ours", "--tune", "top-0"])
    assert code == 2
    assert "'top-0' is none of head, top-1, top-2 …, lora, full" in err
    assert train([*FILES, "--out", "ours", "--labels", "nowhere.jsonl"])[2].endswith("no file nowhere.jsonl\n")


def test_too_little_to_learn_from_is_said_and_nothing_is_left(train: Train) -> None:
    code, out, err = train([*FILES, "--out", "ours", "--validation-from", str(T0 + DAY_MS)])
    assert (code, out) == (1, "")
    assert "pairs to learn from, and fewer than 200 teach nothing: more events, or a later --validation-from" in err
    assert not Path("ours").exists()
    assert not Path("ours.partial").exists()


def test_a_folder_that_holds_no_model_is_said(train: Train) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_text('{"model_type": "bert"}')
    code, _, err = train([*FILES, "--model", "broken", "--out", "ours"])
    assert code == 1
    assert "error: " in err
    assert "broken" in err
    assert not Path("ours").exists()


def test_a_missing_library_is_named(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "streams.commands.train.find_spec", lambda name: None if name in ("tensorboard", "peft") else found(name)
    )
    code, _, err = train([*FILES, "--out", "ours", "--tensorboard", "board"])
    assert code == 1
    assert "tensorboard is not installed, which --tensorboard needs: pip install '.[train]'" in " ".join(err.split())
    assert "peft is not installed, which --tune lora needs" in train([*FILES, "--out", "ours", "--tune", "lora"])[2]
