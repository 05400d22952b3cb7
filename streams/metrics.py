"""Figures of a worker for Prometheus, read when they are asked for: nothing is counted twice on the hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.stalls import StallWatch
from streams.updater import Figures


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
    """Answers on `port` from a thread of its own, for as long as the process lives. Raises OSError (port taken)."""
    registry = CollectorRegistry()
    registry.register(_WorkerCollector(figures, waiting, watches))
    start_http_server(port, registry=registry)
