"""Whether a group gets on, seen from outside: who is in it, what they own, and whether offsets move where events wait.

One look can't tell a worker that is stuck from one that is at work. So where events have waited for some time it looks
again, until every worker concerned has acknowledged something, or has had the time to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from streams.groups import LIVE, Member, Members
from streams.lag import Position, Waiting, named, where
from streams.topics import TopicPartition

OLD_SECONDS: Final = 10.0
"""Events that were produced less long ago are on their way."""

STANDSTILL_SECONDS: Final = 10.0
"""Within it a worker that gets on has committed something: it does so every second."""

REBALANCE_SECONDS: Final = 20.0
"""Longer than Kafka waits for a member that has died, and the others take to share out its partitions."""

AGAIN_SECONDS: Final = 0.5


class GroupLook(NamedTuple):
    """A group at one moment."""

    members: Members
    positions: Mapping[TopicPartition, Position]


class GroupHealth(NamedTuple):
    """`problems` are in words; none: the group gets on, or has nothing to do."""

    members: Members
    positions: Mapping[TopicPartition, Position]
    waiting: Mapping[TopicPartition, Waiting]
    problems: list[str]


def watch_group(
    group: str,
    look: Callable[[], GroupLook],
    waiting_at: Callable[[Mapping[TopicPartition, Position]], Mapping[TopicPartition, Waiting]],
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    sleep: Callable[[float], None] = time.sleep,
) -> GroupHealth:
    """One look where nothing is suspicious; else some, for at most REBALANCE_SECONDS and STANDSTILL_SECONDS.

    Members of another kind than live workers are a replay's: whether those get on, it shows itself.
    Raises what `look` and `waiting_at` raise.
    """
    seen = look()
    for _ in range(round(REBALANCE_SECONDS / AGAIN_SECONDS)):
        if not seen.members.agreeing:
            break
        sleep(AGAIN_SECONDS)
        seen = look()
    members, positions = seen
    waiting = waiting_at(positions)
    problems = _of_members(group, members, positions)
    if members.assignor == LIVE:
        now = now_ms()
        suspicious = {
            at: events
            for at, events in waiting.items()
            if at in members.owners and not 0 <= now - events.since_ms < OLD_SECONDS * 1000
        }
        for member in _standing_still(seen, suspicious, look, sleep):
            mine = {at: events for at, events in suspicious.items() if members.owners[at] == member}
            problems.append(
                f"{named(mine)}, and the worker on {member.host} that has these partitions acknowledged nothing of it "
                f"in {STANDSTILL_SECONDS:.0f} s: look at its log, where it tells of a batch that is not done, and why "
                "(a Qdrant with a full disk refuses writes; an encoding worker may be away). If it tells of nothing, "
                "start it again"
            )
    return GroupHealth(members, positions, waiting, problems)


def _of_members(group: str, members: Members, positions: Mapping[TopicPartition, Position]) -> list[str]:
    if not members.number:
        return [f"no worker is in the group {group}: start `afterglow up` or `afterglow worker`"]
    if members.agreeing:
        return [
            f"the group {group} has been sharing out its partitions for {REBALANCE_SECONDS:.0f} s without an end: a "
            "worker that joins and dies again and again shows in its log"
        ]
    unowned = [at for at in positions if at not in members.owners]
    if unowned and members.assignor == LIVE:
        return [f"no worker of the group {group} has {where(unowned)}: start the workers again"]
    return []


def _standing_still(
    before: GroupLook,
    suspicious: Mapping[TopicPartition, Waiting],
    look: Callable[[], GroupLook],
    sleep: Callable[[float], None],
) -> list[Member]:
    """The owners of partitions where something waits, of whom nothing was committed in any of them meanwhile."""
    still = {before.members.owners[at] for at in suspicious}
    for _ in range(round(STANDSTILL_SECONDS / AGAIN_SECONDS)):
        if not still:
            break
        sleep(AGAIN_SECONDS)
        after = look()
        if after.members.owners != before.members.owners:
            return []  # partitions have moved, and with them the blame
        still -= {
            before.members.owners[at]
            for at in suspicious
            if after.positions[at].committed != before.positions[at].committed
        }
    return sorted(still)
