"""A tethered command replaces its launcher, and isn't started for a parent that is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import tether


def run(parent: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, str(parent), *command],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_runs_and_its_exit_code_is_kept() -> None:
    done = run(os.getpid(), "sh", "-c", "echo hello; exit 7")
    assert (done.returncode, done.stdout) == (7, "hello\n")


def test_nothing_is_started_for_a_parent_that_is_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = run(gone.pid, "echo", "hello")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"the parent {gone.pid} is gone: echo is not started\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_command_dies_with_a_parent_that_is_killed() -> None:
    start = f"""
import os, subprocess, sys, time
tethered = [sys.executable, "-I", "-S", {tether.__file__!r}, str(os.getpid())]
child = subprocess.Popen([*tethered, "sh", "-c", "echo $$; exec sleep 600"], start_new_session=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    assert parent.stdout.read() == "", "the child held the other end of this pipe until it died"
    parent.wait()
    parent.stdout.close()
