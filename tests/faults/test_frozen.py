"""A worker that is frozen with a batch in its hands: its partitions move, and it wakes up and goes on where it was."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from faults.history import problems, running_history
from faults.services import Services

from deploy.ports import is_free

pytestmark = pytest.mark.end_to_end

PORTS = {"folded": range(21_000, 21_500), "answered": range(21_500, 22_000)}
WRITES_AGAIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def outcomes(services: Services, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[list[str]]]]:
    """What becomes of each step's history: at once, since they mostly wait for a session to end."""
    services.heal()
    chosen = [item.callspec.params["step"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(len(PORTS)) as pool:
        yield {step: pool.submit(frozen_at, step, services) for step in chosen}


def frozen_at(step: str, services: Services) -> list[str]:
    """Another worker folds everything before the frozen one wakes, which then has to do all by itself."""
    port = next(port for port in PORTS[step] if is_free(port))
    with running_history(services, seed=3) as history:
        victim = history.worker(failpoint=f"{step}:3:SIGSTOP", WORKER_METRICS_PORT=str(port))
        history.announce(0.5)
        history.shop(400, poison=0.05)
        victim.wait_until_it_says(f"failpoint {step}")
        other = history.worker()
        history.shop(200)
        history.wait_until_folded()
        by_the_other = problems(history, history.verdict())
        victim.wake()
        if step == "folded":
            wait_for_a_refused_write(port)
        history.shop(200)
        history.announce()
        history.wait_until_folded()
        if not victim.runs:
            # Faust may drop what it fetched while partitions moved: the worker then ends, and is started again.
            assert "left out records that Kafka has" in victim.told()
            history.worker().wait()
        other.stop()
        history.shop(200)
        history.wait_until_folded()
        return [*by_the_other, *problems(history, history.verdict())]


def wait_for_a_refused_write(port: int) -> None:
    """What the worker had folded before it was frozen replaces nothing that was written since."""
    deadline = time.monotonic() + WRITES_AGAIN_SECONDS
    while figure(port, "afterglow_writes_redone_total") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def figure(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return next(float(line.split()[1]) for line in answer.read().decode().splitlines() if line.startswith(name))


@pytest.mark.parametrize("step", PORTS)
def test_frozen_at(step: str, outcomes: Mapping[str, Future[list[str]]]) -> None:
    assert outcomes[step].result() == []
