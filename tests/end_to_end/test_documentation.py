"""What README and docs show is run here, against a real `afterglow up`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import blocks
from machine import ENVIRONMENT, afterglow_json, running, until

from sinks.identity import PointIds

pytestmark = pytest.mark.end_to_end


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program}\n{done.stderr}"
    return done.stdout


def has_settled(data: Path) -> bool:
    """The search and the purchase of the README are folded in, and the candidates made."""
    profiles = afterglow_json(data, "status")["qdrant"]["profiles"]
    return (profiles["searches"], profiles["purchases"], profiles["waiting"], profiles["due"]) == (1, 1, 0, 0)


def test_the_examples_of_the_readme_and_the_collections_work(tmp_path: Path) -> None:
    data = tmp_path / ".afterglow"
    with running(data):
        sent = "\n".join(blocks("README.md", "python"))
        assert "EventProducer" in sent
        run(sent, tmp_path)
        until(lambda: has_settled(data), 60)
        read = run("\n".join(blocks("docs/collections.md", "python")), tmp_path)
        assert "Leather walking boots" in read
        assert "Two-person tent" in read

        found = afterglow_json(data, "search", "walkng boots")
        assert (found["read_as"], found["items"][0]["title"]) == ("walking boots", "Leather walking boots")

        shell = "\n".join(blocks("docs/collections.md", "sh"))
        if shutil.which("openssl"):
            printed = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
            ids = PointIds(bytes.fromhex((data / "secret").read_text()))
            assert printed.stdout.strip() == ids.user("ada").replace("-", "")
