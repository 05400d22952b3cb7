"""The write protocol, explored: no order of steps and faults loses an event or counts one twice.

Every scenario below is searched to its end: every order of reading, folding, sending, landing (at once, late, or
never), reading back, redoing, acknowledging, committing, and of as many faults as the scenario names. What is small
is the number of events, workers and faults, not the number of orders. Not covered: more of each; a Qdrant that loses
what it has acknowledged, or whose replicas disagree; bytes, vectors and time, which have tests of their own.

Then mutants: the protocol without one of its rules. Each has to be found, by a trace of the expected kind, or the
search would prove nothing.
"""

import pytest
from protocol.explore import INVARIANTS, Counterexample, Invariant, explore
from protocol.model import Faults, ReadBack, Rules, Scenario, prefix_violation

ONE_TOPIC = ((0, 0),)
TWO_TOPICS = ((0, 0), (0,))
THREE_OWNERS = (0, 0, 0)
OLD_AND_NEW = (0, 1)

SCENARIOS = {
    "two workers, two topics, unnoticed rebalances": Scenario(TWO_TOPICS, faults=Faults(rebalances=2)),
    "two workers, two topics, crashes": Scenario(((0,), (0,)), faults=Faults(rebalances=2, crashes=2), under_way=3),
    "three owners in turn": Scenario(ONE_TOPIC, THREE_OWNERS, Faults(rebalances=2), under_way=3),
    "two users in one batch, point by point": Scenario(((0, 1, 0),), faults=Faults(rebalances=1, crashes=1)),
    "an erased user": Scenario(ONE_TOPIC, faults=Faults(rebalances=1, crashes=1, erasures=1)),
    "a profile refreshed by somebody else": Scenario(ONE_TOPIC, faults=Faults(rebalances=1, refreshes=1)),
    "generations swapped and rolled back": Scenario(ONE_TOPIC, OLD_AND_NEW, Faults(swaps=2)),
    "generations, two live workers and a replay": Scenario(((0,),), (0, 0, 1), Faults(rebalances=1, swaps=2)),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_no_order_of_steps_loses_an_event_or_counts_one_twice(scenario: Scenario) -> None:
    """Every reachable state satisfies both invariants, every fault was met, and from each the work can be completed."""
    found = explore(scenario)
    assert found.counterexample is None, str(found.counterexample)
    assert found.stuck == 0
    assert STEPS | {FAULTS[name] for name, times in scenario.faults._asdict().items() if times} <= found.taken.keys()


STEPS = {
    "reads",
    "folds and sends",
    "an upsert inserts",
    "reads back: mine",
    "reads back: still the old one, sends again",
    "reads back: another's",
    "finds nothing new",
    "acknowledges",
    "commits",
}
FAULTS = {
    "rebalances": "is assigned topic",
    "crashes": "crashes",
    "swaps": "follows to generation",
    "erasures": "erases user",
    "refreshes": "refreshes user",
}


def test_upserts_that_will_be_refused_can_be_left_out_of_the_search() -> None:
    """With every refused upsert and every copy landing in every order, there are more states, and none is worse."""
    faults = Faults(rebalances=1, crashes=1)
    without = explore(Scenario(ONE_TOPIC, faults=faults))
    everything = explore(Scenario(ONE_TOPIC, faults=faults, keeps_dead=True))
    assert everything.counterexample is None
    assert everything.taken["an upsert is refused"] > 0
    assert everything.states > without.states
    assert everything.complete == without.complete


def counterexample(scenario: Scenario, mutant: Rules, *invariants: Invariant) -> Counterexample:
    """The shortest way to what is wrong with a mutant, in a scenario in which nothing is wrong with the protocol."""
    assert explore(scenario).counterexample is None
    found = explore(scenario, mutant, invariants or INVARIANTS).counterexample
    assert found is not None, "the mutant was not found"
    return found


def in_order(found: Counterexample, *names: str) -> bool:
    """Whether the trace takes these steps in this order, others between them."""
    trace = iter(found.names)
    return all(name in trace for name in names)


def test_without_a_condition_a_late_upsert_lands_over_what_was_acknowledged() -> None:
    """The old owner's upsert is the last step: it puts back a state from before events that are committed."""
    found = counterexample(Scenario(ONE_TOPIC, faults=Faults(rebalances=1)), Rules(conditional=False))
    assert in_order(found, "folds and sends", "is assigned topic", "folds and sends", "commits", "an upsert replaces")
    assert found.names[-1] == "an upsert replaces"
    assert "(2,) acknowledged, and not stored" in found.violation


def test_without_a_read_back_a_refused_upsert_is_acknowledged() -> None:
    """Qdrant's answer is the same whether the condition held or not: who believes it commits what was refused."""
    found = counterexample(Scenario(ONE_TOPIC, faults=Faults(rebalances=1)), Rules(read_back=ReadBack.NONE))
    assert in_order(found, "an upsert is refused", "believes the answer", "acknowledges", "commits")
    assert found.names[-1] == "commits"
    assert "(2,) acknowledged, and not stored" in found.violation


def test_a_read_back_of_applied_takes_a_rivals_state_for_its_own() -> None:
    """Both have applied the same search, but only the rival a purchase, which the worker's next upsert erases."""
    found = counterexample(Scenario(TWO_TOPICS, faults=Faults(rebalances=1)), Rules(read_back=ReadBack.APPLIED))
    assert in_order(found, "commits", "reads back: applied as mine", "folds and sends", "an upsert replaces")
    assert found.names[-1] == "an upsert replaces"
    assert "topic 1: (1,) acknowledged, and not stored" in found.violation


def test_a_deleted_point_is_inserted_again_by_a_late_upsert() -> None:
    """A missing point is inserted whatever the condition says: what was erased comes back, from before."""
    found = counterexample(Scenario(ONE_TOPIC, faults=Faults(rebalances=1, erasures=1)), Rules(tombstones=False))
    assert in_order(found, "folds and sends", "deletes user", "an upsert inserts")
    assert found.names[-1] == "an upsert inserts"
    assert "counted (1,), and up to 1 there are ()" in found.violation


def test_one_group_for_two_generations_leaves_a_gap_in_one_of_them() -> None:
    """What one generation's workers have committed, the other's never read: its ledger begins with the second."""
    found = counterexample(Scenario(ONE_TOPIC, OLD_AND_NEW, Faults(swaps=1)), Rules(own_groups=False), prefix_violation)
    assert in_order(found, "commits", "follows to generation", "reads", "an upsert inserts")
    assert "counted (2,), and up to 2 there are (1, 2)" in found.violation


def test_a_live_write_through_the_alias_lands_in_the_other_generation() -> None:
    """The alias is repointed while a worker writes: it reads back its own, and commits what its generation lacks."""
    one_live_worker = Scenario(ONE_TOPIC, (0,), Faults(swaps=2))
    found = counterexample(one_live_worker, Rules(real_names=False))
    assert in_order(
        found,
        "the alias is repointed to generation",
        "an upsert inserts",
        "reads back: mine",
        "acknowledges",
        "commits",
    )
    assert "generation 0, user 0, topic 0: (1,) acknowledged, and not stored" in found.violation
