"""The one way to Kafka: what every producer, consumer and admin client of confluent-kafka is configured with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.settings import Kafka

_log: Final = logging.getLogger("afterglow.kafka")
_R = TypeVar("_R")

ConfigValue = str | int | float | bool | logging.Logger


class _NotOnItsOwn(logging.Filter):
    """Leaves out what librdkafka says it is retrying by itself, as at every first produce after Kafka's start."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith("retrying")


_log.addFilter(_NotOnItsOwn())


class KafkaUnreachable(ConnectionError):
    """Kafka didn't answer in time; the text says where and what to do."""


class KafkaRefused(KafkaUnreachable):
    """Kafka answers, and refuses our login or certificate, or we its certificate; the text says why."""


def client_config(kafka: Kafka) -> dict[str, ConfigValue]:
    """librdkafka's configuration to reach Kafka: addresses, TLS, login, and its log on ours."""
    config: dict[str, ConfigValue] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "client.id": "afterglow",
        "logger": _log,
        # A broker that restarts is back in seconds: look for it often.
        "reconnect.backoff.max.ms": 2000,
    }
    optional = {
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password.reveal(),
        "ssl.ca.location": kafka.ssl_ca_location,
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
        "ssl.key.password": kafka.ssl_key_password.reveal(),
    }
    config.update({name: value for name, value in optional.items() if value})
    return config


def connect_admin(kafka: Kafka) -> AdminClient:
    """An admin client. Keep it referenced while its futures are open, or they fail with `_DESTROY`."""
    return AdminClient(client_config(kafka))


def answered(ask: Callable[[], _R], kafka: Kafka, timeout_seconds: float = 30.0) -> _R:
    """What `ask` returns, asked again while Kafka is starting or moving; raises `KafkaUnreachable` after the time.

    Errors that another try can't cure are raised at once: as they are, and a login or a certificate that is refused,
    which librdkafka retries like a broker that is away, as `KafkaRefused`.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if not (cause.retriable() or cause.code() in _PASSING):
                raise
            if kafka.security_protocol != "PLAINTEXT" and (refusal := _refusal(kafka)):
                raise KafkaRefused(
                    f"Kafka at {kafka.bootstrap_servers} refused the connection: {refusal}. Check kafka.sasl_username, "
                    "kafka.sasl_password, kafka.sasl_mechanism and kafka.ssl_ca_location (`afterglow settings`)"
                ) from error
            if time.monotonic() >= deadline:
                raise KafkaUnreachable(
                    f"Kafka at {kafka.bootstrap_servers} can't be reached ({cause.str()}): "
                    "start `afterglow up`, or give --kafka host:port"
                ) from error
        time.sleep(0.2)


def _refusal(kafka: Kafka) -> str:
    """Why Kafka does not let us in; empty where it does, or does not answer. Librdkafka tells it only on the side."""
    told: list[KafkaError] = []
    admin = AdminClient({**client_config(kafka), "error_cb": told.append})
    deadline = time.monotonic() + _HANDSHAKE_SECONDS
    while not told and time.monotonic() < deadline:
        admin.poll(0.1)
    return next((error.str().rstrip(".") for error in told if _is_refusal(error)), "")


def _is_refusal(error: KafkaError) -> bool:
    # TLS spoken to a listener without it ends like a broken connection, but for its words.
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or "handshake failed" in error.str()


_HANDSHAKE_SECONDS: Final = 3.0
_PASSING: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        # A broker that has just started again knows less of its partitions than its clients do.
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.KAFKA_STORAGE_ERROR,
    }
)
