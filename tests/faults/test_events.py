"""Events by the thousand that come late, twice, in another order, or make no sense; and workers with wrong clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from faults.history import History, problems, running_history
from faults.services import Services

from sinks.ledgers import Ledger, ProfileState
from streams.events import Event, Search
from streams.producer import EventProducer

pytestmark = pytest.mark.end_to_end

EVENTS = 2500
HOUR = 3600

States = Mapping[str, ProfileState]


class SearchesLast:
    """Sends whatever goes to other topics at once, and the searches' at the flush: one topic is far ahead."""

    def __init__(self, history: History) -> None:
        self._producer: EventProducer = history.producer
        self._searches = history.settings.topics.searches
        self._held_back: list[Callable[[], None]] = []

    def produce(self, event: Event) -> None:
        if isinstance(event, Search):
            self._held_back.append(lambda: self._producer.produce(event))
        else:
            self._producer.produce(event)

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        if topic == self._searches:
            self._held_back.append(lambda: self._producer.send(topic, key, value))
        else:
            self._producer.send(topic, key, value)

    def flush(self) -> None:
        for send in self._held_back:
            send()
        self._held_back.clear()
        self._producer.flush()


def as_they_come(history: History) -> None:
    history.worker()
    history.shop(EVENTS, repeats=0.3, poison=0.1)


def searches_last(history: History) -> None:
    history.worker()
    producer = SearchesLast(history)
    history.customers.shop(producer, EVENTS, repeats=0.3, poison=0.1)  # type: ignore[arg-type]
    producer.flush()


def with_wrong_clocks(history: History) -> None:
    """One worker is hours ahead, and one behind; their partitions change hands."""
    ahead = history.worker(clock_shift_seconds=5 * HOUR)
    history.shop(EVENTS, repeats=0.3, poison=0.1)
    history.wait_until_some_are_folded(5)
    history.worker(clock_shift_seconds=-7 * HOUR).wait_until_it_says("event=assigned")
    ahead.stop()


WAYS = {way.__name__: way for way in (as_they_come, searches_last, with_wrong_clocks)}


class Outcome:
    def __init__(self, way: str, services: Services) -> None:
        with running_history(services, seed=5) as history:
            history.announce()
            WAYS[way](history)
            history.wait_until_folded()
            self.problems = problems(history, history.verdict())
            self.repeats = history.customers.produced["repeats"]
            self.states: States = history.states()


@pytest.fixture(scope="module")
def outcomes(services: Services) -> Iterator[Mapping[str, Future[Outcome]]]:
    """The same events, in several ways."""
    services.heal()
    with ThreadPoolExecutor(len(WAYS)) as pool:
        yield {way: pool.submit(Outcome, way, services) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_events_that_come_late_twice_or_make_no_sense(way: str, outcomes: Mapping[str, Future[Outcome]]) -> None:
    outcome = outcomes[way].result()
    assert outcome.repeats > 500
    assert outcome.problems == []


@pytest.mark.parametrize("way", ["searches_last", "with_wrong_clocks"])
def test_neither_order_between_topics_nor_clocks_change_a_ledger(
    way: str, outcomes: Mapping[str, Future[Outcome]]
) -> None:
    expected, found = outcomes["as_they_come"].result().states, outcomes[way].result().states
    assert [user for user in expected if not same(expected[user], found[user])] == []


def same(one: ProfileState, other: ProfileState) -> bool:
    """But for offsets and rounding."""
    return all(_same_ledger(a, b) for a, b in zip(one, other, strict=True))


def _same_ledger(one: Ledger, other: Ledger) -> bool:
    exact = ("events", "newest_ts", "orders", "repeats", "later_lines", "distinct", "open_order", "event_ids")
    return (
        all(getattr(one, name) == getattr(other, name) for name in exact)
        and _rows(one) == _rows(other)
        and all(
            np.isclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-6)
            for name in ("weight_long", "weight_short", "evicted")
        )
        and _same_sum(one.long, other.long)
        and _same_sum(one.short, other.short)
    )


def _same_sum(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(one))


def _rows(ledger: Ledger) -> dict[str, tuple[int, ...]]:
    whole = ("first", "last", "count", "first_order", "last_order")
    return {key: tuple(int(row[name]) for name in whole) for key, row in zip(ledger.keys, ledger.history, strict=True)}
