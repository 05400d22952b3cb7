"""A consumer that doesn't deliver what Kafka has: the worker stops by name, and the next one skips nothing."""

from __future__ import annotations

import time

import pytest
from faults.history import History

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("record", [1, 150], ids=["the first", "one in the middle"])
def test_a_record_that_was_left_out(record: int, history: History) -> None:
    history.announce(0.5)
    history.shop(200)
    worker = history.worker(leaves_out=record)
    worker.wait_until_it_says("event=assigned")
    history.announce()
    for _ in range(50):
        if worker.runs:
            history.shop(20)  # it is missed when the next of its partition comes
            time.sleep(0.2)
    assert worker.wait_for_end() == 1
    assert "left out records that Kafka has" in worker.told()
    history.worker()
    history.wait_until_folded()
    history.assert_nothing_lost()
