"""Real processes, as a user runs them: `afterglow up`, single workers, and commands against them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT: Mapping[str, str] = {
    **{name: value for name, value in os.environ.items() if not name.startswith("AFTERGLOW_")},
    "AFTERGLOW_ENCODER_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def until(condition: Callable[[], bool], timeout_seconds: float, otherwise: str = "it never came to be") -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@contextmanager
def up(data_dir: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`afterglow up`, ready. Killed in the end, if it hasn't ended by then."""
    command = [sys.executable, "-P", "-m", "streams", "up", "--data-dir", str(data_dir), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    try:
        until(lambda: process.poll() is not None or "Afterglow is ready" in log.read_text(), 180)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(data_dir: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`afterglow up`, ready; drained in the end, as a person does with Ctrl-C."""
    with up(data_dir, data_dir.with_suffix(".log"), *options) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, data_dir.with_suffix(".log").read_text()


def afterglow(data_dir: Path, *arguments: str, code: int | None = 0, timeout_seconds: float = 600) -> str:
    """What a command prints; it has to end with `code`, where that is given."""
    done = subprocess.run(
        [sys.executable, "-m", "streams", *arguments],
        env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert code in (None, done.returncode), (
        f"{arguments} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    )
    return done.stdout


def afterglow_json(data_dir: Path, *arguments: str, code: int | None = 0) -> object:
    return json.loads(afterglow(data_dir, *arguments, "--json", code=code))
