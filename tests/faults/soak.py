"""Many histories full of faults, each drawn from a seed and judged by `verify`: `python -m faults.soak --seeds 0-99`.

Several at once have services of their own each, so that one history's faults don't hit another one. Exits 1 where one
of them ends with a difference, and leaves the logs of that one's lane in place.
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from faults.history import running_history
from faults.schedule import Schedule
from faults.services import Services, running_services


@dataclass
class Report:
    """What became of one seed's history. `problems` empty: every event is folded in, once."""

    seed: int
    produced: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def events(self) -> int:
        return self.produced["searches"] + self.produced["purchases"]


def history_of(seed: int, services: Services) -> Report:
    """Runs it, start to end; whatever goes wrong is in the report."""
    report, started = Report(seed), time.monotonic()
    try:
        services.heal()
        with running_history(services, seed=seed, name=f"s{seed}-{os.urandom(2).hex()}") as history:
            schedule = Schedule(seed, history)
            report.faults, report.produced = schedule.done, history.customers.produced
            report.problems = schedule.run()
    except Exception:
        report.problems.append(traceback.format_exc())
    report.seconds = time.monotonic() - started
    return report


def soak(seeds: Sequence[int], folder: Path, lanes: int, results: Path | None) -> list[Report]:
    """Reports in the order in which the histories end, each told of at once."""
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in seeds:
        left.put(seed)
    reports: list[Report] = []
    telling = threading.Lock()

    def lane(number: int) -> None:
        with running_services(folder / str(number)) as services:
            while True:
                try:
                    seed = left.get_nowait()
                except queue.Empty:
                    return
                report = history_of(seed, services)
                with telling:
                    reports.append(report)
                    tell(report)
                    if results is not None:
                        results.write_text(table(reports))

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(lanes)]
    for number, thread in enumerate(threads):
        (folder / str(number)).mkdir()
        thread.start()
    for thread in threads:
        thread.join()
    return reports


def tell(report: Report) -> None:
    faults = ", ".join(f"{name} x{number}" if number > 1 else name for name, number in report.faults.items())
    sys.stdout.write(
        f"seed {report.seed}: {report.events} events, {report.seconds:.0f} s, {len(report.problems)} differences: "
        f"{faults}\n"
    )
    for problem in report.problems:
        sys.stdout.write(f"    {problem}\n")
    sys.stdout.flush()


def table(reports: Sequence[Report]) -> str:
    """The results in Markdown."""
    produced: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for report in reports:
        produced.update(report.produced)
        faults.update(report.faults)
    different = sum(1 for report in reports if report.problems)
    events = produced["searches"] + produced["purchases"]
    lines = [
        "# Randomised crash test: results",
        "",
        "`make soak`: each seed draws its events and its faults; in the end everything is healed and waited for, and "
        "`verify` compares every profile with the log.",
        "",
        f"- {len(reports)} histories, **{different} with differences**; {events} events, of which "
        f"{produced['repeats']} repeats; {produced['poison']} poison records; {faults.total()} faults",
        f"- commit {_commit()}, {datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {name} | {number} |" for name, number in faults.most_common()),
        "",
        "| seed | events | faults | differences |",
        "|---:|---:|---|---:|",
    ]
    for report in sorted(reports, key=lambda report: report.seed):
        told = ", ".join(f"{name} ×{number}" if number > 1 else name for name, number in sorted(report.faults.items()))
        lines.append(f"| {report.seed} | {report.events} | {told} | {len(report.problems)} |")
    return "\n".join([*lines, ""])


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def _seeds(text: str) -> Sequence[int]:
    """`7`, or `0-99`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(100), help="one, or first-last (default: 0-99)")
    parser.add_argument("--at-once", type=int, default=1, help="histories at once, with services of their own")
    parser.add_argument("--results", type=Path, help="write them to this file, in Markdown")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="afterglow-soak-"))
    sys.stdout.write(f"logs: {folder}\n")
    reports = soak(options.seeds, folder, options.at_once, options.results)
    different = sum(1 for report in reports if report.problems)
    sys.stdout.write(
        f"{len(reports)} histories, {sum(report.events for report in reports)} events, "
        f"{sum(report.faults.total() for report in reports)} faults: {different} with differences\n"
    )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
