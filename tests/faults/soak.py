"""Randomised histories: `python -m faults.soak --seeds 0-99` (`make soak`).

Each draws its events, and a schedule of many faults, from its seed. Then everything is healed, waited for, and judged.
A seed draws the same events and the same schedule at every run; when exactly they meet is the machine's affair.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from faults.failing_worker import STEPS
from faults.history import History, problems, running_history
from faults.proxy import Fault, Kind
from faults.services import Process, Services, running_services

FROZEN_SECONDS: Final = 7.5  # a session is 6 s
WAVES: Final = (8, 14)  # of events in a history, at least and at most; every other one meets a fault
PAUSE_SECONDS: Final = 0.6  # between waves, at most
WORKERS: Final = 3  # at most


class Outcome(NamedTuple):
    seed: int
    events: int
    faults: Mapping[str, int]
    seconds: float
    problems: Sequence[str]


class Script:
    """What happens in one history, one thing after the other."""

    def __init__(self, history: History, services: Services, seed: int) -> None:
        self._history = history
        self._services = services
        self._chance = random.Random(f"faults {seed}")
        self._frozen: list[tuple[float, Process]] = []
        self._ended: list[Process] = []  # workers that were killed or stopped
        self._doomed: list[Process] = []  # workers that kill themselves at a step
        self.faults: Counter[str] = Counter()

    def run(self) -> None:
        """Ends with everything that was produced still to be waited for."""
        self._history.worker()
        if self._chance.random() < 0.6:
            self._history.worker()
        self._history.announce(self._chance.choice((0.0, 0.3, 0.7)))
        self._history.shop(100)
        if self._chance.random() < 0.8:  # else faults begin while workers start
            self._history.wait_until_some_are_folded()
        faults = self._drawn()
        for wave in range(self._chance.randint(*WAVES)):
            self._events()
            self._wake_who_slept()
            if wave % 2 == 0:
                faults[wave // 2 % len(faults)]()
            time.sleep(self._chance.uniform(0.1, PAUSE_SECONDS))
        self._history.fault = None
        self._history.announce()
        for until, process in self._frozen:
            time.sleep(max(0.0, until - time.monotonic()))
            process.wake()
        self._frozen.clear()
        self._services.heal()
        # Whoever is doomed may die only now, of what comes last.
        self._history.worker()

    def gave_up(self) -> list[Process]:
        """Workers that ended by themselves."""
        return [
            worker
            for worker in self._history.workers
            if not worker.runs
            and worker not in self._ended
            and not (worker in self._doomed and worker.exit_code == -signal.SIGKILL)
        ]

    def _drawn(self) -> list[Callable[[], None]]:
        """The faults of this history, in their order: few kinds that come again and again, or many once."""
        weighted: list[tuple[Callable[[], None], int]] = [
            (self._kill_worker, 5),
            (self._doom_worker, 6),
            (self._add_worker, 2),
            (self._add_worker_with_wrong_clock, 1),
            (self._stop_worker, 2),
            (self._freeze_worker, 4),
            (self._kill_encoder, 2),
            (self._freeze_encoder, 1),
            (self._kill_qdrant, 3),
            (self._freeze_qdrant, 2),
            (self._kill_broker, 1),
            (self._freeze_broker, 1),
            (self._answer_badly, 8),
            (self._answer_well, 2),
            (self._send_again, 2),
        ]
        actions, weights = zip(*weighted, strict=True)
        faults: list[Callable[[], None]] = self._chance.choices(actions, weights, k=WAVES[1] // 2 + 1)
        if faults.count(self._kill_broker) > 1:  # each takes 12 s
            faults = [fault for fault in faults if fault != self._kill_broker] + [self._kill_broker]
        return faults

    def _events(self) -> None:
        what = self._chance.random()
        if what < 0.7:
            repeats = self._chance.choice((0.05, 0.05, 0.5))
            self._history.shop(self._chance.randint(10, 60), repeats=repeats, poison=self._chance.choice((0.0, 0.1)))
        elif what < 0.85:
            self._history.announce(0.3)
        else:
            self._history.revise(self._chance.randint(1, 5))

    def _kill_worker(self) -> None:
        if worker := self._chosen():
            self._ended.append(worker)
            worker.kill()
            self._told("worker killed")
            self._history.worker()

    def _doom_worker(self) -> None:
        """One that is going to die in the middle of something comes to those that run."""
        self._make_room()
        failpoint = f"{self._chance.choice(STEPS)}:{self._chance.randint(1, 4)}"
        self._doomed.append(self._history.worker(failpoint=failpoint))
        self._told("worker to be killed at a step")

    def _add_worker(self) -> None:
        self._make_room()
        self._history.worker()
        self._told("worker joins")

    def _add_worker_with_wrong_clock(self) -> None:
        self._make_room()
        self._history.worker(clock_shift_seconds=self._chance.choice((-7200, 7200)))
        self._told("worker with a wrong clock")

    def _stop_worker(self) -> None:
        if len(self._running()) > 1 and (worker := self._chosen()):
            self._ended.append(worker)
            worker.stop()
            self._told("worker leaves")

    def _make_room(self) -> None:
        while len(self._running()) >= WORKERS:
            self._stop_worker()

    def _freeze_worker(self) -> None:
        """Beyond its session: its partitions move, and it goes on where it was when it wakes."""
        if not self._frozen and (worker := self._chosen()):
            worker.freeze()
            self._frozen.append((time.monotonic() + FROZEN_SECONDS, worker))
            self._told("worker frozen")
            if not self._running():
                self._history.worker()

    def _wake_who_slept(self) -> None:
        for until, process in self._frozen.copy():
            if time.monotonic() >= until:
                process.wake()
                self._frozen.remove((until, process))

    def _kill_encoder(self) -> None:
        self._services.encoder.kill()
        self._services.encoder.start()
        self._told("encoder killed")

    def _kill_qdrant(self) -> None:
        self._services.qdrant.kill()
        time.sleep(self._chance.uniform(0.0, 1.0))
        self._services.qdrant.start()
        self._told("Qdrant killed")

    def _kill_broker(self) -> None:
        self._services.kafka.kill()
        self._services.kafka.start()
        self._services.kafka.wait()
        self._told("broker killed")

    def _freeze_encoder(self) -> None:
        self._freeze("encoder", self._services.encoder)

    def _freeze_qdrant(self) -> None:
        self._freeze("Qdrant", self._services.qdrant)

    def _freeze_broker(self) -> None:
        self._freeze("broker", self._services.kafka)

    def _freeze(self, name: str, service: Process) -> None:
        if not service.runs:
            return
        service.freeze()
        time.sleep(self._chance.uniform(0.5, 3.0))
        service.wake()
        self._told(f"{name} frozen")

    def _answer_badly(self) -> None:
        kind = self._chance.choice(list(Kind))
        seconds = {Kind.SLOW: 0.5, Kind.LAND_LATE: 4.0}.get(kind, 0.0)
        self._history.fault = Fault(kind, seconds, self._chance.choice((0.2, 0.6)))
        self._told(f"Qdrant: {kind}")

    def _answer_well(self) -> None:
        self._history.fault = None

    def _send_again(self) -> None:
        self._history.shop(40, repeats=1.0)
        self._told("everything sent twice")

    def _told(self, fault: str) -> None:
        self.faults[fault] += 1

    def _running(self) -> list[Process]:
        asleep = {process for _, process in self._frozen}
        return [worker for worker in self._history.workers if worker.runs and worker not in asleep]

    def _chosen(self) -> Process | None:
        running = self._running()
        return self._chance.choice(running) if running else None


def lived_through(seed: int, services: Services) -> Outcome:
    """One history, from its beginning to the verdict."""
    began = time.monotonic()
    services.heal()
    with running_history(services, seed=seed) as history:
        script = Script(history, services, seed)
        try:
            script.run()
            history.wait_until_folded()
            found = problems(history, history.verdict())
        except AssertionError as error:
            found = [str(error)]
        found += [
            f"{worker.name} gave up with exit code {worker.exit_code}:\n{worker.told()}" for worker in script.gave_up()
        ]
        return Outcome(seed, history.customers.events, script.faults, time.monotonic() - began, found)


def line(outcome: Outcome) -> str:
    """An outcome in one line."""
    faults = ", ".join(f"{name} × {count}" for name, count in sorted(outcome.faults.items()))
    result = f"{len(outcome.problems)} DIFFERENCES" if outcome.problems else "no difference"
    return f"seed {outcome.seed}: {outcome.events:,} events, {outcome.seconds:.0f} s, {result} ({faults})"


def report(outcomes: Sequence[Outcome]) -> str:
    """Results to be kept, as Markdown."""
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    different = [outcome for outcome in outcomes if outcome.problems]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    lines = [
        "# Randomised histories",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {platform.machine()} {platform.system()}, "
        f"{_cores()} cores, Python {platform.python_version()}.",
        "",
        f"{len(outcomes)} histories, {sum(outcome.events for outcome in outcomes):,} searches and purchases, "
        f"{sum(faults.values()):,} faults, **{len(different)} histories with a difference**.",
        "",
        "| Fault | Times |",
        "| --- | ---: |",
        *(f"| {name} | {count} |" for name, count in sorted(faults.items())),
        "",
        "| Seed | Events | Faults | Seconds | Differences |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {one.seed} | {one.events:,} | {sum(one.faults.values())} | {one.seconds:.0f} | {len(one.problems)} |"
            for one in outcomes
        ),
        "",
    ]
    return "\n".join(lines)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


@contextmanager
def _scratch(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="afterglow-soak-") as folder:
        yield Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--seeds", type=_seeds, default=_seeds("0-99"), metavar="FIRST-LAST", help="which histories (default: 0-99)"
    )
    parser.add_argument("--keep-going", action="store_true", help="don't stop at the first difference")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the results there, as Markdown")
    parser.add_argument("--folder", type=Path, help="keep logs and data there, to look into a difference")
    options = parser.parse_args(arguments)
    logging.getLogger("afterglow.kafka").setLevel(logging.CRITICAL)  # brokers are killed here
    outcomes = []
    with _scratch(options.folder) as folder, running_services(folder.absolute()) as services:
        for seed in options.seeds:
            outcome = lived_through(seed, services)
            outcomes.append(outcome)
            sys.stdout.write("\n".join([line(outcome), *outcome.problems]) + "\n")
            sys.stdout.flush()
            if options.results:
                options.results.write_text(report(outcomes))
            if outcome.problems and not options.keep_going:
                break
    different = sum(bool(outcome.problems) for outcome in outcomes)
    sys.stdout.write(f"{len(outcomes)} histories, {different} with a difference\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
