"""The asyncio side of the encoding worker, for everybody who needs vectors."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Final, cast

import grpc
import msgspec
import numpy as np
from numpy.typing import NDArray

from encoders import protocol
from encoders.errors import EncoderError
from encoders.protocol import EncodeRequest, EncoderStatistics, ModelDescription, TextKind
from encoders.text import clean

__all__ = ["EncoderClient", "EncoderError", "EncoderStatistics", "ModelDescription", "TextKind"]

_log = logging.getLogger(__name__)

_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", protocol.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", protocol.MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # another client's failed connections must not slow this one's
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),  # notices a host that is gone without a word
    ("grpc.keepalive_timeout_ms", 10_000),
)
_TRANSIENT: Final = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN))
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SECONDS_BETWEEN_WARNINGS: Final = 30.0
_CALLS_IN_FLIGHT: Final = 4


class EncoderClient:
    """Asks the worker at `address`: "unix:///path/to.sock" or "host:port". One per process; safe for many tasks.

    A worker that is absent, starting, crashed or busy is waited for without end, with a warning now and then;
    bound a call with `asyncio.timeout`. Texts are sent anew after a crash: encoding twice does no harm.
    The model that answered first is the only one whose vectors this client returns: should the worker come back with
    another, calls raise EncoderError.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self._model: ModelDescription | None = None

    async def describe(self) -> ModelDescription:
        """The model the worker has loaded now. Raises EncoderError."""
        answer = await self._call(protocol.DESCRIBE, b"")
        description = msgspec.msgpack.decode(answer, type=ModelDescription)
        if self._model is None:
            self._model = description
        return description

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Unit float32 vectors [n, dimension] of the cleaned texts, in their order.

        A text's vector is the same whatever it is sent with, up to float noise. Raises EncoderError: for a text of
        which `clean` leaves nothing (it has no vector: leave it out), if the worker's model changed, if the model
        fails.
        """
        cleaned = [clean(text) for text in texts]
        if "" in cleaned:
            index = cleaned.index("")
            raise EncoderError(
                f"texts[{index}] is {texts[index][:80]!r}, of which cleaning leaves nothing: it has no vector,"
                " leave it out"
            )
        model = self._model or await self.describe()
        vectors = np.empty((len(cleaned), model.dimension), np.float32)
        slots = asyncio.Semaphore(_CALLS_IN_FLIGHT)

        async def encode_part(start: int) -> None:
            part = cleaned[start : start + protocol.MAX_TEXTS]
            async with slots:
                request = msgspec.msgpack.encode(EncodeRequest(model.identity, kind, part))
                answer = await self._call(protocol.ENCODE, request)
            vectors[start : start + len(part)] = np.frombuffer(answer, "<f4").reshape(len(part), model.dimension)

        try:
            async with asyncio.TaskGroup() as parts:
                for start in range(0, len(cleaned), protocol.MAX_TEXTS):
                    parts.create_task(encode_part(start))
        except* EncoderError as errors:
            raise errors.exceptions[0] from None
        return vectors

    async def statistics(self) -> EncoderStatistics:
        """The worker's counters. Raises EncoderError."""
        return msgspec.msgpack.decode(await self._call(protocol.STATISTICS, b""), type=EncoderStatistics)

    async def close(self) -> None:
        """Closes the connection. Calls under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _call(self, name: str, request: bytes) -> bytes:
        pause = _FIRST_PAUSE_SECONDS
        warned: float | None = None
        while True:
            if self._channel is None:  # made here, not in __init__: a channel belongs to the running loop
                self._channel = grpc.aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS)
            try:
                return cast(bytes, await self._channel.unary_unary(protocol.method(name))(request))
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    raise EncoderError(
                        f"the encoding worker at {self._address} refused {name}: {error.details()}"
                    ) from error
                now = time.monotonic()
                if warned is None or now - warned >= _SECONDS_BETWEEN_WARNINGS:
                    warned = now
                    _log.warning(
                        "event=encoder_unavailable address=%s code=%s details=%r waiting=yes",
                        self._address,
                        error.code().name,
                        error.details(),
                    )
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
