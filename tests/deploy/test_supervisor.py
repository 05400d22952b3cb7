"""Children are started in order, restarted, given up on, drained in reverse, and never outlive their supervisor."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.supervisor import RestartPolicy, Service, ServiceFailed, Stage, Supervisor

PROMPT = RestartPolicy(first_delay_seconds=0.01, longest_delay_seconds=0.02, most_restarts=2)


def script(body: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(body), *arguments]


def until(condition: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


STEADY = """
    import pathlib, signal, sys, time
    journal, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    def note(text):
        with journal.open("a") as lines:
            lines.write(f"{name} {text}\\n")
    def drain(*_):
        time.sleep(0.2)
        note("drained")
        sys.exit(0)
    signal.signal(signal.SIGTERM, drain)
    note("up")
    print(f"hello from {name}", flush=True)
    while True:
        time.sleep(0.05)
"""


def steady(journal: Path, name: str) -> Service:
    """A service that is ready once it has said so in the journal, and notes that it drained."""
    return Service(
        name,
        script(STEADY, str(journal), name),
        ready=lambda: journal.exists() and f"{name} up" in journal.read_text(),
    )


def test_stages_start_in_order_and_drain_in_reverse(tmp_path: Path) -> None:
    journal, reports = tmp_path / "journal", list[str]()

    def topics() -> None:
        with journal.open("a") as lines:
            lines.write("topics\n")

    supervisor = Supervisor(
        [Stage([steady(journal, "kafka")], then=topics), Stage([steady(journal, "worker")])],
        logs=tmp_path / "logs",
        report=reports.append,
    )
    supervisor.start()
    assert set(supervisor.pids()) == {"kafka", "worker"}
    supervisor.stop()
    supervisor.wait()
    assert journal.read_text().splitlines() == [
        "kafka up",
        "topics",
        "worker up",
        "worker drained",
        "kafka drained",
    ]
    assert reports == ["kafka is ready", "worker is ready"]
    assert (tmp_path / "logs" / "worker.log").read_text() == "hello from worker\n"
    assert supervisor.pids() == {}


def test_a_killed_service_starts_again(tmp_path: Path) -> None:
    reports: list[str] = []
    journal = tmp_path / "journal"
    supervisor = Supervisor([Stage([steady(journal, "worker")])], logs=tmp_path, report=reports.append, policy=PROMPT)
    supervisor.start()
    try:
        first = supervisor.pids()["worker"]
        os.kill(first, signal.SIGKILL)
        until(lambda: "worker is back" in reports and journal.read_text().count("worker up") == 2)
        assert supervisor.pids()["worker"] != first
    finally:
        supervisor.stop()
    assert reports[0] == "worker is ready"
    assert reports[1].startswith("worker has ended (killed by SIGKILL). Its last lines in ")
    assert "    hello from worker\nworker starts again in 0.0 s" in reports[1]
    assert journal.read_text().splitlines() == ["worker up", "worker up", "worker drained"]


def test_a_service_that_keeps_dying_is_given_up_and_all_is_stopped(tmp_path: Path) -> None:
    journal, count = tmp_path / "journal", tmp_path / "count"
    dying = script(
        """
        import sys
        open(sys.argv[1], "a").write("x")
        sys.exit("the model is not there")
        """,
        str(count),
    )
    supervisor = Supervisor(
        [Stage([steady(journal, "kafka")]), Stage([Service("encoder", dying, ready=lambda: False)])],
        logs=tmp_path,
        report=lambda _: None,
        policy=PROMPT,
    )
    with pytest.raises(ServiceFailed, match=r"(?s)encoder can.t be kept running: death 3 .*the model is not there"):
        supervisor.start()
    with pytest.raises(ServiceFailed):
        supervisor.wait()
    assert count.read_text() == "xxx", "one start and two restarts"
    assert journal.read_text().splitlines() == ["kafka up", "kafka drained"]


def test_a_usage_error_is_not_tried_again(tmp_path: Path) -> None:
    dying = script('import sys; print("no such setting"); sys.exit(2)')
    supervisor = Supervisor(
        [Stage([Service("worker", dying, ready=lambda: False)])], logs=tmp_path, report=lambda _: None
    )
    with pytest.raises(ServiceFailed, match=r"(?s)exit code 2.*no such setting"):
        supervisor.start()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    supervisor = Supervisor(
        [Stage([Service("qdrant", [missing], ready=lambda: False)])],
        logs=tmp_path,
        report=lambda _: None,
        policy=PROMPT,
    )
    with pytest.raises(ServiceFailed, match=f"{missing} can't be started: No such file"):
        supervisor.start()


def test_a_service_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    asleep = script("import time; time.sleep(600)")
    supervisor = Supervisor(
        [Stage([Service("kafka", asleep, ready=lambda: False, ready_seconds=0.1)])],
        logs=tmp_path,
        report=lambda _: None,
        policy=RestartPolicy(most_restarts=0),
    )
    with pytest.raises(ServiceFailed, match="not ready after 0 s"):
        supervisor.start()
    assert supervisor.pids() == {}


def test_what_does_not_drain_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    stubborn = script(
        """
        import os, pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path(sys.argv[1] + ".new").write_text(f"{os.getpid()} {child.pid}")
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(600)
        """,
        str(pids),
    )
    reports: list[str] = []
    supervisor = Supervisor(
        [Stage([Service("worker", stubborn, ready=pids.exists, drain_seconds=0.2)])],
        logs=tmp_path,
        report=reports.append,
    )
    supervisor.start()
    supervisor.stop()
    assert reports == ["worker is ready", "worker has not drained in time and is killed"]
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: has_ended(pid))  # type: ignore[misc]


def test_asked_a_second_time_it_does_not_wait(tmp_path: Path) -> None:
    stubborn = script(
        """
        import pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(sys.argv[1]).touch()
        time.sleep(600)
        """,
        str(tmp_path / "up"),
    )
    supervisor = Supervisor(
        [Stage([Service("worker", stubborn, ready=(tmp_path / "up").exists, drain_seconds=3600.0)])],
        logs=tmp_path,
        report=lambda _: None,
    )
    supervisor.start()
    pid = supervisor.pids()["worker"]
    supervisor.ask_to_stop()
    supervisor.ask_to_stop()
    supervisor.wait()
    assert has_ended(pid)


SUPERVISED = """
    import pathlib, sys, time
    from deploy.supervisor import Service, Stage, Supervisor
    folder = pathlib.Path(sys.argv[1])
    child = '''
    import os, pathlib, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(sys.argv[1] + "/new").write_text(f"{os.getppid()} {os.getpid()} {grandchild.pid}")
    os.rename(sys.argv[1] + "/new", sys.argv[1] + "/pids")
    time.sleep(600)
    '''
    import textwrap
    command = [sys.executable, "-c", textwrap.dedent(child), str(folder)]
    service = Service("java", command, ready=(folder / "pids").exists)
    supervisor = Supervisor([Stage([service])], logs=folder, report=print)
    supervisor.start()
    print("READY", flush=True)
    supervisor.wait()
"""


def test_kill_9_of_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(script(SUPERVISED, str(tmp_path)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "READY\n":
            assert process.poll() is None
        supervisor = psutil.Process(process.pid)
        family = supervisor.children(recursive=True)
        supervisor_pid, child, grandchild = map(int, (tmp_path / "pids").read_text().split())
        assert supervisor_pid == process.pid
        assert {child, grandchild} < {one.pid for one in family}, "and the reaper"
        process.kill()
    for one in family:
        until(lambda one=one: has_ended(one.pid))  # type: ignore[misc]


def test_the_terminals_ctrl_c_does_not_reach_a_child(tmp_path: Path) -> None:
    supervisor = Supervisor([Stage([steady(tmp_path / "journal", "worker")])], logs=tmp_path, report=lambda _: None)
    supervisor.start()
    try:
        pid = supervisor.pids()["worker"]
        assert os.getsid(pid) == pid
        assert os.getpgid(pid) != os.getpgid(0)
    finally:
        supervisor.stop()


def test_the_last_run_s_log_is_kept_beside(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("the last run\n")
    supervisor = Supervisor([Stage([steady(tmp_path / "journal", "worker")])], logs=tmp_path, report=lambda _: None)
    supervisor.start()
    supervisor.stop()
    assert (tmp_path / "worker.log.1").read_text() == "the last run\n"
    assert (tmp_path / "worker.log").read_text() == "hello from worker\n"


def test_a_service_leaves_the_cores_to_the_others_if_it_is_told_to(tmp_path: Path) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    worker = steady(tmp_path / "journal", "worker")
    statistics = replace(steady(tmp_path / "journal", "statistics"), niceness=mine + 5)
    supervisor = Supervisor([Stage([worker, statistics])], logs=tmp_path, report=lambda _: None)
    supervisor.start()
    try:
        pids = supervisor.pids()
        assert os.getpriority(os.PRIO_PROCESS, pids["worker"]) == mine
        assert os.getpriority(os.PRIO_PROCESS, pids["statistics"]) == mine + 5
    finally:
        supervisor.stop()
