"""A replay while events keep arriving, and it, its helper and a live worker are killed: what takes over is the log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from machine import ENVIRONMENT, afterglow, afterglow_json, running, until
from seeded_shop import USERS, produce, write_events
from stored import differences, profiles_of

from streams.commands.replay import replay
from streams.settings import load

pytestmark = pytest.mark.end_to_end

# Windows of some hundred records instead of tens of thousands, so that a replay can be killed in the middle of them.
SMALL_WINDOWS = (
    "import sys, streams.windows as windows\n"
    "windows.WINDOW_BYTES, windows.CONSUMED_AT_ONCE = 20_000, 100\n"
    "from streams.commands import main\n"
    "main(sys.argv[1:])"
)


def replaying(data_dir: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", SMALL_WINDOWS, "replay", *arguments],
            env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data_dir)}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def folded(data_dir: Path, generation: str) -> tuple[int, int]:
    try:
        states = profiles_of(data_dir, USERS, generation).values()
    except Exception:  # it does not exist yet
        return 0, 0
    return sum(state.purchases.events for state in states), sum(state.searches.events for state in states)


def test_a_generation_replayed_under_fire_holds_what_the_log_says(tmp_path: Path) -> None:
    n_purchases, n_searches = write_events(tmp_path)
    data = tmp_path / "data"
    with running(data, "--workers", "2") as up:
        produce(data, tmp_path, "products", "--wait")
        produce(data, tmp_path, "purchases", "--wait")
        live = subprocess.Popen(
            [
                sys.executable, "-m", "streams", "produce", str(tmp_path / "searches.jsonl.gz"),
                "--topic", "searches", "--rate", "150",
            ],
            env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with live:
            first = replaying(data, tmp_path / "first.log", "--set", "half_life.long=14d")
            until(lambda: folded(data, "g2")[0] > 500 or first.poll() is not None, 120)
            first.kill()
            first.wait()
            assert 0 < folded(data, "g2")[0] < n_purchases, (tmp_path / "first.log").read_text()
            assert folded(data, "main")[0] == n_purchases

            again = [
                replaying(data, tmp_path / f"again-{n}.log", "--set", "half_life.long=14d", "--json") for n in range(2)
            ]
            worker = next(
                child for child in psutil.Process(up.pid).children(recursive=True) if "worker" in child.cmdline()
            )
            os.kill(worker.pid, signal.SIGKILL)
            for n, process in enumerate(again):
                assert process.wait(300) == 0, (tmp_path / f"again-{n}.log").read_text()
            assert live.wait(300) == 0
        until(lambda: folded(data, "g2") == (n_purchases, n_searches), 120, "live workers did not go on in g2")
        (now,) = (one for one in afterglow_json(data, "generations", "list")["generations"] if one["served"])
        assert now["name"] == "g2"
        # The worker that was killed may still be on its way back into the group, which `status` has to tell.
        until(lambda: afterglow_json(data, "status", code=None)["qdrant"]["profiles"]["due"] == 0, 60)
        verdict = afterglow_json(data, "verify")
        assert (verdict["generation"], verdict["users"], verdict["different"]) == ("g2", len(USERS), 0)

        # The old half-life is another replay; what comes out is what was folded live, but for the half-life.
        before = profiles_of(data, USERS, "main")
        afterglow(data, "replay", "--set", "half_life.long=30d", "--generation", "back", "--no-activate")
        back = profiles_of(data, USERS, "back")
        for user in USERS:
            assert differences(back[user].purchases, before[user].purchases) == [], user
        assert afterglow_json(data, "verify", "--generation", "back")["different"] == 0


def test_a_replay_from_a_time_leaves_out_what_was_produced_before(tmp_path: Path) -> None:
    write_events(tmp_path)
    data = tmp_path / "data"
    with running(data):
        produce(data, tmp_path, "products", "--wait")
        produce(data, tmp_path, "purchases", "--wait")
        time.sleep(0.01)
        moment = time.time_ns() // 1_000_000
        time.sleep(0.01)
        produce(data, tmp_path, "searches", "--wait")
        replayed = afterglow_json(data, "replay", "--from", str(moment))
        assert (replayed["generation"], replayed["served"], replayed["events"]) == ("g2", True, 4_000)
        states = profiles_of(data, USERS, "g2").values()
        assert sum(state.purchases.events for state in states) == 0
        assert sum(state.searches.events for state in states) == 4_000
        assert afterglow_json(data, "verify")["different"] == 0


def test_what_a_replay_cannot_do_is_said_before_anything_is_done(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        few = tmp_path / "few.jsonl"
        few.write_text('{"user_id": "ada", "query": "red tent", "ts": 1690000000000}\n')
        afterglow(data, "produce", str(few), "--topic", "searches", "--wait")
        replayed = afterglow_json(data, "replay", "--no-activate")
        assert (replayed["generation"], replayed["events"], replayed["behind"]) == ("g2", 1, 0)  # however few
        for arguments, code in (
            (["--set", "candidates=7"], 2),
            (["--set", "half_life.long"], 2),
            (["--set", "half_life.long=soon"], 2),
            (["--generation", "main"], 1),
            (["--model", str(tmp_path)], 1),
        ):
            afterglow(data, "replay", *arguments, code=code)
        assert [one["name"] for one in afterglow_json(data, "generations", "list")["generations"]] == ["main", "g2"]

        # Readers are led over from the generation that was meant, and from no other.
        settings = load(data_dir=data, environment={})
        for meant, served in (("g7", False), ("main", True)):
            again = asyncio.run(replay(settings, "g2", None, lambda _: None, activate=True, instead_of=meant))
            assert (again.generation, again.served) == ("g2", served)
