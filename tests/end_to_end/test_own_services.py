"""A Kafka and a Qdrant of one's own: two addresses, an encoding worker and two workers, as the README shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from machine import ENVIRONMENT, until
from qdrant_client import AsyncQdrantClient

pytestmark = pytest.mark.end_to_end


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def environment(kafka: str, qdrant: str, tmp_path: Path) -> Mapping[str, str]:
    """Everything a team sets: two addresses, the secret, where the encoding worker listens; names nobody else uses."""
    own = uuid.uuid4().hex[:8]
    secret = tmp_path / "secret"
    secret.write_text(os.urandom(32).hex() + "\n")
    return {
        **ENVIRONMENT,
        "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "AFTERGLOW_QDRANT_ADDRESS": qdrant,
        "AFTERGLOW_SECRET_FILE": str(secret),
        "AFTERGLOW_ENCODER_ADDRESS": f"unix://{tmp_path}/encoder.sock",
        "AFTERGLOW_DATA_DIR": str(tmp_path / "none"),
        "AFTERGLOW_GENERATION": f"g{own}",
        "AFTERGLOW_TOPICS_SEARCHES": f"searches-{own}",
        "AFTERGLOW_TOPICS_PURCHASES": f"purchases-{own}",
        "AFTERGLOW_TOPICS_PRODUCTS": f"products-{own}",
        "AFTERGLOW_TOPICS_DEAD_LETTERS": f"dead-letters-{own}",
    }


def run(environment: Mapping[str, str], *arguments: str, input_: str = "") -> str:
    """What a command prints that ends well."""
    done = completed(environment, *arguments, input_=input_)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stdout} {done.stderr}"
    return done.stdout


def refusal(environment: Mapping[str, str], *arguments: str) -> str:
    """What a command says that fails."""
    done = completed(environment, *arguments)
    assert done.returncode == 1, f"{arguments} ended with {done.returncode}: {done.stdout} {done.stderr}"
    return done.stderr


def completed(environment: Mapping[str, str], *arguments: str, input_: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "streams", *arguments],
        env=environment,
        input=input_,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def started(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until SIGTERM, and then has to end by itself with 0."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "streams", *arguments],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def events() -> tuple[str, str]:
    """Products and purchases, as JSON lines."""
    products = [{"product_id": f"p{n}", "title": f"{noun} number {n}"} for n, noun in enumerate(["boots", "tent"] * 10)]
    purchases = [
        {"user_id": f"user-{n % 30}", "product_id": f"p{n % 20}", "quantity": 1, "ts": 1_690_000_000_000 + n}
        for n in range(300)
    ]
    return lines_of(products), lines_of(purchases)


def assigned(log: Path) -> list[int]:
    """The partitions that a worker was assigned last, by its log."""
    found = re.findall(r"event=assigned partitions=\[([\d, ]*)\]", log.read_text())
    return [int(partition) for partition in found[-1].split(", ")] if found and found[-1] else []


def is_shared(first: list[int], second: list[int]) -> bool:
    """Whichever of two workers joins first owns all partitions, until the group has agreed anew."""
    return bool(first) and bool(second) and sorted(first + second) == list(range(8))


def lines_of(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_two_workers_share_the_partitions_and_show_their_figures(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    products, purchases = events()
    port = free_port()
    with (
        started(environment, tmp_path / "encoder.log", "encoder"),
        started({**environment, "AFTERGLOW_WORKER_METRICS_PORT": str(port)}, tmp_path / "first.log", "worker"),
        started(environment, tmp_path / "second.log", "worker"),
    ):
        until(lambda: is_shared(assigned(tmp_path / "first.log"), assigned(tmp_path / "second.log")), 120)
        run(environment, "produce", "-", "--topic", "products", "--wait", input_=products)
        run(environment, "produce", "-", "--topic", "purchases", "--wait", input_=purchases)
        status = json.loads(run(environment, "status", "--json"))
        assert status["kafka"]["members"] == 2
        assert status["qdrant"]["profiles"]["purchases"] == 300
        items = json.loads(run(environment, "recommend", "user-3", "--limit", "5", "--json"))["items"]
        assert len(items) == 5
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            figures = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        assert 0 < float(figures["afterglow_events_folded_total"]) <= 300
        assert float(figures["afterglow_events_waiting"]) == 0

        said = refusal({**environment, "AFTERGLOW_WORKER_METRICS_PORT": str(port)}, "worker")
        assert f"port {port}" in said
        assert "worker.metrics_port" in said


def test_a_worker_waits_until_a_replay_has_left_its_group(environment: Mapping[str, str], tmp_path: Path) -> None:
    """Kafka lets consumers of one kind into a group at a time, and Faust, refused, would hang without a word."""
    log = tmp_path / "worker.log"
    products, _ = events()
    run(environment, "produce", "-", "--topic", "products", input_=products)  # makes the topics
    group = f"afterglow-{environment['AFTERGLOW_GENERATION']}"
    replay = Consumer(
        {
            "bootstrap.servers": environment["AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": group,
            "partition.assignment.strategy": "range",
        }
    )
    replay.subscribe([environment["AFTERGLOW_TOPICS_PRODUCTS"]])
    until(lambda: replay.poll(0.1) is None and bool(replay.assignment()), 60)
    with started(environment, tmp_path / "encoder.log", "encoder"), started(environment, log, "worker"):
        until(lambda: replay.poll(0.1) is None and f"event=waiting_for_group group={group}" in log.read_text(), 120)
        assert "event=worker_running" not in log.read_text()
        replay.close()
        until(lambda: "event=assigned partitions=[0, 1, 2, 3, 4, 5, 6, 7]" in log.read_text(), 60, log.read_text())


def test_what_a_lost_qdrant_held_is_read_anew_from_the_topics(environment: Mapping[str, str], tmp_path: Path) -> None:
    products, purchases = events()
    generation = environment["AFTERGLOW_GENERATION"]
    with started(environment, tmp_path / "encoder.log", "encoder"):
        with started(environment, tmp_path / "before.log", "worker"):
            run(environment, "produce", "-", "--topic", "products", "--wait", input_=products)
            run(environment, "produce", "-", "--topic", "purchases", "--wait", input_=purchases)
        client = AsyncQdrantClient(
            host=environment["AFTERGLOW_QDRANT_ADDRESS"].partition(":")[0],
            grpc_port=int(environment["AFTERGLOW_QDRANT_ADDRESS"].partition(":")[2]),
            prefer_grpc=True,
            check_compatibility=False,
        )

        async def lose() -> None:
            for collection in ("profiles", "products", "statistics"):
                assert await client.delete_collection(f"{collection}--{generation}")
            await client.close()

        asyncio.run(lose())
        with started(environment, tmp_path / "after.log", "worker"):
            run(environment, "produce", "-", "--topic", "purchases", "--wait", input_=purchases.splitlines()[0])
            verdict = json.loads(run(environment, "verify", "--json"))
            assert (verdict["users"], verdict["events"], verdict["different"]) == (30, 301, 0)
            status = json.loads(run(environment, "status", "--json"))
            assert status["qdrant"]["products"]["count"] == 20
        assert "event=collections_lost" in (tmp_path / "after.log").read_text()


def test_up_starts_only_what_has_no_address(environment: Mapping[str, str], tmp_path: Path) -> None:
    own = {name: value for name, value in environment.items() if name != "AFTERGLOW_ENCODER_ADDRESS"}
    kafka, qdrant = own.pop("AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS"), own.pop("AFTERGLOW_QDRANT_ADDRESS")
    data, log = tmp_path / "data", tmp_path / "up.log"
    products, purchases = events()
    own["AFTERGLOW_DATA_DIR"] = str(data)
    with started(own, log, "up", "--kafka", kafka, "--qdrant", qdrant, "--workers", "2"):
        until(lambda: "Afterglow is ready" in log.read_text(), 120)
        run(own, "produce", "-", "--topic", "products", "--wait", input_=products)
        run(own, "produce", "-", "--topic", "purchases", "--wait", input_=purchases)
        status = json.loads(run(own, "status", "--json"))
        assert (status["kafka"]["address"], status["qdrant"]["address"]) == (kafka, qdrant)
        assert status["qdrant"]["profiles"]["purchases"] == 300
        assert not (data / "kafka").exists()
        assert not (data / "qdrant").exists()


def test_a_worker_without_the_secret_says_where_it_looked(environment: Mapping[str, str], tmp_path: Path) -> None:
    said = refusal({**environment, "AFTERGLOW_SECRET_FILE": str(tmp_path / "gone")}, "worker")
    assert f"there is no secret at {tmp_path / 'gone'}" in said
