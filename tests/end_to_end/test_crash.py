"""A worker, Qdrant and the encoding worker killed in the middle of a run: every profile is that of a calm one."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from machine import afterglow_json, running, until
from seeded_shop import USERS, produce, write_events
from stored import differences, profiles_of

pytestmark = pytest.mark.end_to_end


def folded(data_dir: Path) -> tuple[int, int]:
    """Purchases and searches that are in the stored profiles."""
    states = profiles_of(data_dir, USERS).values()
    return sum(state.purchases.events for state in states), sum(state.searches.events for state in states)


def kill(up: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Kills the first process of that name (`worker`, `encoder`, `deploy.qdrant`), and waits until it is back."""
    victims = [
        child
        for child in psutil.Process(up.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and name in child.cmdline()
    ]
    returned = log.read_text().count("is back")
    os.kill(victims[0].pid, signal.SIGKILL)
    until(lambda: log.read_text().count("is back") > returned, 120, log.read_text())


def test_profiles_after_a_kill_are_those_of_the_undisturbed_run(tmp_path: Path) -> None:
    n_purchases, n_searches = write_events(tmp_path)

    calm = tmp_path / "calm"
    with running(calm):
        for topic in ("products", "purchases", "searches"):
            produce(calm, tmp_path, topic, "--wait")
        expected = profiles_of(calm, USERS)
    assert sum(state.purchases.events for state in expected.values()) == n_purchases
    assert sum(state.searches.events for state in expected.values()) == n_searches

    rough = tmp_path / "rough"
    with running(rough, "--workers", "2") as process:
        produce(rough, tmp_path, "products", "--wait")
        produce(rough, tmp_path, "purchases")
        until(lambda: folded(rough)[0] > 500, 120)
        assert folded(rough)[0] < n_purchases, "too late to kill anything in the middle"
        kill(process, "worker", rough.with_suffix(".log"))
        produce(rough, tmp_path, "searches")
        kill(process, "deploy.qdrant", rough.with_suffix(".log"))
        kill(process, "encoder", rough.with_suffix(".log"))
        produce(rough, tmp_path, "products", "--wait")  # sent again, as producers do
        until(lambda: folded(rough) == (n_purchases, n_searches), 300)
        found = profiles_of(rough, USERS)
        verdict = afterglow_json(rough, "verify")
        assert (verdict["users"], verdict["different"]) == (len(USERS), 0)

    for user in USERS:
        assert differences(found[user].purchases, expected[user].purchases) == [], user
        assert differences(found[user].searches, expected[user].searches) == [], user
