"""A Kafka that is away and a Kafka that refuses us are told apart."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.kafka import KafkaRefused, KafkaUnreachable, answered, connect_admin
from streams.settings import Kafka
from streams.topics import describe


def ask(kafka: Kafka, timeout_seconds: float) -> None:
    admin = connect_admin(kafka)
    answered(lambda: describe(admin, ["any"]), kafka, timeout_seconds)


@pytest.mark.end_to_end
def test_a_connection_that_is_refused_says_why_and_which_settings_to_look_at(kafka: str):
    """TLS spoken to a listener without it."""
    with pytest.raises(KafkaRefused, match=r"refused the connection: .*SSL.*Check kafka\.sasl_username"):
        ask(Kafka(bootstrap_servers=kafka, security_protocol="SSL"), timeout_seconds=60)


def test_a_kafka_that_is_away_is_not_called_a_refusal():
    with pytest.raises(KafkaUnreachable, match="can't be reached") as error:
        ask(Kafka(bootstrap_servers="127.0.0.1:9", security_protocol="SSL"), timeout_seconds=0)
    assert not isinstance(error.value, KafkaRefused)


def test_a_broker_that_has_just_started_again_is_asked_again():
    answers = iter([KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION, None])

    def ask_broker() -> str:
        if (code := next(answers)) is not None:
            raise KafkaException(KafkaError(code))
        return "42"

    assert answered(ask_broker, Kafka()) == "42"
