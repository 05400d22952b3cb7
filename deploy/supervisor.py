"""Keeps the processes of one machine running: in order of readiness, restarted when they die, drained in
reverse.

One thread owns every child and all state; callers ask it to stop and wait for it. When it ends by itself, it
has failed: `failure` says why, and everything it started has been stopped.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.children import Child, ends
from deploy.reaper import Reaper

TICK_SECONDS = 0.1
SLOW_SECONDS = 15.0
USAGE_ERROR = 2


class ServiceFailed(Exception):
    """A service can't be kept running; the message has its last lines."""


def at_once() -> bool:
    """Ready as soon as it is started."""
    return True


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running.

    `ready` is asked again and again after each start, until it says yes; one that doesn't within `ready_seconds`
    can't be kept running. It is asked from the supervisor's thread, which waits for the answer: be brief. `niceness`
    is that of nice(1).
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = at_once
    ready_seconds: float = 600.0
    drain_seconds: float = 30.0
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """Services that start together; when all are ready, `then` runs, and the next stage starts."""

    services: Sequence[Service]
    then: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A dead service starts again after `first_delay_seconds`, doubled for each death within the window.

    One death more than `most_restarts` within `window_seconds` means that it can't be kept running.
    """

    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 10.0
    most_restarts: int = 5
    window_seconds: float = 120.0

    def delay(self, deaths: int) -> float:
        return min(self.longest_delay_seconds, self.first_delay_seconds * 2.0 ** (deaths - 1))


@dataclass(slots=True)
class _Running:
    service: Service
    child: Child | None = None
    start_at: float = 0.0
    ready_by: float = 0.0
    ready: bool = False
    slow: bool = False
    started: int = 0
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Runs `stages` until `stop`, with one log file a service in `logs`.

    Guarantees: after `stop`, after a failure, and after a kill -9 of this process, none of what it started
    runs on (after a kill -9: within moments). A service whose exit code is 2 (usage) is not restarted: it
    would say the same.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        logs: Path,
        report: Callable[[str], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._stages = stages
        self._logs = logs
        self._report = report
        self._policy = policy or RestartPolicy()
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._reaper: Reaper | None = None
        # Not waited for when the interpreter ends: a caller that crashes must not leave the services running.
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.failure: ServiceFailed | None = None

    def start(self) -> None:
        """Start everything; returns when all is ready, or `stop` was asked for. Raises ServiceFailed."""
        self._thread.start()
        while not self._ready.wait(TICK_SECONDS) and not self._ended.is_set():
            pass
        if self.failure is not None:
            raise self.failure

    def wait(self) -> None:
        """Return when everything has been stopped. Raises ServiceFailed when that was not by `stop`."""
        while not self._ended.wait(TICK_SECONDS):  # short waits let signal handlers run
            pass
        if self.failure is not None:
            raise self.failure

    def ask_to_stop(self) -> None:
        """Begin to drain; asked a second time, kill what still runs. Returns at once; callable from signal handlers."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    def stop(self) -> None:
        """Drain everything, in reverse order, and return when it is done."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by service."""
        return {one.service.name: one.child.pid for one in self._running if one.child is not None}

    def _run(self) -> None:
        self._reaper = Reaper()
        try:
            for stage in self._stages:
                if not self._start_stage(stage):
                    return
            self._ready.set()
            while not self._stopping.wait(TICK_SECONDS):
                self._tick()
        except ServiceFailed as failure:
            self.failure = failure
        except Exception as error:  # a `then` or a `ready` of the caller's
            self.failure = ServiceFailed(f"{type(error).__name__}: {error}")
            self.failure.__cause__ = error
        finally:
            self._drain()
            self._reaper.close()
            self._ended.set()

    def _start_stage(self, stage: Stage) -> bool:
        """False when `stop` came first."""
        for service in stage.services:
            self._keep_last_log(service)
            self._running.append(_Running(service))
        while not self._stopping.is_set():
            self._tick()
            if all(one.ready for one in self._running):
                if stage.then is not None:
                    stage.then()
                return True
            self._stopping.wait(TICK_SECONDS)
        return False

    def _tick(self) -> None:
        for one in self._running:
            if one.child is None:
                if time.monotonic() >= one.start_at:
                    self._spawn(one)
            elif one.child.exit_code is not None:
                self._bury(one, one.child, one.child.exit_code)
            elif not one.ready:
                self._probe(one, one.child)

    def _spawn(self, one: _Running) -> None:
        service = one.service
        one.child = Child(
            service.name,
            service.command,
            log=self._log(service),
            environment=service.environment,
            niceness=service.niceness,
        )
        assert self._reaper is not None
        self._reaper.watch(one.child.pid)
        one.started += 1
        one.slow = False
        one.ready_by = time.monotonic() + service.ready_seconds

    def _probe(self, one: _Running, child: Child) -> None:
        one.ready = one.service.ready()
        if one.ready:
            self._report(f"{one.service.name} is {'ready' if one.started == 1 else 'back'}")
        elif time.monotonic() > one.ready_by:
            seconds = one.service.ready_seconds
            raise ServiceFailed(f"{one.service.name} is not ready after {seconds:.0f} s. {_last_words(child)}")
        elif not one.slow and time.monotonic() > one.ready_by - one.service.ready_seconds + SLOW_SECONDS:
            one.slow = True
            self._report(f"{one.service.name} is still starting; its log is {child.log}")

    def _bury(self, one: _Running, child: Child, exit_code: int) -> None:
        """Take note of a death, with the last words; start again later, or give up."""
        self._remove(one, child)
        now = time.monotonic()
        one.deaths.append(now)
        while now - one.deaths[0] > self._policy.window_seconds:
            one.deaths.popleft()
        name = one.service.name
        story = f"{name} has ended ({ends(exit_code)}). {_last_words(child)}"
        if exit_code == USAGE_ERROR:
            raise ServiceFailed(story)
        if len(one.deaths) > self._policy.most_restarts:
            window = self._policy.window_seconds
            raise ServiceFailed(f"{name} can't be kept running: death {len(one.deaths)} within {window:.0f} s. {story}")
        delay = self._policy.delay(len(one.deaths))
        one.start_at = now + delay
        self._report(f"{story}\n{name} starts again in {delay:.1f} s")

    def _drain(self) -> None:
        """Stage by stage, the last first: SIGTERM to all of a stage, then SIGKILL to what outlives its deadline."""
        for stage in reversed(self._stages):
            names = {service.name for service in stage.services}
            alive = [(one, one.child) for one in self._running if one.service.name in names and one.child]
            for _, child in alive:
                child.terminate()
            started = time.monotonic()
            while alive:
                for one, child in list(alive):
                    late = self._hurried.is_set() or time.monotonic() - started > one.service.drain_seconds
                    if child.exit_code is not None or late:
                        if child.exit_code is None:
                            self._report(f"{one.service.name} has not drained in time and is killed")
                        self._remove(one, child)
                        alive.remove((one, child))
                time.sleep(TICK_SECONDS / 4)

    def _remove(self, one: _Running, child: Child) -> None:
        child.kill()
        assert self._reaper is not None
        self._reaper.forget(child.pid)
        one.child = None
        one.ready = False

    def _log(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"

    def _keep_last_log(self, service: Service) -> None:
        log = self._log(service)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))


def _last_words(child: Child) -> str:
    words = "".join(f"\n    {line}" for line in child.last_lines())
    return f"Its last lines in {child.log}:{words or ' none'}"
