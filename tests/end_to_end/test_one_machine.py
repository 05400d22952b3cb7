"""`afterglow up` as a user runs it: ready, found by others, drained; nothing left behind, everything kept."""

import json
import signal
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from machine import until, up

pytestmark = pytest.mark.end_to_end


@pytest.fixture(autouse=True)
def _decoys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started in a folder where other things have the names of our packages."""
    for name in ("streams", "deploy"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('not ours')\n")
    monkeypatch.chdir(tmp_path)


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def topics(data_dir: Path) -> dict[str, int]:
    """The partitions of each topic, from the Kafka that the directory's `up` has published."""
    kafka = json.loads((data_dir / "addresses.json").read_text())["kafka"]
    listed = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=30).topics
    return {name: len(topic.partitions) for name, topic in listed.items() if not name.startswith("__")}


def test_it_drains_and_comes_back_with_everything(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "up.log"
    with up(data, log, "--workers", "2") as process:
        first = json.loads((data / "addresses.json").read_text())
        assert first["pid"] == process.pid
        assert topics(data) == {"searches": 8, "purchases": 8, "products": 8, "afterglow.dead-letters": 1}
        secret = (data / "secret").read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()
        assert all(has_ended(one) for one in family)
        assert "killed" not in log.read_text(), "all drained in time"
        assert not (data / "addresses.json").exists()

    with up(data, tmp_path / "again.log") as process:
        again = json.loads((data / "addresses.json").read_text())
        assert {**again, "pid": first["pid"]} == first
        assert topics(data) == {"searches": 8, "purchases": 8, "products": 8, "afterglow.dead-letters": 1}
        assert (data / "secret").read_text() == secret
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def test_what_is_killed_comes_back_and_a_killed_up_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with up(tmp_path / "data", log) as process:
        started = psutil.Process(process.pid)
        for one in started.children(recursive=True):
            if {"encoder", "worker"} & set(one.cmdline()):
                one.kill()
        until(lambda: "encoder is back" in log.read_text() and "worker-1 is back" in log.read_text(), 120)
        assert process.poll() is None
        family = started.children(recursive=True)
        assert len(family) >= 5, "Kafka, Qdrant, the encoder, a worker, the reaper"
        process.kill()
        process.wait()
        until(lambda: all(has_ended(one) for one in family), 30)
