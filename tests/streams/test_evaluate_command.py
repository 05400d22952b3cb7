"""`afterglow evaluate`, run as a user runs it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from disturbed_model import disturbed_model

from streams.commands import main

Evaluate = Callable[[Sequence[str]], tuple[int, str, str]]

DAY_MS = 86_400_000
CUT = 1_600_000_000_000
PRODUCTS = {
    "bag": "Down Sleeping Bag",
    "mat": "Inflatable Camping Mat",
    "tent": "Two-Person Tent",
    "beans": "Dark Roast Coffee Beans",
    "filter": "Paper Coffee Filters",
    "kettle": "Gooseneck Kettle",
}
PURCHASES = [
    ("ada", "bag", -9),
    ("bob", "beans", -8),
    ("ada", "mat", -7),
    ("bob", "beans", -6),
    ("ada", "tent", 2),
    ("bob", "beans", 3),
]
SEARCHES = [("ada", "camping", "mat", -5), ("bob", "roasted", "beans", -5), ("ada", "espresso", "beans", 1)]


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """Runs the command in a directory with the files of a shop, and gives its exit code and what it printed."""
    for name in [name for name in os.environ if name.startswith("AFTERGLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    _write("products.jsonl", [{"product_id": product_id, "title": title} for product_id, title in PRODUCTS.items()])
    _write(
        "purchases.jsonl.gz",
        [
            {"user_id": user, "product_id": product, "quantity": 1, "ts": CUT + days * DAY_MS}
            for user, product, days in PURCHASES
        ],
    )
    _write(
        "searches.jsonl",
        [
            {"user_id": user, "query": query, "clicked_product_id": clicked, "ts": CUT + days * DAY_MS}
            for user, query, clicked, days in SEARCHES
        ],
    )

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["evaluate", "--cut", str(CUT), *arguments])
        out, err = capfd.readouterr()
        return int(left.value.code or 0), out, err

    return run


def _write(name: str, rows: Sequence[dict[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    Path(name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)


@pytest.mark.end_to_end
def test_with_the_real_model_what_is_alike_in_meaning_is_found(evaluate: Evaluate) -> None:
    files = ["--products", "products.jsonl", "--purchases", "purchases.jsonl.gz", "--searches", "searches.jsonl"]
    code, out, err = evaluate([*files, "--limit", "3", "--json", "--dump", "lists.jsonl", "--plots", "plots"])
    assert code == 0, err
    document = json.loads(out)
    assert document["cut"] == CUT
    assert not document["prequential"]
    orders, clicks, queries = document["rounds"]
    assert [(one["kind"], one["tasks"]) for one in (orders, clicks, queries)] == [
        ("next_order", 2),
        ("next_click", 1),
        ("query", 1),
    ]
    for found in (orders, clicks, queries):
        assert found["methods"][0]["method"] == "Afterglow"
    bought_next = orders["methods"][0]["metrics"]["recall_new_in_new_only_list"]
    assert bought_next == {"mean": 1.0, "low": 1.0, "high": 1.0}  # a tent, for who has a sleeping bag and a mat
    assert queries["methods"][0]["metrics"]["mrr"]["mean"] == 1.0  # espresso: no product is called so
    lines = [json.loads(line) for line in Path("lists.jsonl").read_text().splitlines()]
    ada = next(line for line in lines if (line["task"], line["user_id"]) == ("next_order", "ada"))
    assert ada["ts"] == CUT + 2 * DAY_MS
    assert {"product_id": "tent"} in ada["new_only_items"]
    assert lines[-1] == {
        "task": "query",
        "user_id": "ada",
        "ts": CUT + DAY_MS,
        "query": "espresso",
        "items": [{"product_id": "beans"}, *lines[-1]["items"][1:]],
    }
    drawn = {path.name: path.read_bytes()[:8] for path in Path("plots").iterdir()}
    assert {"next-order-methods.png", "next-order-long-tail.png", "next-order-weeks.png"} <= drawn.keys()
    assert set(drawn.values()) == {b"\x89PNG\r\n\x1a\n"}


@pytest.mark.end_to_end
def test_a_table_shows_every_method(evaluate: Evaluate) -> None:
    code, out, err = evaluate(["--products", "products.jsonl", "--purchases", "purchases.jsonl.gz", "--prequential"])
    assert code == 0
    assert "Next order: 2 tasks of 2 users, 95% intervals" in out
    for method in ("Afterglow", "popular, 30 days", "EASE", "ALS (implicit)"):
        assert f"\n{method} " in out
    assert err.splitlines()[-1] == "drawing intervals"


@pytest.fixture
def disturbed(tmp_path: Path) -> str:
    return disturbed_model(tmp_path / "disturbed")


@pytest.mark.end_to_end
def test_a_model_beside_one_whose_weights_are_disturbed(evaluate: Evaluate, disturbed: str) -> None:
    _write(
        "searches.jsonl",
        [
            {"user_id": f"user-{n}", "query": query, "clicked_product_id": clicked, "ts": CUT + (n - 30) * DAY_MS}
            for n in range(60)
            for query, clicked in [[("espresso", "beans"), ("camp bed", "mat"), ("boil water", "kettle")][n % 3]]
        ],
    )
    asked = ["--products", "products.jsonl", "--searches", "searches.jsonl", "--limit", "3"]
    code, out, err = evaluate([*asked, "--model", "", "--model", disturbed, "--json", "--plots", "plots"])
    assert code == 0, err
    (queries,) = json.loads(out)["rounds"]
    worth = {one["method"]: one for one in queries["methods"]}
    assert [*worth] == ["packaged", "disturbed", "packaged, texts alone", "disturbed, texts alone"]
    assert worth["packaged, texts alone"]["metrics"]["mrr"]["mean"] == 1.0
    assert worth["disturbed, texts alone"]["minus_first"]["mrr"]["high"] < 0.0
    assert Path("plots/query-methods.png").read_bytes()[:4] == b"\x89PNG"


def test_what_can_not_be_compared_is_refused_before_anything_is_read(evaluate: Evaluate) -> None:
    asked = ["--products", "nowhere.jsonl", "--purchases", "nowhere.jsonl"]
    code, _, err = evaluate([*asked, "--model", "", "--model", "", "--json"])
    assert code == 2
    assert "the same --model is given twice" in err
    code, _, err = evaluate([*asked, "--model", "", "--model", "other", "--dump", "lists.jsonl"])
    assert code == 2
    assert "--dump writes the lists of one model" in err


def test_a_file_that_is_not_there_and_a_wrong_line_are_named(evaluate: Evaluate) -> None:
    assert evaluate(["--products", "nowhere.jsonl", "--purchases", "purchases.jsonl.gz"]) == (
        1,
        "",
        "reading files\nerror: there is no file nowhere.jsonl\n",
    )
    with Path("products.jsonl").open("a") as file:
        file.write('\n{"product_id": "rug"}\n')
    code, out, err = evaluate(["--products", "products.jsonl", "--purchases", "purchases.jsonl.gz"])
    assert (code, out) == (1, "")
    assert err.endswith("error: products.jsonl:8: title is missing\n")
    Path("cut-off.jsonl.gz").write_bytes(Path("purchases.jsonl.gz").read_bytes()[:-20])
    code, _, err = evaluate(["--products", "products.jsonl", "--purchases", "cut-off.jsonl.gz"])
    assert code == 1
    assert "products.jsonl:8" in err


def test_a_file_that_is_cut_off_is_not_taken_for_the_whole(evaluate: Evaluate) -> None:
    Path("cut-off.jsonl.gz").write_bytes(Path("purchases.jsonl.gz").read_bytes()[:-20])
    code, _, err = evaluate(["--products", "products.jsonl", "--purchases", "cut-off.jsonl.gz"])
    assert code == 1
    assert "error: cut-off.jsonl.gz can't be read after line " in err


def test_it_needs_something_that_happened(evaluate: Evaluate) -> None:
    code, _, err = evaluate(["--products", "products.jsonl"])
    assert code == 2
    assert "give --purchases FILE, --searches FILE, or both" in err


def test_a_missing_library_is_named(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "streams.commands.evaluate.find_spec", lambda name: None if name in ("implicit", "matplotlib") else found(name)
    )
    files = ["--products", "products.jsonl", "--purchases", "purchases.jsonl.gz"]
    code, _, err = evaluate(files)
    assert code == 1
    assert "implicit is not installed" in err
    assert "pip install '.[evaluate]' in Afterglow's folder" in " ".join(err.split())
    assert "implicit and matplotlib are not installed" in evaluate([*files, "--plots", "plots"])[2]
