"""Breadth-first search over every state that a scenario can reach; the first violation found has a shortest trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from protocol.model import (
    PROTOCOL,
    Rules,
    Scenario,
    State,
    Step,
    acknowledged_violation,
    canonical,
    complete,
    initial,
    prefix_violation,
    steps,
    without_dead,
)

Invariant = Callable[[State, Scenario, Rules], str | None]
INVARIANTS: tuple[Invariant, ...] = (prefix_violation, acknowledged_violation)


@dataclass
class Counterexample:
    """The shortest way into a state that must not be."""

    violation: str
    trace: list[Step]
    state: State

    @property
    def names(self) -> list[str]:
        return [step.name for step in self.trace]

    def __str__(self) -> str:
        return "\n".join([self.violation, *(f"{number:3} {step}" for number, step in enumerate(self.trace, 1))])


@dataclass
class Exploration:
    """What was seen. Without a counterexample: all there is."""

    states: int = 0
    complete: int = 0  # states in which everything is stored
    stuck: int = 0  # states from which no complete one can be reached
    taken: Counter[str] = field(default_factory=Counter)  # steps, by name
    counterexample: Counterexample | None = None


def explore(scenario: Scenario, rules: Rules = PROTOCOL, invariants: Sequence[Invariant] = INVARIANTS) -> Exploration:
    """Looks at every reachable state, once, until one violates an invariant.

    A state that was seen is known by its 64-bit hash alone, which keeps a million of them in 100 MB; the chance that
    two of a million share one, so that one is passed over, is below 1 in 10^7.
    """
    start = canonical(initial(scenario))
    found = Exploration(states=1)
    came_from: dict[int, int] = {hash(start): 0}
    level = [start]
    edges: list[tuple[int, int]] = []
    ends: list[int] = []
    while level:
        next_level = []
        for state in level:
            key = hash(state)
            if complete(state, scenario):
                ends.append(key)
            for step, reached in steps(state, scenario, rules):
                found.taken[step.name] += 1
                after = canonical(without_dead(reached, scenario, rules))
                after_key = hash(after)
                edges.append((key, after_key))
                if after_key in came_from:
                    continue
                came_from[after_key] = key
                found.states += 1
                for invariant in invariants:
                    if (violation := invariant(after, scenario, rules)) is not None:
                        found.counterexample = Counterexample(
                            violation, _trace(start, after_key, came_from, scenario, rules), after
                        )
                        return found
                next_level.append(after)
        level = next_level
    found.complete = len(ends)
    found.stuck = found.states - _leading_to(ends, edges)
    return found


def _leading_to(ends: Sequence[int], edges: Iterable[tuple[int, int]]) -> int:
    """How many states there are from which one of `ends` can be reached, those included."""
    before: dict[int, list[int]] = {}
    for source, target in edges:
        before.setdefault(target, []).append(source)
    reached, waiting = set(ends), list(ends)
    while waiting:
        for source in before.get(waiting.pop(), ()):
            if source not in reached:
                reached.add(source)
                waiting.append(source)
    return len(reached)


def _trace(start: State, end: int, came_from: dict[int, int], scenario: Scenario, rules: Rules) -> list[Step]:
    """Takes the way to `end` once more, to name its steps."""
    way = [end]
    while way[-1] != hash(start):
        way.append(came_from[way[-1]])
    trace, state = [], start
    for key in reversed(way[:-1]):
        for step, reached in steps(state, scenario, rules):
            state_after = canonical(without_dead(reached, scenario, rules))
            if hash(state_after) == key:
                trace.append(step)
                state = state_after
                break
        else:
            raise AssertionError("a step of the trace can't be taken again")
    return trace
