"""A worker that no longer gets on notices it: by its clock, its batches, and what waits in Kafka."""

from __future__ import annotations

import logging

import pytest

from streams.lag import Waiting, named
from streams.stalls import Stalled, StallWatch

SEARCHES = {("searches", 3): Waiting(40, 1_795_594_690_000), ("searches", 5): Waiting(2, 1_795_594_695_000)}
NOTHING: dict[tuple[str, int], Waiting] = {}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> StallWatch:
    return StallWatch("events", ["searches", "purchases"], clock=clock)


def test_events_that_wait_for_five_minutes_without_a_delivery(watch: StallWatch, clock: Clock):
    watch.look(SEARCHES)
    clock.now += 299
    watch.look(SEARCHES)
    clock.now += 1
    with pytest.raises(Stalled) as told:
        watch.look(SEARCHES)
    assert str(told.value) == (
        "42 events wait in searches (partitions 3, 5), the oldest since 2026-11-25 08:18:10 UTC, and nothing of it was "
        "delivered for 300 s, though nothing is at work: the consumer is stuck. Start again"
    )


@pytest.mark.parametrize("what", ["a batch", "a batch at work", "nothing waits", "another stream's events"])
def test_what_shows_that_it_gets_on(watch: StallWatch, clock: Clock, what: str):
    watch.look(SEARCHES)
    clock.now += 200
    if what == "nothing waits":
        watch.look(NOTHING)
    elif what == "another stream's events":
        watch.look({("products", 0): Waiting(7, 0)})
    else:
        watch.taken()
        if what == "a batch":
            watch.acknowledged()
    watch.look(SEARCHES)
    clock.now += 299
    watch.look(SEARCHES)


def test_a_batch_that_is_not_done_is_told_every_half_minute_with_the_reason(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
):
    def told() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return messages

    watch.taken()
    clock.now += 29
    watch.look(NOTHING)
    assert told() == []
    clock.now += 1
    watch.look(NOTHING)
    assert told() == ["event=batch_not_done stream=events seconds=30 reason='no failure told'"]
    watch.hindered("UNAVAILABLE: no space left on device")
    clock.now += 29
    watch.look(NOTHING)
    assert told() == []
    clock.now += 1000
    watch.look(SEARCHES)
    assert told() == ["event=batch_not_done stream=events seconds=1059 reason='UNAVAILABLE: no space left on device'"]
    watch.acknowledged()
    watch.taken()
    clock.now += 31
    watch.look(NOTHING)
    assert told() == ["event=batch_not_done stream=events seconds=31 reason='no failure told'"]


def test_the_age_of_the_oldest_batch_and_of_the_last_acknowledgement(watch: StallWatch, clock: Clock):
    assert watch.batch_seconds == 0
    clock.now += 2
    watch.taken()
    clock.now += 5
    watch.taken()
    clock.now += 1
    assert (watch.batch_seconds, watch.seconds_since_acknowledged) == (6, 8)
    watch.acknowledged()
    assert (watch.batch_seconds, watch.seconds_since_acknowledged) == (1, 0)
    watch.acknowledged()
    clock.now += 3
    assert (watch.batch_seconds, watch.seconds_since_acknowledged) == (0, 3)


def test_one_event_is_told_in_the_singular():
    assert named({("products", 0): Waiting(1, 0)}) == (
        "1 event waits in products (partition 0), the oldest since 1970-01-01 00:00:00 UTC"
    )
