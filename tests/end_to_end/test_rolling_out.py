"""A shop's own model through its life, by commands alone: refused where it is worse, rolled out where it is better."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from disturbed_model import disturbed_model
from machine import ENVIRONMENT, afterglow, afterglow_json, running, until

pytestmark = pytest.mark.end_to_end

NOUNS = ["boots", "tent", "stove", "kettle", "lamp", "mug", "rug", "kite"]
STYLES = ["red", "blue", "wooden", "small", "folding"]
TITLES = [f"{style} {noun}" for style in STYLES for noun in NOUNS]
SLANG = ["zorlat", "mibbun", "quevix", "haldor", "prenty", "wumsok", "yadgel", "fiqqur"]
"""What people here call boots, tents, ...: no model knows it but one that has learned from them."""
FASHION = ["ostrim", "jallep", "vundar", "kexomo", "bliway", "tigrun", "sapfet", "rehuld"]
"""And some months later."""
START = 1_690_000_000_000
HOUR_MS = 3_600_000

# Windows of some twenty records, and killed when the eighth one is applied.
KILLED_IN_REPLAY = (
    "import os, signal, sys, streams.windows as windows\n"
    "windows.WINDOW_BYTES, windows.CONSUMED_AT_ONCE = 4_000, 20\n"
    "applied, windows_done = windows.WindowReader.applied, []\n"
    "def die(reader, window):\n"
    "    applied(reader, window)\n"
    "    windows_done.append(window)\n"
    "    if len(windows_done) == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
    "windows.WindowReader.applied = die\n"
    "from streams.commands import main\n"
    "main(sys.argv[1:])"
)
LITTLE = ["--tune", "top-1", "--steps", "40", "--batch", "32", "--learning-rate", "1e-3", "--threads", "1"]


def write(file: Path, records: list[dict[str, object]]) -> str:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def searches(words: list[str], first: int, number: int) -> list[dict[str, object]]:
    """People who come, look for four things in the shop's slang, click them, and don't come back."""
    return [
        {
            "user_id": f"user-{n // 4}",
            "query": f"{words[wanted % 8]} {STYLES[wanted // 8]}",
            "clicked_product_id": f"p{wanted}",
            "ts": START + n * HOUR_MS,
        }
        for n in range(first, first + number)
        for wanted in [n * 7 % len(TITLES)]
    ]


@pytest.fixture
def disturbed(tmp_path: Path) -> str:
    return disturbed_model(tmp_path / "disturbed")


class Shop:
    """One running system, and what is asked of it."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self._folder = folder

    def produce(self, topic: str, records: list[dict[str, object]]) -> None:
        file = write(self._folder / f"{topic}.jsonl", records)
        afterglow(self.data, "produce", file, "--topic", topic, "--wait")

    def start(self, *arguments: str, program: Sequence[str] = ("-m", "streams")) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(self.data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was said on standard error."""
        with self.start(*arguments) as process:
            _, said = process.communicate()
        return process.returncode, said

    def retrain(self, *arguments: str) -> dict[str, Any]:
        printed = afterglow(self.data, "retrain", *LITTLE, *arguments, "--json")
        assert printed.count("\n") == 1
        outcome: dict[str, Any] = json.loads(printed)
        return outcome

    def generations(self) -> dict[str, bool]:
        """By name, whether readers see it."""
        document: Any = afterglow_json(self.data, "generations")
        return {one["name"]: one["served"] for one in document["generations"]}

    def models(self) -> set[str]:
        return {path.name for path in (self.data / "models").iterdir()}


def test_a_shop_s_own_model_is_made_defended_and_kept_up_to_date(tmp_path: Path, disturbed: str) -> None:
    data = tmp_path / "data"
    shop = Shop(data, tmp_path)
    with running(data):
        shop.produce("products", [{"product_id": f"p{n}", "title": title} for n, title in enumerate(TITLES)])
        shop.produce("searches", searches(SLANG, 0, 600))

        # A model that has learned nothing of this shop yet is trained on it, and serves.
        first = shop.retrain()
        assert (first["outcome"], first["generation"]) == ("rolled out", "g2"), first
        assert "has learned nothing of this shop yet" in first["why"]
        assert "Query → clicked product, by texts alone, MRR@20" in first["why"]
        assert shop.generations() == {"main": False, "g2": True}
        assert shop.models() == {"lock", "last.json", "attempts.json", Path(first["model"]).name}

        # A worse one isn't even replayed.
        code, said = shop.run("replay", "--model", disturbed)
        assert code == 1
        assert f"{disturbed} is worse than {Path(first['model']).name}, which generation g2 serves" in said
        assert "insist (--force)" in said
        assert shop.generations() == {"main": False, "g2": True}

        # While nobody says anything new there is nothing to do; when they do, a killed retraining is gone on with.
        assert shop.retrain()["outcome"] == "kept"
        shop.produce("searches", searches(FASHION, 600, 400))
        with shop.start("retrain", *LITTLE) as killed:
            until(lambda: killed.poll() is not None or (data / "models" / "task.json").exists(), 120)
            until(lambda: killed.poll() is not None or any("partial" in name for name in shop.models()), 120)
            code, said = shop.run("retrain")
            assert (code, "another `afterglow retrain` is at work" in said) == (1, True), said
            killed.kill()
        assert shop.generations() == {"main": False, "g2": True}

        # Killed again in the middle of the replay: readers see nothing of it, and the next run completes it.
        with shop.start("retrain", *LITTLE, program=("-c", KILLED_IN_REPLAY)) as killed:
            _, said = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, said
        assert shop.generations() == {"main": False, "g2": True, "g3": False}
        made = {name for name in shop.models() if not name.endswith("json")} - {"lock", Path(first["model"]).name}
        assert not any("partial" in name for name in made)
        again = shop.retrain()
        assert (again["outcome"], again["generation"]) == ("rolled out", "g3"), again
        assert made == {Path(again["model"]).name}
        assert "of words are new to the model" in again["why"]
        assert shop.generations() == {"main": False, "g2": False, "g3": True}
        assert shop.models() == {"lock", "last.json", "attempts.json", Path(first["model"]).name, *made}
        verdict: Any = afterglow_json(data, "verify")
        assert (verdict["generation"], verdict["events"], verdict["different"]) == ("g3", 1000, 0)

        # The way back, by its own model. What readers were led back from is not made again at once.
        afterglow(data, "generations", "activate", "g2")
        back = shop.retrain()
        assert (back["outcome"], back["generation"]) == ("kept", "g2"), back
        assert "readers were led back from what a training from the same made" in back["why"]
        assert shop.generations() == {"main": False, "g2": True, "g3": False}
