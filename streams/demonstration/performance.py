"""Performing an act: its events sent at a steady pace, what becomes of them watched, until all are folded in.

A shop's customers come at their own pace, so a burst as fast as Kafka takes it would show nothing but a queue. Events
are sent at `EVENTS_PER_SECOND`; on a machine too slow or too busy for that, sending waits while `MOST_WAITING` events
are not folded in yet.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from encoders.client import EncoderStatistics
from streams.demonstration.observation import Counted, Freshness, Look, Observer
from streams.demonstration.shop import Moment
from streams.events import Product, Search
from streams.producer import EventProducer

EVENTS_PER_SECOND: Final = 450.0
MOST_WAITING: Final = 450
LOOK_SECONDS: Final = 0.25
STALL_SECONDS: Final = 60.0
"""How long nothing may be folded in, with events waiting, before the demonstration gives up."""

_TICK_SECONDS: Final = 0.02
_WINDOW_SECONDS: Final = 3.0  # over which rates are averaged


class Progress(NamedTuple):
    """What is to be seen at one moment of an act. Rates are of the last seconds."""

    sent: int
    total: int
    ts: int  # event time of the newest event sent, ms
    sent_per_second: float
    folded: int  # of this act
    folded_per_second: float
    profiles: int
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    cache_hit_share: float | None  # of the texts asked for in this act

    @property
    def waiting(self) -> int:
        return self.sent - self.folded


class Stalled(RuntimeError):
    """Events were sent, and nothing more is folded in."""


class Stage:
    """What acts are performed on: a running system, seen from outside. Keeps count of what was sent to each user."""

    def __init__(self, producer: EventProducer, observer: Observer) -> None:
        self._producer = producer
        self._observer = observer
        self._searches: Counter[str] = Counter()
        self._purchases: Counter[str] = Counter()
        self.freshness = Freshness(observer)

    @property
    def sent(self) -> Mapping[str, Counted]:
        """How many events were sent, by user."""
        users = self._searches.keys() | self._purchases.keys()
        return {user: Counted(self._searches[user], self._purchases[user]) for user in users}

    async def stock(self, products: Sequence[Product]) -> None:
        """Send the catalogue, and return when it is stored. Raises Stalled."""
        for product in products:
            self._producer.produce(product)
        await asyncio.to_thread(self._producer.flush)
        deadline, stored = time.monotonic() + STALL_SECONDS, 0
        while (now := await self._observer.products()) < len(products):
            if now > stored:
                deadline, stored = time.monotonic() + STALL_SECONDS, now
            if time.monotonic() > deadline:
                raise Stalled(f"{now} of {len(products)} products are stored after {STALL_SECONDS:.0f} s of waiting")
            await asyncio.sleep(0.1)

    async def perform(self, moments: Sequence[Moment], show: Callable[[Progress], None]) -> Look:
        """Send the events and return what is stored once they are all folded in. Raises Stalled."""
        watch = asyncio.create_task(self.freshness.watch())
        track = _Track(len(moments), await self._observer.look(), self.freshness)
        sending = asyncio.create_task(self._send(moments, track))
        try:
            while True:
                look = await self._observer.look()
                show(track.progress(look))
                if watch.done():
                    watch.result()
                if sending.done():
                    sending.result()
                    if track.is_complete and not self.freshness.outstanding:
                        return look
                if track.stalled_seconds() > STALL_SECONDS:
                    raise Stalled(f"nothing was folded in for {STALL_SECONDS:.0f} s")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            sending.cancel()
            watch.cancel()
            await asyncio.gather(sending, watch, return_exceptions=True)

    async def _send(self, moments: Sequence[Moment], track: _Track) -> None:
        allowed, before = 0.0, time.monotonic()
        while track.sent < len(moments):
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            allowed = min(allowed + (now - before) * EVENTS_PER_SECOND, float(MOST_WAITING - track.waiting))
            before = now
            for event, _ in moments[track.sent : track.sent + int(allowed)]:
                sent_at = time.monotonic()
                self._producer.produce(event)
                (self._searches if isinstance(event, Search) else self._purchases)[event.user_id] += 1
                track.sent, track.ts = track.sent + 1, event.ts
                allowed -= 1.0
                self.freshness.sent(event, sent_at)
            self._producer.poll(0)
        await asyncio.to_thread(self._producer.flush)


class _Track:
    """How far an act has come."""

    def __init__(self, total: int, before: Look, freshness: Freshness) -> None:
        self.sent = 0
        self.folded = 0
        self.ts = 0
        self._total = total
        self._before = before.folded
        self._encoder = before.encoder
        self._freshness = freshness
        self._recent: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])
        self._moved_at = time.monotonic()

    @property
    def waiting(self) -> int:
        """As of the last look."""
        return self.sent - self.folded

    @property
    def is_complete(self) -> bool:
        return self.folded >= self._total

    def stalled_seconds(self) -> float:
        return time.monotonic() - self._moved_at

    def progress(self, look: Look) -> Progress:
        now, folded = time.monotonic(), look.folded - self._before
        self.folded = folded
        if folded > self._recent[-1][2] or folded == self.sent:
            self._moved_at = now
        self._recent.append((now, self.sent, folded))
        while len(self._recent) > 2 and now - self._recent[0][0] > _WINDOW_SECONDS:
            self._recent.popleft()
        then, sent_then, folded_then = self._recent[0]
        seconds = max(now - then, 1e-3)
        return Progress(
            sent=self.sent,
            total=self._total,
            ts=self.ts,
            sent_per_second=(self.sent - sent_then) / seconds,
            folded=folded,
            folded_per_second=(folded - folded_then) / seconds,
            profiles=len(look.profiles),
            freshness_p50_ms=self._freshness.quantile(0.5),
            freshness_p99_ms=self._freshness.quantile(0.99),
            cache_hit_share=_hit_share(self._encoder, look.encoder),
        )


def _hit_share(before: EncoderStatistics, now: EncoderStatistics) -> float | None:
    texts = now.texts - before.texts
    return (now.cache_hits - before.cache_hits) / texts if texts > 0 else None
