"""Faust's Kafka driver (aiokafka), with what it lacks for us: prompt fetches, no lost first records, few tasks.

Faust has no settings for any of this, so its classes are extended here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Final

from faust.sensors import Monitor
from faust.transport.drivers import aiokafka as driver
from mode.services import WaitResults

FETCH_WAIT_MS: Final = 20
"""Faust asks for 1500 ms, which holds back a busy topic's events while another topic of the worker is idle."""

FETCH_BYTES: Final = 65_536
"""Fewer are waited for, that long. Faust asks for 1: an answer, and its tasks, for every few records."""

_OURS: Final = {
    "fetch_max_wait_ms": FETCH_WAIT_MS,
    "fetch_min_bytes": FETCH_BYTES,
    "isolation_level": "read_committed",
}


class Client(driver.aiokafka.AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer. What a producer's transaction has taken back must not be folded in: `read_committed`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, **_OURS})

    async def seek_to_committed(self, *partitions: Any) -> dict[Any, int | None]:
        """Back to the beginning where nothing is committed yet.

        Faust drops what it fetched while partitions moved, and seeks back; aiokafka (0.14) stays where it is for a
        partition without a committed offset, or with 0: its first records would never be delivered.
        """
        committed: dict[Any, int | None] = await super().seek_to_committed(*partitions)
        if unread := [at for at, offset in committed.items() if not offset]:
            await self.seek_to_beginning(*unread)
        return committed


class _Consumer(driver.Consumer):  # type: ignore[misc]
    async def wait_first(self, *coros: Any, timeout: float | None = None) -> WaitResults:
        """Faust's, but that the first coroutine is begun at once, and where it has nothing to wait for that is all.

        So is nearly every record handed over to its agent; Faust makes four tasks for it, and cancels three.
        """
        first, *others = coros
        if others and isinstance(first, Coroutine) and not self.should_stop and not self.crashed:
            try:
                waits_for = first.send(None)
            except BaseException as end:
                for other in others:
                    other.close()
                if isinstance(end, StopIteration):
                    return WaitResults([first], [end.value], False)
                raise
            first = _Begun(first, waits_for)
        return await super().wait_first(first, *others, timeout=timeout)


class _Begun:
    """The rest of a coroutine that has got as far as waiting for something."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as end:
            return end.value


class _Producer(driver.Producer):  # type: ignore[misc]
    """Nothing is ever sent with it: letters go by `streams.producer`. Faust asks it about every event all the same."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.buffer.wait_until_ebb = _at_ebb


async def _at_ebb() -> None: ...


class Transport(driver.Transport):  # type: ignore[misc]
    Consumer = _Consumer
    Producer = _Producer


class QuietMonitor(Monitor):  # type: ignore[misc]
    """Keeps no figures of single records: ours are in `streams.metrics`."""

    def on_message_in(self, *_: object) -> None: ...

    def on_message_out(self, *_: object) -> None: ...

    def on_stream_event_in(self, *_: object) -> None: ...

    def on_stream_event_out(self, *_: object) -> None: ...

    def track_tp_end_offset(self, *_: object) -> None: ...


driver.aiokafka.AIOKafkaConsumer = Client  # Faust makes its consumers of whatever has this name
