"""A worker that is frozen with a batch in its hands: its partitions move, and it wakes up and goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from faults.history import problems, running_history
from faults.services import Services

pytestmark = pytest.mark.end_to_end

STEPS = ("encoded", "folded", "answered", "acknowledged")


@pytest.fixture(scope="module")
def outcomes(services: Services, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[list[str]]]]:
    """What becomes of each step's history: at once, since they mostly wait for a session to end."""
    services.heal()
    chosen = [item.callspec.params["step"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(len(STEPS)) as pool:
        yield {step: pool.submit(frozen_at, step, services) for step in chosen}


def frozen_at(step: str, services: Services) -> list[str]:
    """Another worker folds everything before the frozen one wakes, which then has to do all by itself."""
    with running_history(services, seed=3) as history:
        victim = history.worker(failpoint=f"{step}:3:SIGSTOP")
        history.announce(0.5)
        history.shop(400, poison=0.05)
        victim.wait_until_it_says(f"failpoint {step}")
        other = history.worker()
        history.shop(200)
        history.wait_until_folded()
        by_the_other = problems(history, history.verdict())
        victim.wake()
        history.shop(200)
        history.announce()
        history.wait_until_folded()
        other.stop()
        history.shop(200)
        history.wait_until_folded()
        return [*by_the_other, *problems(history, history.verdict())]


@pytest.mark.parametrize("step", STEPS)
def test_frozen_at(step: str, outcomes: Mapping[str, Future[list[str]]]) -> None:
    assert outcomes[step].result() == []
