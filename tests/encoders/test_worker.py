"""The worker as a real process, over a real socket, with real models."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from encoders import protocol
from encoders.client import EncoderClient, EncoderError, TextKind
from encoders.model import load
from encoders.protocol import EncodeRequest
from encoders.worker import AddressTaken, serve

WORDS = ["red", "usb", "cable", "phone", "case", "black", "lamp", "loud", "speaker", "cup", "for", "kitchen", "garden"]
QUERIES = [" ".join(WORDS[(i // 13**k) % 13] for k in range(3)) + f" {i}" for i in range(1500)]


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "encoder.sock"


@pytest.fixture
def address(socket: Path) -> str:
    return f"unix://{socket}"


@contextmanager
def worker(address: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "encoders.worker", "--address", address, "--device", "cpu", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
async def client(address: str) -> AsyncIterator[EncoderClient]:
    client = EncoderClient(address)
    yield client
    await client.close()


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def has_begun(client: EncoderClient) -> None:
    """Until some of the texts are encoded and others are not."""
    while True:
        statistics = await client.statistics()
        if statistics.encoded and statistics.waiting:
            return
        assert not statistics.encoded, "all was encoded before the test could step in"
        await asyncio.sleep(0.001)


async def test_a_call_survives_kill_9_and_returns_the_right_vectors(
    address: str, client: EncoderClient, socket: Path
) -> None:
    call = asyncio.create_task(client.encode(QUERIES, TextKind.QUERY))  # before there is a worker
    with worker(address) as first:
        await has_begun(client)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not call.done()
    assert socket in left_in(socket.parent), "kill -9 leaves the socket file behind"
    with worker(address) as second:
        vectors = await call
        description = await client.describe()
        second.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait) == 0

    torch.set_num_threads(1)
    model = load(device="cpu")
    tokens = model.tokenise(QUERIES[::50])
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    expected = model.launch([tokens[i] for i in order]).vectors()
    assert (vectors[::50][order] * expected).sum(1).min() >= 0.9999
    assert description == model.description
    assert vectors.shape == (1500, 384)


async def test_two_clients_are_served_at_once_and_share_what_is_encoded(
    address: str, client: EncoderClient, xlm_roberta: Path
) -> None:
    other = EncoderClient(address)
    with worker(address, "--model", str(xlm_roberta)):
        mine, theirs = await asyncio.gather(
            client.encode(QUERIES, TextKind.QUERY), other.encode(QUERIES[::-1], TextKind.QUERY)
        )
        statistics = await other.statistics()
    await other.close()
    np.testing.assert_array_equal(mine, theirs[::-1])
    assert statistics.texts == 3000
    assert statistics.encoded == 1500
    assert statistics.joined + statistics.cache_hits == 1500


async def test_sigterm_answers_what_was_asked(
    address: str, client: EncoderClient, socket: Path, xlm_roberta: Path
) -> None:
    with worker(address, "--model", str(xlm_roberta), "--token-budget", "8") as process:
        call = asyncio.create_task(client.encode(QUERIES[:1000], TextKind.QUERY))
        await has_begun(client)
        process.send_signal(signal.SIGTERM)
        vectors = await call
        assert await asyncio.to_thread(process.wait) == 0
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert socket not in left_in(socket.parent)


UNTIL_A_FILE = """
import asyncio, pathlib, sys
from encoders.worker import serve

async def until(loaded):
    while not pathlib.Path(sys.argv[3], loaded.name).exists():
        await asyncio.sleep(0.01)

print(serve(address=sys.argv[1], model=sys.argv[2], device="cpu", token_budget=8, until=until))
"""


@contextmanager
def worker_until_a_file(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It ends when a file appears, in the given folder, of the name of the model; it prints what `serve` returns."""
    command = [sys.executable, "-c", UNTIL_A_FILE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("ends_it", "printed"), [("until", "True"), ("SIGTERM", "False")])
async def test_a_worker_that_is_to_serve_no_longer_answers_what_was_asked_and_tells_why_it_ended(
    address: str, client: EncoderClient, socket: Path, xlm_roberta: Path, ends_it: str, printed: str
) -> None:
    with worker_until_a_file(address, str(xlm_roberta), str(socket.parent)) as process:
        call = asyncio.create_task(client.encode(QUERIES[:1000], TextKind.QUERY))
        await has_begun(client)
        if ends_it == "until":
            (socket.parent / xlm_roberta.name).touch()
        else:
            process.send_signal(signal.SIGTERM)
        vectors = await call
        output, _ = await asyncio.to_thread(process.communicate)
    assert (output.strip(), process.returncode) == (printed, 0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert socket not in left_in(socket.parent)


async def test_vectors_of_another_model_are_never_mixed_in(
    address: str, client: EncoderClient, xlm_roberta: Path
) -> None:
    with worker(address, "--model", str(xlm_roberta)):
        former = await client.describe()
    with worker(address, "--model", str(xlm_roberta), "--query-prefix", "query: "):
        with pytest.raises(EncoderError, match=f"vectors of model {former.identity} are wanted, but"):
            await client.encode(["usb cable"], TextKind.QUERY)
        assert (await client.describe()).identity != former.identity


async def test_what_a_request_can_not_be(address: str, client: EncoderClient, xlm_roberta: Path) -> None:
    with worker(address, "--model", str(xlm_roberta)):
        identity = (await client.describe()).identity
        assert (await client.encode([], TextKind.QUERY)).shape == (0, 64)
        with pytest.raises(EncoderError, match=r"texts\[1\] is '<br> ', of which cleaning leaves nothing"):
            await client.encode(["usb", "<br> "], TextKind.PRODUCT)

        async def refused(texts: list[str]) -> str:
            request = msgspec.msgpack.encode(EncodeRequest(identity, TextKind.QUERY, texts))
            with pytest.raises(EncoderError) as refusal:
                await client._call(protocol.ENCODE, request)
            return str(refusal.value)

        assert "texts[1] has 0 characters: 1 to 1000 can be encoded" in await refused(["usb", ""])
        assert "texts[0] has 1001 characters" in await refused(["x" * 1001])
        assert "1025 texts, at most 1024 a call" in await refused(["x"] * 1025)


def test_a_second_worker_at_the_same_socket_is_refused(address: str, socket: Path, xlm_roberta: Path) -> None:
    with worker(address, "--model", str(xlm_roberta)) as first:
        assert first.stderr is not None
        assert "event=ready" in first.stderr.readline()
        assert socket.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AddressTaken, match="another encoding worker serves unix:///"):
            serve(address=address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "/no/such/folder"), "there is no folder /no/such/folder"),
        (("--address", "unix:///" + "x" * 120), "longer than 100 bytes: choose a shorter one"),
    ],
)
def test_a_worker_that_can_not_serve_says_why_and_exits_1(address: str, options: tuple[str, ...], message: str) -> None:
    with worker(address, *options) as process:
        _, output = process.communicate()
    assert process.returncode == 1
    assert message in output


@pytest.mark.parametrize("setting", ["token_budget", "cache_entries", "threads"])
def test_a_negative_setting_is_refused(address: str, setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is -1: it can't be negative"):
        serve(address=address, **{setting: -1})
