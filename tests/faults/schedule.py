"""What befalls one history: a schedule of faults and events, drawn from its seed, and healed in the end."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from faults.failing_worker import STEPS
from faults.history import History, problems
from faults.proxy import Fault, Kind
from faults.services import Process

EVENTS_OF_A_STEP: Final = (10, 80)
BEYOND_THE_SESSION_SECONDS: Final = 7.5
SETTLED_SECONDS: Final = 30.0
MOST_WORKERS: Final = 3


class Schedule:
    """One history's faults, one after another, while its customers go on shopping. `done` counts them by name."""

    def __init__(self, seed: int, history: History) -> None:
        self.history = history
        self.done: Counter[str] = Counter()
        self._chance = random.Random(f"faults of {seed}")
        self._ended_by_us: set[Process] = set()
        self._frozen: set[Process] = set()
        proxied: list[tuple[int, str, Callable[[], None]]] = [
            (3, f"Qdrant: {kind.value}", lambda kind=kind: self._misbehave(kind)) for kind in Kind
        ]
        self._faults: list[tuple[int, str, Callable[[], None]]] = [
            *proxied,
            (6, "worker killed", self._kill_worker),
            (6, "worker killed at a step", self._kill_at_step),
            (3, "worker joins", self._join),
            (3, "worker leaves", self._leave),
            (3, "worker frozen beyond its session", self._freeze_worker),
            (1, "worker with a wrong clock", self._join_with_wrong_clock),
            (2, "encoding worker killed", lambda: self._kill_service(self.history.services.encoder)),
            (3, "Qdrant killed", lambda: self._kill_service(self.history.services.qdrant)),
            (1, "broker killed", lambda: self._kill_service(self.history.services.kafka)),
            (1, "encoding worker frozen", lambda: self._freeze_service(self.history.services.encoder)),
            (2, "Qdrant frozen", lambda: self._freeze_service(self.history.services.qdrant)),
            (3, "everything sent again", lambda: self.history.shop(40, repeats=1.0)),
            (2, "poison", lambda: self.history.shop(20, poison=0.5)),
            (2, "products changed and deleted", lambda: self.history.revise(20)),
        ]

    def run(self, steps: int) -> list[str]:
        """What is wrong in the end, in words; nothing where all is well."""
        self.history.announce(self._chance.uniform(0.0, 0.5))
        for _ in range(self._chance.randint(1, 2)):
            self.history.worker()
        weights = [weight for weight, _, _ in self._faults]
        for _ in range(steps):
            _, name, happen = self._chance.choices(self._faults, weights)[0]
            self.history.shop(self._chance.randint(*EVENTS_OF_A_STEP))
            self.done[name] += 1
            happen()
            if self._chance.random() < 0.3:
                self.history.announce(self._chance.uniform(0.1, 0.4))
            time.sleep(self._chance.uniform(0.1, 1.0))
        return self._heal_and_judge()

    def _heal_and_judge(self) -> list[str]:
        history = self.history
        history.fault = None
        for process in list(self._frozen):
            self._wake(process)
        history.services.heal()
        if not self._running():
            history.worker()
        history.shop(20)
        history.announce()
        history.wait_until_folded()
        return [*self._unexpected_ends(), *self._waiting_in_vain(), *problems(history, history.verdict())]

    def _unexpected_ends(self) -> list[str]:
        return [
            f"{worker.name} ended by itself ({worker.wait_for_end()}): {worker.told()}"
            for worker in self.history.workers
            if not worker.runs and worker not in self._ended_by_us and worker.wait_for_end() != -signal.SIGKILL
        ]

    def _waiting_in_vain(self) -> list[str]:
        """Users who wait for a product that is known, and go on waiting."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            deleted = self.history.customers.deleted
            waiting = {
                user: sorted(state.pending - deleted)
                for user, state in self.history.states().items()
                if state.pending - deleted
            }
            if not waiting or time.monotonic() > deadline:
                return [f"user {user} waits in vain for {products}" for user, products in waiting.items()]
            time.sleep(0.2)

    def _running(self) -> list[Process]:
        return [worker for worker in self.history.workers if worker.runs and worker not in self._frozen]

    def _some_worker(self) -> Process:
        return self._chance.choice(self._running() or [self.history.worker()])

    def _kill_worker(self) -> None:
        victim = self._some_worker()
        self._ended_by_us.add(victim)
        victim.kill()
        if not self._running() or self._chance.random() < 0.5:
            self.history.worker()

    def _kill_at_step(self) -> None:
        """One that is going to die comes beside those that run, or instead of one of them."""
        if len(self._running()) >= MOST_WORKERS:
            self._leave()
        failpoint = f"{self._chance.choice(STEPS)}:{self._chance.randint(1, 4)}"
        self.history.worker(failpoint=failpoint).wait_until_it_says_or_ends("event=assigned")

    def _join(self) -> None:
        if len(self._running()) < MOST_WORKERS:
            self.history.worker()

    def _join_with_wrong_clock(self) -> None:
        if len(self._running()) < MOST_WORKERS:
            self.history.worker(clock_shift_seconds=self._chance.choice((-7200, 7200)))

    def _leave(self) -> None:
        leaver = self._some_worker()
        self._ended_by_us.add(leaver)
        leaver.terminate()
        if not self._running():
            self.history.worker()

    def _freeze_worker(self) -> None:
        """Its partitions move to another one, and it wakes up with a batch in its hands."""
        victim = self._some_worker()
        victim.freeze()
        self._frozen.add(victim)
        if not self._running():
            self.history.worker()
        until = time.monotonic() + BEYOND_THE_SESSION_SECONDS
        while time.monotonic() < until:
            self.history.shop(20)
            time.sleep(1.0)
        self._wake(victim)

    def _wake(self, process: Process) -> None:
        self._frozen.discard(process)
        process.wake()

    def _misbehave(self, kind: Kind) -> None:
        share = 1.0 if kind is Kind.SLOW else self._chance.uniform(0.2, 0.9)
        seconds = {Kind.SLOW: 0.3, Kind.LAND_LATE: 4.0}.get(kind, 0.0)
        self.history.fault = Fault(kind, seconds=seconds, share=share)
        self.history.shop(40)
        time.sleep(self._chance.uniform(0.5, 3.0))
        if self._chance.random() < 0.5:  # else it lasts until another one takes its place
            self.history.fault = None

    def _kill_service(self, service: Process) -> None:
        service.kill()
        if service is not self.history.services.kafka:
            self.history.shop(20)
            time.sleep(self._chance.uniform(0.0, 2.0))
        service.start()
        service.wait()

    def _freeze_service(self, service: Process) -> None:
        service.freeze()
        self.history.shop(20)
        time.sleep(self._chance.uniform(0.5, 3.0))
        service.wake()
