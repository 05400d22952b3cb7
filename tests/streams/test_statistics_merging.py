"""Events of many partitions come in the order of their time, and bounded memory comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.statistics.merging import Merger

NOBODY: frozenset[object] = frozenset()


def merger_of(*events: tuple[str, int], capacity: int = 100) -> Merger[str]:
    """Each event is a partition and a time, and named by both."""
    merger: Merger[str] = Merger(capacity)
    for partition, ts in events:
        merger.put(partition, ts, f"{partition}{ts}")
    return merger


def taken(merger: Merger[str], *behind: str) -> list[str]:
    return [event for _, event in merger.take(frozenset(behind))]


def test_what_came_partition_by_partition_goes_on_in_the_order_of_time() -> None:
    merger = merger_of(("a", 1), ("a", 4), ("a", 6), ("b", 2), ("b", 3), ("c", 5))
    assert list(merger.take(NOBODY)) == [(1, "a1"), (2, "b2"), (3, "b3"), (4, "a4"), (5, "c5"), (6, "a6")]
    assert len(merger) == 0


def test_a_partition_that_may_have_something_earlier_is_waited_for() -> None:
    merger = merger_of(("a", 1), ("a", 4))
    assert taken(merger, "b") == []
    merger.put("b", 2, "b2")
    assert taken(merger, "b") == ["a1", "b2"]
    assert taken(merger, "b") == []
    assert taken(merger) == ["a4"]


def test_a_partition_is_read_to_its_last_event_before_it_is_waited_for() -> None:
    merger = merger_of(("a", 1), ("a", 3), ("b", 2), ("b", 9))
    assert taken(merger, "a") == ["a1", "b2", "a3"]
    assert len(merger) == 1


def test_beyond_the_capacity_the_earliest_goes_on_all_the_same() -> None:
    merger = merger_of(("a", 1), ("a", 2), ("a", 3), ("a", 4), capacity=2)
    assert taken(merger, "b") == ["a1", "a2"]
    assert len(merger) == 2


def test_within_a_partition_the_order_is_the_partition_s_own() -> None:
    merger = merger_of(("a", 5), ("a", 1), ("b", 3))
    assert taken(merger) == ["b3", "a5", "a1"]


def test_of_the_same_time_the_one_that_came_first_goes_on_first() -> None:
    assert taken(merger_of(("b", 1), ("a", 1))) == ["b1", "a1"]


@given(
    st.lists(st.lists(st.integers(0, 50).map(int), max_size=8).map(sorted), max_size=4),
    st.lists(st.integers(0, 3), max_size=30),
)
def test_whatever_the_turns_of_the_partitions_all_goes_on_once_and_in_order(
    times: list[list[int]], turns: list[int]
) -> None:
    merger: Merger[tuple[int, int]] = Merger()
    unread = dict(enumerate(iter(one) for one in times))
    came: list[int] = []
    for partition in [*turns, *(partition for partition in unread for _ in range(9))]:
        ts = next(unread[partition], None) if partition in unread else None
        if ts is None:
            unread.pop(partition, None)
        else:
            merger.put(partition, ts, (partition, ts))
        came += [ts for ts, _ in merger.take(frozenset(unread))]
    assert came == sorted(ts for one in times for ts in one)


def test_more_than_may_wait_is_said() -> None:
    merger = merger_of(("a", 1), ("a", 2), capacity=2)
    assert not merger.full
    merger.put("a", 3, "a3")
    assert merger.full
    assert taken(merger, "b") == ["a1"]
    assert not merger.full
