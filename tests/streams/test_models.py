"""The encoding worker as a process that follows the generation readers see: its model is always that one's."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine import ENVIRONMENT
from qdrant_client import AsyncQdrantClient

from deploy.children import Child
from deploy.qdrant_server import QdrantServer
from encoders.client import EncoderClient, ModelDescription, TextKind
from encoders.errors import ModelError
from encoders.recipe import identity, locate, read_recipe
from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.generations import serve
from sinks.opening import open_generation
from streams.models import model_in_force
from streams.settings import Settings, load

pytestmark = pytest.mark.end_to_end

PACKAGED, _ = locate("")
SECONDS = 90


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model, but that it reads no more than 16 tokens of a text: its vectors are another model's."""
    folder = tmp_path_factory.mktemp("models") / "shorter"
    shutil.copytree(PACKAGED, folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    return folder


def model_at(folder: Path, source: str) -> Model:
    return Model(
        folder.name, identity(folder, read_recipe(folder, query_prefix=None, product_prefix=None)), 384, source
    )


async def make(client: AsyncQdrantClient, name: str, model: Model) -> None:
    await open_generation(client, Generation(name, model, "fingerprint", {}, created_at_ms=1), serve=False)


@contextmanager
def qdrant_at(server: QdrantServer) -> Iterator[str]:
    child = Child("qdrant", server.command, log=server.directory / "qdrant.log", environment=server.environment)
    try:
        deadline = time.monotonic() + 60
        while not server.answers():
            assert child.exit_code is None, "\n".join(child.last_lines())
            assert time.monotonic() < deadline
        yield server.address
    finally:
        child.kill()


@contextmanager
def encoder(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "streams", "encoder", "--follow"],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def answer_of(address: str, wanted: str) -> ModelDescription:
    """What the encoding worker has loaded, once that is `wanted` (an identity)."""
    async with asyncio.timeout(SECONDS):
        while True:
            client = EncoderClient(address)
            try:
                description = await client.describe()
            finally:
                await client.close()
            if description.identity == wanted:
                return description
            await asyncio.sleep(0.1)


async def test_the_encoding_worker_changes_over_with_the_generation_that_readers_see(
    tmp_path: Path, shorter: Path
) -> None:
    server = QdrantServer(tmp_path / "qdrant")
    server.directory.mkdir()
    server.prepare()
    address, log = f"unix://{tmp_path}/encoder.sock", tmp_path / "encoder.log"
    packaged, other = model_at(PACKAGED, ""), model_at(shorter, str(shorter))
    assert packaged.identity != other.identity
    environment = {
        **ENVIRONMENT,
        "AFTERGLOW_QDRANT_ADDRESS": server.address,
        "AFTERGLOW_ENCODER_ADDRESS": address,
        "AFTERGLOW_DATA_DIR": str(tmp_path),
    }
    with encoder(environment, log) as process:
        await asyncio.sleep(3)
        assert not (tmp_path / "encoder.sock").exists(), "which model is wanted can't be known without Qdrant"
        with qdrant_at(server):
            assert (await answer_of(address, packaged.identity)).source == ""
            client = connect(server.address, timeout_seconds=30)
            await make(client, "main", packaged)
            await make(client, "g2", other)
            await serve(client, "main")
            await client.close()
        await asyncio.sleep(3)  # Qdrant is away, and that changes nothing
        assert (await answer_of(address, packaged.identity)).source == ""

        with qdrant_at(server):
            client = connect(server.address, timeout_seconds=30)
            await serve(client, "g2")
            assert (await answer_of(address, other.identity)).source == str(shorter)
            encoding = EncoderClient(address)
            assert (await encoding.encode(["walking boots"], TextKind.QUERY)).shape == (1, 384)
            await encoding.close()
            await serve(client, "main")
            await answer_of(address, packaged.identity)
            await client.close()
        assert process.poll() is None, "all in one process"
    told = log.read_text()
    assert told.count("event=model_replaced") == 2
    assert told.count("event=draining") == 2
    assert told.count("event=ready") == 3


async def test_a_model_that_is_not_here_is_told_and_the_one_that_is_stays(tmp_path: Path, shorter: Path) -> None:
    server = QdrantServer(tmp_path / "qdrant")
    server.directory.mkdir()
    server.prepare()
    address, log = f"unix://{tmp_path}/encoder.sock", tmp_path / "encoder.log"
    packaged, gone = model_at(PACKAGED, ""), Model("gone", "0123", 384, str(tmp_path / "gone"))
    environment = {
        **ENVIRONMENT,
        "AFTERGLOW_QDRANT_ADDRESS": server.address,
        "AFTERGLOW_ENCODER_ADDRESS": address,
        "AFTERGLOW_ENCODER_MODEL": str(shorter),
        "AFTERGLOW_DATA_DIR": str(tmp_path),
    }
    with qdrant_at(server):
        client = connect(server.address, timeout_seconds=30)
        await make(client, "main", packaged)
        await make(client, "g2", gone)
        await serve(client, "main")
        with encoder(environment, log) as process:
            await answer_of(address, packaged.identity)
            assert "event=setting_overruled setting=encoder.model" in log.read_text()
            await serve(client, "g2")
            while "event=model_missing generation=g2 model=gone identity=0123" not in log.read_text():
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.1)
            await answer_of(address, packaged.identity)
        settings = settings_at(server.address, tmp_path)
        with pytest.raises(ModelError, match=r"generation 'g2' holds vectors of the model gone \(0123\)"):
            await asyncio.to_thread(model_in_force, settings)
        await client.close()


async def test_a_model_that_moved_is_found_where_the_setting_says(tmp_path: Path, shorter: Path) -> None:
    server = QdrantServer(tmp_path / "qdrant")
    server.directory.mkdir()
    server.prepare()
    moved = model_at(shorter, "/models/where-it-was")
    with qdrant_at(server):
        client = connect(server.address, timeout_seconds=30)
        assert await asyncio.to_thread(model_in_force, settings_at(server.address, tmp_path)) == ("", None, None)
        await make(client, "main", moved)
        await serve(client, "main")
        await client.close()
        settings = settings_at(server.address, tmp_path, model=str(shorter))
        assert (await asyncio.to_thread(model_in_force, settings)).source == str(shorter)


async def test_the_prefixes_are_those_that_the_generation_was_made_with(tmp_path: Path) -> None:
    server = QdrantServer(tmp_path / "qdrant")
    server.directory.mkdir()
    server.prepare()
    prefixed = Model(
        "packaged",
        identity(PACKAGED, read_recipe(PACKAGED, query_prefix="query: ", product_prefix="")),
        384,
        query_prefix="query: ",
        product_prefix="",
    )
    with qdrant_at(server):
        client = connect(server.address, timeout_seconds=30)
        await make(client, "main", prefixed)
        await serve(client, "main")
        await client.close()
        settings = settings_at(server.address, tmp_path)
        assert await asyncio.to_thread(model_in_force, settings) == ("", "query: ", "")
        settings = settings_at(server.address, tmp_path, query_prefix="search: ")
        assert await asyncio.to_thread(model_in_force, settings) == ("", "query: ", "")


def settings_at(address: str, data_dir: Path, **encoder: str) -> Settings:
    given = {"qdrant.address": address, **{f"encoder.{name}": value for name, value in encoder.items()}}
    return load(data_dir=data_dir, overrides=given, environment={})
