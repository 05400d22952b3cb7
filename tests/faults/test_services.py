"""What workers depend on is killed, slow, refuses, lies, or is full: nothing is lost, and nothing counted twice."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from faults.history import History
from faults.proxy import Fault, Kind
from faults.services import Process, Services

pytestmark = pytest.mark.end_to_end

HIT_SECONDS = 120.0


def test_killed_encoding_worker(shop: History, services: Services) -> None:
    shop.shop(100)
    services.encoder.kill()
    shop.shop(100)
    time.sleep(1)
    assert shop.lag() > 0
    services.heal()
    shop.wait_until_folded()
    shop.assert_nothing_lost()


def test_killed_qdrant(shop: History, services: Services) -> None:
    for _ in range(2):
        shop.shop(100)
        services.qdrant.kill()
        shop.shop(100)
        shop.announce(0.1)
        services.heal()
    shop.wait_until_folded()
    shop.assert_nothing_lost()


def test_killed_broker(shop: History, services: Services) -> None:
    shop.shop(100)
    services.kafka.kill()
    services.heal()
    shop.shop(100)
    shop.wait_until_folded()
    shop.assert_nothing_lost()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.SLOW, seconds=0.3),
        Fault(Kind.REFUSE, share=0.5),
        Fault(Kind.LIMIT, share=0.3),
        Fault(Kind.TIME_OUT, share=0.5),
        Fault(Kind.LOSE, share=0.5),
        Fault(Kind.LAND_LATE, seconds=2.0, share=0.5),
    ],
    ids=lambda fault: fault.kind.value,
)
def test_qdrant_that_answers_badly(fault: Fault, shop: History, services: Services) -> None:
    hits = shop.hits[fault.kind]
    shop.fault = fault
    shop.shop(150)
    shop.announce(0.1)
    deadline = time.monotonic() + HIT_SECONDS
    while shop.hits[fault.kind] < hits + 5:  # batches may be few and large: where all is folded in, no call comes
        shop.shop(10)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    shop.fault = None
    services.heal()
    shop.wait_until_folded()
    shop.assert_nothing_lost()


def test_full_disk_of_qdrant(shop: History, services: Services) -> None:
    """The embedded Qdrant ends where it can't write any more, and comes back once there is room."""
    with full(services.qdrant):
        shop.shop(300)
        shop.announce(0.1)
        assert services.qdrant.wait_for_end() != 0
    shop.shop(100)
    services.heal()
    shop.wait_until_folded()
    shop.assert_nothing_lost()


def test_full_disk_of_kafka(shop: History, services: Services) -> None:
    """So does the broker."""
    shop.shop(100)
    with full(services.kafka):
        shop.customers.shop(shop.producer, 50)
        assert services.kafka.wait_for_end() != 0
    services.heal()
    shop.producer.flush()
    shop.shop(50)
    shop.wait_until_folded()
    shop.assert_nothing_lost()


@contextmanager
def full(process: Process) -> Iterator[None]:
    """The process can't make any file larger, as on a disk without room."""
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        if process.runs:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
