"""The real Apache Kafka as a child process: what is acknowledged survives, addresses stay."""

import os
import signal
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.kafka import Kafka, KafkaUnavailable, running_kafka


def produce(servers: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    failed: list[object] = []
    for value in values:
        producer.produce("events", value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(60) == 0
    assert failed == []


def consume(servers: str, count: int) -> list[bytes]:
    """The next `count` values of group g, whose offsets are committed after them."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(["events"])
    values: list[bytes] = []
    while len(values) < count:
        message = consumer.poll(60)
        assert message is not None, f"only {values} after 60 s"
        if message.error() is None:
            value = message.value()
            assert isinstance(value, bytes)
            values.append(value)
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


@pytest.mark.end_to_end
def test_records_and_committed_offsets_survive_kill_9(tmp_path: Path) -> None:
    with running_kafka(tmp_path) as kafka:
        address = kafka.bootstrap_servers
        assert address.startswith("127.0.0.1:")
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic("events", 1, 1)])["events"].result(60)
        produce(address, [b"a", b"b", b"c"])
        assert consume(address, 2) == [b"a", b"b"]
        os.kill(kafka.process.pid, signal.SIGKILL)

    with running_kafka(tmp_path) as kafka:
        assert kafka.bootstrap_servers == address
        produce(address, [b"d"])
        assert consume(address, 2) == [b"c", b"d"]
        reader = Consumer({"bootstrap.servers": address, "group.id": "reader"})
        assert reader.get_watermark_offsets(TopicPartition("events", 0), timeout=60) == (0, 4)
        reader.close()
    assert kafka.process.exit_code == 143, "SIGTERM is Java's clean stop"
    assert "Kafka Server started" in (tmp_path / "logs" / "kafka.log").read_text()


def test_without_jars_the_error_names_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    with pytest.raises(KafkaUnavailable, match=r"-m deploy\.kafka fetch"):
        Kafka(tmp_path / "data").prepare()
    assert not (tmp_path / "data").exists()


def test_a_kafka_home_without_kafka_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match=f"KAFKA_HOME={tmp_path}"):
        Kafka(tmp_path / "data").prepare()


def test_the_kafka_of_kafka_home_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "libs" / "kafka_2.13-4.4.0.jar"
    jar.parent.mkdir()
    jar.touch()
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    command = Kafka(tmp_path / "data").command
    assert command[command.index("-cp") + 1] == f"{tmp_path}/libs/*"
    assert command[-2:] == ["kafka.Kafka", str(tmp_path / "data" / "server.properties")]
