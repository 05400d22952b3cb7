"""Settings of its own for each test that needs a broker: topics and a generation nobody else uses."""

from __future__ import annotations

import uuid

import pytest

from streams.settings import Settings, load


@pytest.fixture
def settings(kafka: str) -> Settings:
    """The session's Kafka, with topics that don't exist yet."""
    own = uuid.uuid4().hex[:8]
    return load(
        overrides={
            "kafka.bootstrap_servers": kafka,
            "topics.searches": f"searches-{own}",
            "topics.purchases": f"purchases-{own}",
            "topics.products": f"products-{own}",
            "topics.dead_letters": f"dead-letters-{own}",
            "generation": f"g{own}",
        },
        environment={},
    )
