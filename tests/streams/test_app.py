"""The Faust app: what it is told of Kafka, and that an agent which ends is heard of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import faust
import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams.app import AgentStopped, create_app
from streams.pipeline import Intake
from streams.producer import EventProducer
from streams.settings import Settings, load
from streams.topics import ensure_topics


def app_with(**overrides: str):
    settings = load(overrides={name.replace("__", "."): value for name, value in overrides.items()}, environment={})
    return create_app(
        settings,
        group="afterglow-spring",
        events=Intake(1),
        products=Intake(1),
        on_assignment=lambda partitions: None,
        on_failure=lambda stopped: None,
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, {"security_protocol": "PLAINTEXT"}),
        (
            {
                "kafka__security_protocol": "SASL_PLAINTEXT",
                "kafka__sasl_mechanism": "SCRAM-SHA-512",
                "kafka__sasl_username": "ada",
                "kafka__sasl_password": "secret",
            },
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": "ada",
                "sasl_plain_password": "secret",
                "ssl_context": None,
            },
        ),
    ],
)
def test_the_login_reaches_the_consumer(overrides: dict[str, str], expected: dict[str, object]):
    assert credentials_to_aiokafka_auth(app_with(**overrides).conf.broker_credentials, None) == expected


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_checks_the_brokers_certificate_and_name(protocol: str):
    overrides = {"kafka__security_protocol": protocol}
    if protocol == "SASL_SSL":
        overrides |= {"kafka__sasl_mechanism": "PLAIN", "kafka__sasl_username": "a", "kafka__sasl_password": "b"}
    told = credentials_to_aiokafka_auth(app_with(**overrides).conf.broker_credentials, None)
    assert told["security_protocol"] == protocol
    assert told["ssl_context"].check_hostname is True


def test_the_group_and_the_reset_are_those_of_the_generation():
    conf = app_with().conf
    assert conf.id == "afterglow-spring"
    assert conf.consumer_auto_offset_reset == "earliest"


def test_topics_that_could_not_be_seen_are_looked_for_again_soon():
    assert app_with().conf.consumer_metadata_max_age_ms == 5000


@asynccontextmanager
async def running(
    settings: Settings, events: Intake[object], on_failure: Callable[[AgentStopped], None]
) -> AsyncIterator[faust.App]:
    """An app at work in its own group."""
    ensure_topics(settings)
    app = create_app(
        settings,
        group=f"afterglow-{settings.generation}",
        events=events,
        products=Intake(10),
        on_assignment=lambda partitions: None,
        on_failure=on_failure,
    )
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


class Broken(Intake[object]):
    """Takes one event, and then fails for once."""

    def __init__(self) -> None:
        super().__init__(10)
        self.put_before = False

    async def put(self, event: object) -> None:
        await super().put(event)
        if not self.put_before:
            self.put_before = True
            raise OSError("out of luck")


@pytest.mark.end_to_end
async def test_an_agent_that_fails_is_heard_of_and_hands_nothing_over_any_more(settings: Settings):
    events, heard = Broken(), asyncio.get_running_loop().create_future()
    async with running(settings, events, heard.set_result):
        with EventProducer(settings) as producer:
            for number in range(5):
                producer.search("ada", f"query {number}")
        stopped = await heard
        assert str(stopped) == (
            "the agent that takes in searches and purchases stopped (OSError('out of luck')): start again, and its "
            "events are read again"
        )
        assert isinstance(stopped.__cause__, OSError)
        await asyncio.sleep(1)  # Faust's supervisor would have started it anew
        assert len(events) == 1


@pytest.mark.end_to_end
async def test_an_agents_stream_that_ends_is_heard_of(settings: Settings):
    heard = asyncio.get_running_loop().create_future()
    events: Intake[object] = Intake(10)
    async with running(settings, events, heard.set_result) as app:
        with EventProducer(settings) as producer:
            producer.search("ada", "tent")
        await events.take(1, 0)
        (actor,) = app.agents["events"]._actors
        await actor.stream.throw(StopAsyncIteration())
        assert str(await heard) == (
            "the agent that takes in searches and purchases stopped (its stream ended): start again, and its events "
            "are read again"
        )


@pytest.mark.end_to_end
async def test_an_app_that_is_stopped_fails_nothing_and_leaves_no_folders(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    events: Intake[object] = Intake(10)
    heard: list[AgentStopped] = []
    async with running(settings, events, heard.append):
        with EventProducer(settings) as producer:
            producer.search("ada", "tent")
        await events.take(1, 0)
    await asyncio.sleep(0)
    assert heard == []
    assert contents(tmp_path) == []
