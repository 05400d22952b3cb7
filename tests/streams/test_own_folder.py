"""What commands leave among the temporary files: nothing, and nothing for long where they were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streams.commands.own_folder import own_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_for_as_long_as_it_is_needed(temporary: Path) -> None:
    with own_folder() as first, own_folder() as second:
        assert {*temporary.iterdir()} == {first, second}
        (first / "encoder.log").write_text("served")
    assert [*temporary.iterdir()] == []


def test_what_a_killed_process_left_is_deleted_and_what_another_one_works_in_is_not(temporary: Path) -> None:
    program = (
        "from streams.commands.own_folder import own_folder\nwith own_folder() as f: print(f, flush=True); input()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    with processes[0] as killed, processes[1] as working:
        assert killed.stdout is not None
        assert working.stdout is not None
        left, used = Path(killed.stdout.readline().strip()), Path(working.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.exists()
        with own_folder() as mine:
            assert {*temporary.iterdir()} == {used, mine}
        working.communicate("\n")
    assert [*temporary.iterdir()] == []
