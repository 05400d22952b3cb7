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


@pytest.fixture(scope="module")
def open_shop(services: Services) -> Iterator[History]:
    """One history for all tests of a module, which goes on from one to the next."""
    services.heal()
    with running_history(services, seed=1) as history:
        yield history


@pytest.fixture
def shop(open_shop: History, services: Services) -> Iterator[History]:
    """A history with two workers that run; some of its products are not known yet."""
    services.heal()
    open_shop.fault = None
    while len([worker for worker in open_shop.workers if worker.runs]) < 2:
        open_shop.worker().wait_until_it_says("event=assigned")
    open_shop.announce(0.1)
    yield open_shop
    open_shop.fault = None
    services.heal()
