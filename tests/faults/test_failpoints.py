"""A worker killed with -9 at every step: whoever comes after it finishes its work, and counts nothing twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest
from faults.failing_worker import STEPS
from faults.history import problems, running_history
from faults.proxy import Fault, Kind
from faults.services import Services

pytestmark = pytest.mark.end_to_end

AT_ONCE = 3
SOON_SECONDS = 60.0
RARE = ("mean written", "refreshing", "refreshed", "settling", "settled")


class Outcome(NamedTuple):
    exit_code: int
    died_at: str
    problems: list[str]


@pytest.fixture(scope="module")
def outcomes(services: Services, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Outcome]]]:
    """What becomes of each step's history: some at once, since they mostly wait for a dead worker's session to end."""
    services.heal()
    chosen = [item.callspec.params["step"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {step: pool.submit(killed_at, step, services) for step in chosen}


def killed_at(step: str, services: Services) -> Outcome:
    """A history whose first worker is killed at that step, in the midst of events; another one takes over."""
    with running_history(services) as history:
        victim = history.worker(failpoint=f"{step}:{1 if step in RARE else 2}")
        victim.wait_until_it_says("event=assigned")
        if step == "sent":
            history.fault = Fault(Kind.TIME_OUT)  # no answer comes before the worker is dead
        deadline = time.monotonic() + SOON_SECONDS
        history.announce(0.2)
        while victim.runs and time.monotonic() < deadline:
            history.shop(20, poison=0.1)
            time.sleep(0.2)
            history.announce(0.1)
        died_at = victim.told().rpartition("failpoint ")[2]
        exit_code = victim.wait_for_end()
        history.fault = None
        history.worker()
        history.shop(50)
        history.announce()
        history.wait_until_folded()
        return Outcome(exit_code, died_at, problems(history, history.verdict()))


@pytest.mark.parametrize("step", STEPS)
def test_killed_at(step: str, outcomes: Mapping[str, Future[Outcome]]) -> None:
    assert outcomes[step].result() == Outcome(-signal.SIGKILL, died_at=step, problems=[])
