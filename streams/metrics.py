"""Figures of a worker for Prometheus, read when they are asked for: nothing is counted twice on the hot path.

Beside them, whether its event loop still turns, for who has to restart it: a worker that fails exits by itself, and one
that waits for a service that is away is not to be restarted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.stalls import StallWatch
from streams.updater import Figures

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOP_SECONDS: Final = 5.0
"""How long a turn of the event loop may take; a batch's numpy takes milliseconds."""


class _WorkerCollector(Collector):
    def __init__(self, figures: Figures, waiting: Callable[[], int], watches: Sequence[StallWatch]) -> None:
        self._figures = figures
        self._waiting = waiting
        self._watches = watches

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        for name, meaning, value in (
            ("events_folded", "Searches and purchases folded into stored profiles.", figures.events),
            ("profiles_written", "Profiles written and read back.", figures.profiles_written),
            ("writes_redone", "Writes refused since somebody else had written meanwhile.", figures.writes_redone),
            ("profiles_refreshed", "Profiles whose put-off work was done.", figures.refreshed),
            ("dead_letters", "Events that were not understood.", figures.dead_letters),
        ):
            yield CounterMetricFamily(f"afterglow_{name}", meaning, value=value)
        noise = CounterMetricFamily(
            "afterglow_noise", "Searches whose query says little, by reason; what it weighs less.", labels=["reason"]
        )
        for reason, count in dict(figures.noise).items():  # the loop that counts is another thread
            noise.add_metric([reason], count)
        yield noise
        yield GaugeMetricFamily("afterglow_events_waiting", "Events read and not yet taken up.", value=self._waiting())
        oldest = GaugeMetricFamily(
            "afterglow_batch_seconds",
            "Age of the oldest batch not acknowledged, 0 without one.",
            labels=["stream"],
        )
        since = GaugeMetricFamily(
            "afterglow_seconds_since_acknowledged", "Since a batch was acknowledged, or the start.", labels=["stream"]
        )
        for watch in self._watches:
            oldest.add_metric([watch.name], watch.batch_seconds)
            since.add_metric([watch.name], watch.seconds_since_acknowledged)
        yield from (oldest, since)


def serve_metrics(port: int, figures: Figures, waiting: Callable[[], int], watches: Sequence[StallWatch] = ()) -> None:
    """Answers on `port` from a thread of its own, for as long as the process lives. Raises OSError (port taken).

    To be called from the event loop that is the worker's: `/healthz` answers 200 as long as that turns, else 503.
    """
    registry = CollectorRegistry()
    registry.register(_WorkerCollector(figures, waiting, watches))
    server, _ = start_http_server(port, registry=registry)
    server.set_app(_with_health(server.get_app(), asyncio.get_running_loop()))


def _with_health(metrics: WSGIApplication | None, loop: asyncio.AbstractEventLoop) -> WSGIApplication:
    assert metrics is not None  # it has just been set

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            return metrics(environ, start_response)
        turns = _turns(loop)
        start_response("200 OK" if turns else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if turns else f"the event loop has not turned for {LOOP_SECONDS:.0f} s\n".encode()]

    return answer


def _turns(loop: asyncio.AbstractEventLoop) -> bool:
    turn = threading.Event()
    try:
        loop.call_soon_threadsafe(turn.set)
    except RuntimeError:  # closed
        return False
    return turn.wait(LOOP_SECONDS)
