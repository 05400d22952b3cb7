"""Short histories full of faults, each drawn from a seed; `make soak` runs a hundred long ones."""

from __future__ import annotations

import pytest
from faults.services import Services
from faults.soak import history_of

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("seed", [1000, 1001])
def test_history_full_of_faults(seed: int, services: Services) -> None:
    report = history_of(seed, services, steps=4)
    assert report.problems == []
    assert report.faults.total() == 4
