"""Settings: where values come from, and how a bad one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.addresses import Addresses, addresses_file, read_addresses, write_addresses
from streams.settings import Duration, InvalidSettings, Retention, Secret, Settings, describe, load

NOTHING: dict[str, str] = {}


def running(data_dir: Path, pid: int) -> None:
    write_addresses(
        data_dir,
        Addresses(
            pid=pid,
            kafka="127.0.0.1:1111",
            qdrant="127.0.0.1:2222",
            encoder="unix:///run/e.sock",
            secret_file="/run/secret",
        ),
    )


def test_defaults() -> None:
    settings = load(environment=NOTHING)
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.profiles.half_life_long.seconds == 30 * 86_400
    assert settings.worker.linger.milliseconds == 20
    assert settings.topics.retention.milliseconds == -1
    assert settings.secret_file == Path(".afterglow/secret")
    assert settings.source("kafka.bootstrap_servers") == "default"
    assert settings == Settings()


def test_a_value_comes_from_the_first_that_gives_it(tmp_path: Path) -> None:
    running(tmp_path, os.getpid())
    toml = tmp_path / "a.toml"
    toml.write_text('[kafka]\nbootstrap_servers = "file:1"\n[qdrant]\naddress = "file:2"\n[worker]\nlinger = "5ms"\n')
    settings = load(
        toml,
        tmp_path,
        {"kafka.bootstrap_servers": "command:1"},
        {"AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": "variable:1", "AFTERGLOW_QDRANT_ADDRESS": "variable:2"},
    )
    assert settings.kafka.bootstrap_servers == "command:1"
    assert settings.source("kafka.bootstrap_servers") == "command line"
    assert settings.qdrant.address == "variable:2"
    assert settings.source("qdrant.address") == "environment variable AFTERGLOW_QDRANT_ADDRESS"
    assert settings.worker.linger == Duration(5)
    assert settings.source("worker.linger") == str(toml)
    assert settings.encoder.address == "unix:///run/e.sock"
    assert settings.source("encoder.address") == f"running `afterglow up` ({addresses_file(tmp_path)})"
    assert settings.secret_file == Path("/run/secret")


def test_what_a_killed_up_left_behind_is_not_believed(tmp_path: Path) -> None:
    running(tmp_path, 2**22 + 1)  # beyond the largest process id of Linux
    assert read_addresses(tmp_path) is None
    assert load(None, tmp_path, environment=NOTHING).kafka.bootstrap_servers == "127.0.0.1:9092"


def test_the_data_directory_and_the_file_can_come_from_the_environment(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text('generation = "g2"\n')
    settings = load(environment={"AFTERGLOW_DATA_DIR": str(tmp_path), "AFTERGLOW_CONFIG": str(toml)})
    assert settings.data_dir == tmp_path
    assert settings.secret_file == tmp_path / "secret"
    assert settings.encoder_address == f"unix://{tmp_path}/encoder.sock"
    assert settings.generation == "g2"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("AFTERGLOW_TOPICS_PARTITIONS", "0", "topics.partitions: expected a whole number from 1 to 10000, got '0'"),
        ("AFTERGLOW_TOPICS_PARTITIONS", "8.5", "topics.partitions: expected a whole number from 1 to 10000, got '8.5'"),
        ("AFTERGLOW_QDRANT_TLS", "maybe", "qdrant.tls: expected true or false, got 'maybe'"),
        (
            "AFTERGLOW_WORKER_LINGER",
            "20",
            "worker.linger: expected a duration with its unit, like 20ms, 5s, 10m, 1h or 30d, got '20'",
        ),
        ("AFTERGLOW_WORKER_LINGER", "0.5ms", "worker.linger: expected whole milliseconds, got '0.5ms'"),
        (
            "AFTERGLOW_KAFKA_SECURITY_PROTOCOL",
            "tls",
            "kafka.security_protocol: expected one of 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL', got 'tls'",
        ),
        ("AFTERGLOW_ENCODER_DEVICE", "gpu", "encoder.device: expected auto, cpu, cuda, cuda:N, got 'gpu'"),
        ("AFTERGLOW_DERIVATION_INTERESTS", "5", "derivation.interests: expected a whole number from 1 to 4, got '5'"),
        (
            "AFTERGLOW_PROFILES_WEIGHT_CLICK",
            "nan",
            "profiles.weight_click: expected a number above 0 to 1000000, got 'nan'",
        ),
    ],
)
def test_a_bad_value_is_told_with_its_variable(variable: str, value: str, told: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(environment={variable: value})
    assert str(caught.value) == f"{told} (environment variable {variable})"


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[kafka]\nserver = 1", "there is no setting kafka.server ({file}); [kafka] has bootstrap_servers, "),
        ("colour = 1", "there is no setting or section colour ({file}); there are generation, secret_file, kafka, "),
        ("kafka = 1", "kafka is a section in {file}: write it as a table, [kafka]"),
        ("a ==", "the settings file {file} is not TOML: "),
        (
            "[worker]\nlinger = 20",
            'worker.linger: expected a duration with its unit, in quotes, like "20ms" or "30d", got 20 ({file})',
        ),
        ('[worker]\nchunk_users = "1"', "worker.chunk_users: expected a whole number from 1 to 4096, got '1' ({file})"),
        ("[kafka]\nsasl_password = 1234", "kafka.sasl_password: expected a text ({file})"),
    ],
)
def test_a_bad_file_is_told_with_its_name(tmp_path: Path, toml: str, told: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(toml)
    with pytest.raises(InvalidSettings) as caught:
        load(file, environment=NOTHING)
    assert str(caught.value).startswith(told.format(file=file))


def test_a_missing_file_is_told() -> None:
    with pytest.raises(InvalidSettings, match=r"there is no settings file /no/such\.toml"):
        load(Path("/no/such.toml"), environment=NOTHING)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            {"profiles.half_life_short": "30d"},
            "profiles.half_life_short (30d) must be shorter than profiles.half_life_long (30d) "
            "(profiles.half_life_short is from: command line; profiles.half_life_long is from: default)",
        ),
        (
            {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_mechanism": "PLAIN"},
            "kafka.sasl_username is needed with kafka.security_protocol SASL_SSL "
            "(kafka.security_protocol is from: command line; kafka.sasl_username is from: default)",
        ),
        (
            {"topics.searches": "events", "topics.purchases": "events"},
            "topics.searches and topics.purchases must differ, both are 'events' "
            "(topics.searches is from: command line; topics.purchases is from: command line)",
        ),
        (
            {"kafka.bootstrap_servers": "a:1, b"},
            "kafka.bootstrap_servers: expected host:port, got ' b' (kafka.bootstrap_servers is from: command line)",
        ),
        (
            {"qdrant.address": "http://q:6334"},
            "qdrant.address: expected host:port of gRPC, got 'http://q:6334' (qdrant.address is from: command line)",
        ),
        (
            {"worker.buffer_events": "10"},
            "worker.buffer_events (10) must hold a batch of worker.batch_events (2048) "
            "(worker.buffer_events is from: command line; worker.batch_events is from: default)",
        ),
    ],
)
def test_values_that_do_not_go_together(overrides: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(overrides=overrides, environment=NOTHING)
    assert str(caught.value) == told


def test_a_mistyped_variable_is_noticed_and_kubernetes_own_are_not() -> None:
    with pytest.raises(InvalidSettings, match="AFTERGLOW_TOPICS_PARTITION;"):
        load(environment={"AFTERGLOW_TOPICS_PARTITION": "8"})
    load(
        environment={
            "AFTERGLOW_QDRANT_SERVICE_HOST": "10.0.0.7",
            "AFTERGLOW_QDRANT_PORT": "tcp://10.0.0.7:6334",
            "AFTERGLOW_QDRANT_PORT_6334_TCP_ADDR": "10.0.0.7",
            "AFTERGLOW_QDRANT_BIN": "/usr/bin/qdrant",
        }
    )


def test_secrets_are_masked_wherever_they_are_shown() -> None:
    settings = load(environment={"AFTERGLOW_KAFKA_SASL_PASSWORD": "hunter2"})
    assert settings.kafka.sasl_password.reveal() == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(describe(settings))
    assert str(Secret("hunter2")) == "***"
    assert str(Secret("")) == ""


def test_every_setting_is_described() -> None:
    described = {setting.name: setting for setting in describe(load(environment=NOTHING))}
    assert {"generation", "secret_file", "kafka.ssl_key_password", "worker.metrics_port"} < set(described)
    assert all(setting.description for setting in described.values())
    linger = described["worker.linger"]
    assert (linger.value, linger.default, linger.unit, linger.source, linger.variable) == (
        "20ms",
        "20ms",
        "duration",
        "default",
        "AFTERGLOW_WORKER_LINGER",
    )


@pytest.mark.parametrize(
    ("text", "milliseconds", "shown"),
    [
        ("20ms", 20, "20ms"),
        ("1.5s", 1500, "1500ms"),
        ("90s", 90_000, "90s"),
        ("24h", 86_400_000, "1d"),
        ("0s", 0, "0ms"),
    ],
)
def test_durations(text: str, milliseconds: int, shown: str) -> None:
    assert Duration.parse(text).milliseconds == milliseconds
    assert str(Duration.parse(text)) == shown
    assert Duration.parse(shown) == Duration.parse(text)


def test_unlimited_retention_is_kafkas_minus_one() -> None:
    assert Retention.parse("unlimited").milliseconds == -1
    assert str(Retention.parse("unlimited")) == "unlimited"
    assert str(Retention.parse("90d")) == "90d"
