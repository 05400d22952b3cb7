"""A worker killed in a step, with a wrong clock or a bad consumer: `python -m faults.failing_worker worker`.

`TEST_FAILPOINT=STEP:N[:SIGNAL]` sends it SIGKILL (or another signal) when it comes to that step for the N-th time.
`TEST_CLOCK_SHIFT_SECONDS` is added to what its clock says. `TEST_LEAVES_OUT=N` has Faust deliver the N-th record to
nobody. Nothing of this is in Afterglow itself: its functions are wrapped here.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import sinks.writes
import streams.keeper
from sinks.profiles import ProfileStore
from streams.commands import main
from streams.keeper import Keeper
from streams.pipeline import Intake, Pipeline
from streams.producer import EventProducer
from streams.updater import Updater

STEPS: Final = (
    "taken",  # a batch was taken, and nothing done with it
    "encoded",  # its texts have vectors
    "loaded",  # its users' profiles are read
    "folded",  # its events are folded in, and nothing written
    "sent",  # the upsert is on its way: to be used with a proxy that withholds the answers
    "answered",  # the upsert is answered, and not read back
    "read back",  # one chunk of the batch is known to be stored
    "applied",  # the whole batch is, and nothing acknowledged
    "acknowledged",  # the batch is acknowledged, and not committed
    "settling",  # a product is stored, and nobody who waits for it has it yet
    "settled",  # the upsert of somebody who waited for a product is answered
    "refreshing",  # work that was put off is about to be done
    "refreshed",  # its upsert is answered
    "product folded",  # a product is about to be written
    "product answered",  # the upsert of a product is answered
    "mean written",  # the catalogue has another mean
    "letter sent",  # a dead letter is on its way to Kafka
    "letter delivered",  # Kafka has it, and its offset is not acknowledged
)

_doing: contextvars.ContextVar[str] = contextvars.ContextVar("doing", default="")


class Failpoint:
    def __init__(self, step: str, number: int, number_of_signal: signal.Signals) -> None:
        self._step = step
        self._left = number
        self._signal = number_of_signal

    def reach(self, step: str, *, in_seconds: float = 0.0) -> None:
        """Sends the signal where this is the step's N-th time."""
        if step != self._step:
            return
        self._left -= 1
        if self._left == 0:
            if in_seconds:
                asyncio.get_running_loop().call_later(in_seconds, self._fail)
            else:
                self._fail()

    def _fail(self) -> None:
        sys.stderr.write(f"failpoint {self._step}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), self._signal)


def wrap(failpoint: Failpoint) -> None:
    """Lets the functions of each step come by the failpoint."""
    reach = failpoint.reach
    _around(Keeper, "prepare_events", before=lambda: reach("taken"), after=lambda: reach("encoded"))
    _around(Keeper, "apply_events", after=lambda: reach("applied"))
    _around(ProfileStore, "load", after=lambda: reach("loaded"))
    _around(Updater, "settle", before=lambda: (_doing.set("settled"), reach("settling")))
    _around(Updater, "refresh", before=lambda: (_doing.set("refreshed"), reach("refreshing")))
    _around(streams.keeper, "write_mean", after=lambda: reach("mean written"))

    send, read_versions = sinks.writes._send, sinks.writes.read_versions

    async def sent(client: Any, collection: str, writes: Sequence[Any], replicated: bool) -> Any:
        if collection.startswith("products--"):
            reach("product folded")
        if collection.startswith("profiles--"):
            reach("folded")
            reach("sent", in_seconds=1.0)
        answer = await send(client, collection, writes, replicated)
        if collection.startswith("products--"):
            reach("product answered")
        if collection.startswith("profiles--"):
            reach("answered")
            reach(_doing.get())
        return answer

    async def read_back(client: Any, collection: str, *arguments: Any, **options: Any) -> Any:
        versions = await read_versions(client, collection, *arguments, **options)
        if collection.startswith("profiles--"):
            reach("read back")
        return versions

    sinks.writes._send = sent  # type: ignore[assignment]
    sinks.writes.read_versions = read_back  # type: ignore[assignment]

    make_pipeline = Pipeline.__init__

    def made(pipeline: Pipeline[Any, Any], *arguments: Any, acknowledge: Callable[..., Any], **options: Any) -> None:
        async def acknowledged(*events: Any) -> None:
            await acknowledge(*events)
            reach("acknowledged")

        make_pipeline(pipeline, *arguments, acknowledge=acknowledged, **options)

    Pipeline.__init__ = made  # type: ignore[method-assign]

    flush = EventProducer.flush

    def flushed(producer: EventProducer) -> None:
        reach("letter sent")
        flush(producer)
        reach("letter delivered")

    EventProducer.flush = flushed  # type: ignore[method-assign]


def _around(
    owner: Any, name: str, *, before: Callable[[], object] = lambda: None, after: Callable[[], object] = lambda: None
) -> None:
    wrapped = getattr(owner, name)

    @functools.wraps(wrapped)
    async def around(*arguments: Any, **options: Any) -> Any:
        before()
        result = await wrapped(*arguments, **options)
        after()
        return result

    setattr(owner, name, around)


def shift_clock(seconds: int) -> None:
    """Whoever reads the time of day by `time.time_ns`, as all of Afterglow does, reads one that is off by so much.

    Not `time.time`: gRPC reckons its deadlines by it, and judges them by the host's clock, which is right here.
    """
    time_ns = time.time_ns
    time.time_ns = lambda: time_ns() + seconds * 1_000_000_000


def leave_out(number: int) -> None:
    """The agents hand over every event but that one."""
    put = Intake.put
    seen = 0

    async def put_but_one(intake: Intake[Any], event: Any) -> None:
        nonlocal seen
        seen += 1
        if seen != number:
            await put(intake, event)

    Intake.put = put_but_one  # type: ignore[method-assign]


if __name__ == "__main__":
    if given := os.environ.get("TEST_FAILPOINT"):
        step, number, *name = given.split(":")
        assert step in STEPS, step
        wrap(Failpoint(step, int(number), signal.Signals[name[0]] if name else signal.SIGKILL))
    shift_clock(int(os.environ.get("TEST_CLOCK_SHIFT_SECONDS", "0")))
    leave_out(int(os.environ.get("TEST_LEAVES_OUT", "0")))
    main()
