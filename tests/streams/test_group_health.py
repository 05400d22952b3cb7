"""Whether a group gets on: from looks, moments and waits that are given."""

from __future__ import annotations

import pytest

from streams.group_health import GroupHealth, GroupLook, watch_group
from streams.groups import LIVE, REPLAY, Member, Members
from streams.lag import Position, Waiting

ADA, BOB = Member("faust-1", "10.0.0.1"), Member("faust-2", "10.0.0.2")
S0, S1, P0 = ("searches", 0), ("searches", 1), ("purchases", 0)
NOW = 1_795_594_690_000
MINUTES_AGO = NOW - 600_000


class Group:
    """A group as it is seen in one look after another, and the waits between them."""

    def __init__(self, *looks: GroupLook, since_ms: int = MINUTES_AGO) -> None:
        self._looks = list(looks)
        self._since_ms = since_ms
        self.slept = 0.0

    def watch(self) -> GroupHealth:
        return watch_group("afterglow-main", self._look, self._waiting, now_ms=lambda: NOW, sleep=self._sleep)

    def _look(self) -> GroupLook:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def _waiting(self, positions: object) -> dict[tuple[str, int], Waiting]:
        assert isinstance(positions, dict)
        return {at: Waiting(position.lag, self._since_ms) for at, position in positions.items() if position.lag}

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds


def seen(committed: dict[tuple[str, int], int], members: Members | None = None) -> GroupLook:
    """10 events a partition; searches 0 and purchases 0 are Ada's, searches 1 is Bob's."""
    owners = {S0: ADA, P0: ADA, S1: BOB}
    return GroupLook(
        members or Members(2, LIVE, False, owners), {at: Position(0, 10, committed.get(at, 10)) for at in owners}
    )


def test_a_group_without_work_is_seen_once():
    group = Group(seen({}))
    health = group.watch()
    assert (health.problems, health.waiting, group.slept) == ([], {}, 0)


@pytest.mark.parametrize("age_ms", [0, 9_999])
def test_events_that_have_just_come_are_no_problem(age_ms: int):
    group = Group(seen({S0: 4}), since_ms=NOW - age_ms)
    assert group.watch().problems == []
    assert group.slept == 0


def test_offsets_that_move_show_that_each_worker_gets_on():
    group = Group(seen({S0: 4, P0: 2, S1: 1}), seen({S0: 5, P0: 2, S1: 1}), seen({S0: 5, P0: 2, S1: 9}))
    assert group.watch().problems == []
    assert group.slept == 1


@pytest.mark.parametrize("since_ms", [MINUTES_AGO, NOW + 3_600_000])  # of a producer whose clock is ahead, too
def test_offsets_that_stand_still_while_events_wait(since_ms: int):
    group = Group(seen({S0: 4, P0: 2, S1: 1}), seen({S0: 4, P0: 2, S1: 2}), since_ms=since_ms)
    (problem,) = group.watch().problems
    since = {MINUTES_AGO: "2026-11-25 08:08:10", NOW + 3_600_000: "2026-11-25 09:18:10"}[since_ms]
    assert problem == (
        f"14 events wait in purchases (partition 0) and searches (partition 0), the oldest since {since} UTC, and the "
        "worker on 10.0.0.1 that has these partitions acknowledged nothing of it in 10 s: look at its log, where it "
        "tells of a batch that is not done, and why (a Qdrant with a full disk refuses writes; an encoding worker may "
        "be away). If it tells of nothing, start it again"
    )
    assert group.slept == 10


def test_partitions_that_move_meanwhile_are_not_blamed_on_anybody():
    moved = Members(1, LIVE, False, {S0: BOB, P0: BOB, S1: BOB})
    assert Group(seen({S0: 4}), seen({S0: 4}, moved)).watch().problems == []


def test_nobody_in_the_group():
    group = Group(seen({S0: 4}, Members(0, "")))
    assert group.watch().problems == [
        "no worker is in the group afterglow-main: start `afterglow up` or `afterglow worker`"
    ]


def test_partitions_that_nobody_has():
    group = Group(seen({S1: 4}, Members(1, LIVE, False, {S0: ADA})))
    assert group.watch().problems == [
        "no worker of the group afterglow-main has purchases (partition 0) and searches (partition 1): start the "
        "workers again"
    ]


def agreeing(times: int) -> list[GroupLook]:
    return [seen({}, Members(2, "", True)) for _ in range(times)]


def test_a_rebalance_is_waited_for():
    group = Group(*agreeing(3), seen({}))
    assert group.watch().problems == []
    assert group.slept == 1.5


def test_a_rebalance_that_does_not_end():
    group = Group(*agreeing(1))
    (problem,) = group.watch().problems
    assert problem.startswith("the group afterglow-main has been sharing out its partitions for 20 s without an end")


@pytest.mark.parametrize("owners", [{}, {S0: ADA, P0: ADA, S1: BOB}])
def test_a_replay_is_left_to_itself(owners: dict[tuple[str, int], Member]):
    group = Group(seen({S0: 4}, Members(3, REPLAY, False, owners)))
    assert group.watch().problems == []
    assert group.slept == 0
