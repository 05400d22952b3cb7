"""Where a worker's CPU goes, by what py-spy sees of it from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

OTHER: Final = "other"
UNSEEN: Final = "threads without Python (gRPC's)"

_STAGES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("acknowledging", ("acknowledge (streams/worker.py",)),
    (
        "candidates",
        (
            "(sinks/recommendation.py", "(sinks/ranking.py", "(sinks/prospects.py", "(sinks/snapshot.py",
            "Keeper.sweep", "ProfileStore.due",
        ),
    ),
    ("read-back", ("read_versions (sinks/writes.py",)),
    (
        "look-up and load",
        (
            "ProfileStore.load", "ProfileStore._read", "Held.decoded", "decode_state", "(sinks/catalogue.py",
            "Updater._products_of",
        ),
    ),
    ("pack", ("encode_state",)),
    (
        "protobuf",
        (
            "(sinks/points.py", "(sinks/stored.py", "(sinks/wire.py", "_payload (streams/profile_writes.py",
            "upsert_request",
        ),
    ),
    ("derive", ("(sinks/derivation.py",)),
    ("fold", ("(streams/profiles.py", "Updater._fold_user", "fold_event (streams/batches.py")),
    ("asking the encoder", ("(encoders/client.py",)),
    (
        "decode",
        (
            "(streams/events.py", "(streams/batches.py", "(sinks/identity.py", "(encoders/text.py", "_Worker._record",
            "(streams/continuity.py",
        ),
    ),
    ("upsert", ("(sinks/writes.py", "ProfileStore.write")),
    ("gRPC's calls", ("(grpc/",)),
    (
        "Faust and aiokafka",
        (
            "(faust/", "(aiokafka/", "(mode/services.py", "(mode/threads.py", "(mode/utils", "(streams/driver.py",
            "(streams/app.py", "(streams/pipeline.py",
        ),
    ),
    (
        "updater, the rest",
        ("(streams/updater.py", "(streams/profile_writes.py", "(streams/turns.py", "(streams/keeper.py"),
    ),
    ("event loop", ("(mode/worker.py", "(asyncio/")),
)  # fmt: skip
"""Each with what the functions and files of its frames contain; the first that any frame of a stack is of has it."""

_WAITING: Final = ("select (selectors.py", "wait (threading.py", "_worker (concurrent/futures/thread.py")
_SAMPLES_A_SECOND: Final = 200
_AT_MOST_SECONDS: Final = 3600
_THREAD: Final = re.compile(r"thread \((\d+)\)")


def sampler() -> str | None:
    """py-spy, where it is installed: on the PATH, or where this project's people keep it."""
    return shutil.which("py-spy", path=os.pathsep.join([os.environ.get("PATH", ""), "/tmp/pyspy/bin"]))


@contextmanager
def sampled(program: str, process: psutil.Process) -> Iterator[dict[str, float]]:
    """The share of the process's CPU that each stage took inside the context; filled when it is left."""
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "raw"
        command = [program, "record", "--nonblocking", "--threads", "-p", str(process.pid), "-f", "raw"]
        recording = subprocess.Popen(
            [*command, "-r", str(_SAMPLES_A_SECOND), "-d", str(_AT_MOST_SECONDS), "-o", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = _cpu_of_threads(process)
        try:
            yield shares
        finally:
            after = _cpu_of_threads(process)
            recording.send_signal(signal.SIGINT)
            recording.wait()
        cpu = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
        shares.update(_shares(file.read_text(), cpu))


def _cpu_of_threads(process: psutil.Process) -> dict[int, float]:
    """Seconds, by thread."""
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def _shares(raw: str, cpu: Mapping[int, float]) -> dict[str, float]:
    """A thread's samples share out the CPU that the thread took, and no more: many are of threads that want to run."""
    samples: dict[int, Counter[str]] = defaultdict(Counter)
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if (known := _THREAD.match(thread)) and frames and not frames[-1].startswith(_WAITING):
            samples[int(known[1])][_stage(frames)] += int(count)
    everything = sum(cpu.values())
    shares: dict[str, float] = defaultdict(float)
    for thread_id, seconds in cpu.items():
        stages = samples.get(thread_id) or {UNSEEN: 1}
        for stage, seen in stages.items():
            shares[stage] += seen / sum(stages.values()) * seconds / everything
    return shares


def _stage(frames: list[str]) -> str:
    return next((name for name, marks in _STAGES if any(mark in frame for frame in frames for mark in marks)), OTHER)
