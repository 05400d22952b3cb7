"""A worker's figures, as Prometheus and Kubernetes read them."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy.ports import kept_ports
from streams import metrics
from streams.metrics import serve_metrics
from streams.stalls import StallWatch
from streams.updater import Figures


@pytest.fixture
def port(tmp_path: Path) -> int:
    return kept_ports(tmp_path / "ports.json", ["metrics"])["metrics"]


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_figures_and_what_the_watches_say_are_told(port: int):
    figures, clock = Figures(), iter([0.0, 5.0, 12.0, 12.0])
    figures.events = 3
    figures.noise.update(campaign_code=2)
    watch = StallWatch("events", ["searches"], clock=lambda: next(clock))
    watch.taken()
    serve_metrics(port, figures, lambda: 4, [watch])
    _, told = await asyncio.to_thread(get, port, "/metrics")
    assert {
        "afterglow_events_folded_total 3.0",
        'afterglow_noise_total{reason="campaign_code"} 2.0',
        "afterglow_events_waiting 4.0",
        'afterglow_batch_seconds{stream="events"} 7.0',
        'afterglow_seconds_since_acknowledged{stream="events"} 12.0',
    } <= set(told.splitlines())


async def test_it_is_healthy_as_long_as_its_event_loop_turns(port: int, monkeypatch: pytest.MonkeyPatch):
    serve_metrics(port, Figures(), lambda: 0)
    assert await asyncio.to_thread(get, port, "/healthz") == (200, "ok\n")

    monkeypatch.setattr(metrics, "LOOP_SECONDS", 1.0)
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(get(port, "/healthz")))
    asking.start()
    asking.join()  # the loop stands still until then
    assert answers == [(503, "the event loop has not turned for 1 s\n")]


def test_a_loop_that_has_ended_is_not_healthy(port: int):
    async def serve() -> None:
        serve_metrics(port, Figures(), lambda: 0)

    asyncio.run(serve())
    assert get(port, "/healthz")[0] == 503
