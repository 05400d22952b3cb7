"""A shop's own model through its life, by commands alone: refused where it is worse, rolled out where it is better."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from machine import ENVIRONMENT, afterglow, afterglow_json, running
from safetensors.torch import load_file, save_file

from encoders.recipe import locate

pytestmark = pytest.mark.end_to_end

MEANT = {
    "boots": "footwear for hiking",
    "tent": "shelter to sleep in",
    "stove": "cook outdoors",
    "kettle": "boil water",
    "lamp": "light at night",
    "mug": "cup for coffee",
    "rug": "carpet",
    "kite": "toy that flies",
}
STYLES = ["red", "blue", "wooden", "small", "folding"]
PRODUCTS = [(f"{style} {noun}", f"{meant}, {style}") for style in STYLES for noun, meant in MEANT.items()]
START = 1_690_000_000_000
HOUR_MS = 3_600_000


def write(file: Path, records: list[dict[str, object]]) -> str:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def wanted(n: int) -> int:
    return (n * 7 + n // 80 * 3) % len(PRODUCTS)


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """Eighty people describe what they look for, and click it."""
    products = [{"product_id": f"p{n}", "title": title} for n, (title, _) in enumerate(PRODUCTS)]
    searches = [
        {
            "user_id": f"user-{n % 80}",
            "query": PRODUCTS[wanted(n)][1],
            "clicked_product_id": f"p{wanted(n)}",
            "ts": START + n * HOUR_MS,
        }
        for n in range(600)
    ]
    return {
        "products": write(tmp_path / "products.jsonl", products),
        "searches": write(tmp_path / "searches.jsonl", searches),
    }


@pytest.fixture
def disturbed(tmp_path: Path) -> str:
    """The packaged model, its weights disturbed until hardly anything is left of what it knew."""
    folder = tmp_path / "disturbed"
    shutil.copytree(locate("")[0], folder)
    (file,) = folder.glob("*.safetensors")
    chance = torch.Generator().manual_seed(1)
    weights = load_file(file)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dim() == 2:
            weights[name] = torch.randn(tensor.shape, generator=chance) * tensor.std()
    save_file(weights, file)
    return str(folder)


def replay(data: Path, *arguments: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "streams", "replay", *arguments],
        env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def generations(data: Path) -> dict[str, Any]:
    document: Any = afterglow_json(data, "generations")
    return {one["name"]: one["served"] for one in document["generations"]}


def test_a_model_that_is_worse_is_refused_unless_forced_and_the_way_back_is_open(
    tmp_path: Path, shop: dict[str, str], disturbed: str
) -> None:
    data = tmp_path / "data"
    with running(data):
        for topic, file in shop.items():
            afterglow(data, "produce", file, "--topic", topic, "--wait")
        code, said = replay(data, "--model", disturbed)
        assert code == 1, said
        assert f"{disturbed} is worse than all-MiniLM-L6-v2, which generation main serves" in said
        assert "Query → clicked product, by texts alone, MRR@20: " in said
        assert "insist (--force)" in said
        assert generations(data) == {"main": True}

        code, said = replay(data, "--model", disturbed, "--force")
        assert code == 0, said
        assert generations(data) == {"main": False, "g2": True}
        afterglow(data, "generations", "activate", "main")
        assert generations(data) == {"main": True, "g2": False}
