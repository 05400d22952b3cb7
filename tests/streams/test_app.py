"""What the Faust app is told of Kafka: group, topics, and how to log in."""

from __future__ import annotations

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams.app import FETCH_WAIT_MS, create_app
from streams.pipeline import Intake
from streams.settings import load


def app_with(**overrides: str):
    settings = load(overrides={name.replace("__", "."): value for name, value in overrides.items()}, environment={})
    return create_app(
        settings,
        group="afterglow-spring",
        events=Intake(1),
        products=Intake(1),
        on_assignment=lambda partitions: None,
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


def test_an_idle_topic_does_not_hold_back_a_busy_one():
    """Faust's own 1500 ms would."""
    import aiokafka

    app_with()
    asked = {}

    class Recording(aiokafka.AIOKafkaConsumer):
        pass

    original = aiokafka.AIOKafkaConsumer.__mro__[1].__init__
    try:
        aiokafka.AIOKafkaConsumer.__mro__[1].__init__ = lambda self, *arguments, **options: asked.update(options)
        Recording(fetch_max_wait_ms=1500)
    finally:
        aiokafka.AIOKafkaConsumer.__mro__[1].__init__ = original
    assert asked["fetch_max_wait_ms"] == FETCH_WAIT_MS == 20
