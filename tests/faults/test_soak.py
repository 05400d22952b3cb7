"""One short random history; `make soak` runs a hundred."""

import pytest
from faults.services import Services
from faults.soak import lived_through

pytestmark = pytest.mark.end_to_end


def test_a_history_full_of_faults_ends_without_a_difference(services: Services) -> None:
    assert list(lived_through(2, services).problems) == []
