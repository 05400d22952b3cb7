"""What every end-to-end test stands on: one real Kafka and one Qdrant for the whole session."""

from collections.abc import Iterator

import hypothesis
import pytest
from services import running_qdrant

from deploy.kafka import running_kafka

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("afterglow", deadline=None)
hypothesis.settings.load_profile("afterglow")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka, shared by the session: name your topics and groups as nobody else
    does.
    """
    with running_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running.bootstrap_servers


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Qdrant (gRPC), shared by the session: name your collections as nobody else does."""
    with running_qdrant(tmp_path_factory.mktemp("qdrant")) as address:
        yield address
