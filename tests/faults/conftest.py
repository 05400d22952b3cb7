"""Services that these tests kill and break: their own, healed before and after each test."""

from collections.abc import Iterator

import pytest
from faults.history import History, running_history
from faults.services import Services, running_services


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running_services(tmp_path_factory.mktemp("faults")) as services:
        yield services


@pytest.fixture
def history(services: Services) -> Iterator[History]:
    services.heal()
    with running_history(services) as history:
        yield history
        services.heal()
