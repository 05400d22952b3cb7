"""Waiting until what was sent has been folded in, and what that made due is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from streams.kafka import answered, connect_admin
from streams.settings import Settings
from streams.topics import TopicPartition, committed_offsets, describe, member_count

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

POLL_SECONDS: Final = 0.25


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What is still to come: records not acknowledged by the workers, events that the statistics across users don't
    know yet, and profiles with due work.

    `uncounted` and `due` are None until what comes before is done. `workers` is how many are in the group now.
    """

    group: str
    records: int
    due: int | None
    workers: int
    uncounted: int | None = None


def wait_until_folded(
    settings: Settings,
    offsets: Mapping[TopicPartition, int],
    report: Callable[[Waiting], None] = lambda _: None,
) -> None:
    """Return once every record up to these offsets (inclusive) is folded in, and what that made due is done.

    First the committed offsets of the group of the generation in force pass them (another one's, should it take over
    meanwhile); then, where the generation has statistics across users, they know them; then no profile has work that
    is due by the time a candidate interval after that. Work of others that falls due by then is waited for as well.
    There is no time limit: without a worker it waits for one, and `report`, called at every look, says so (`workers`
    is 0).
    A Qdrant that doesn't answer is waited for; one that refuses raises `sinks.retry.PermanentSinkError`. Raises
    `KafkaUnreachable`.
    """
    if not offsets:
        return
    from streams.generations import group_of, in_force

    admin = connect_admin(settings.kafka)
    while True:
        generation = in_force(settings)
        waiting = _records(admin, group_of(generation), offsets, settings)
        if not waiting.records:
            break
        report(waiting)
        time.sleep(POLL_SECONDS)
    report(waiting)
    while uncounted := _uncounted(admin, generation, offsets, settings):
        report(msgspec.structs.replace(waiting, uncounted=uncounted))
        time.sleep(POLL_SECONDS)
    horizon_ms = time.time_ns() // 1_000_000 + settings.derivation.candidates_interval.milliseconds
    asyncio.run(
        _wait_for_due(settings, generation, horizon_ms, lambda due: report(msgspec.structs.replace(waiting, due=due)))
    )


def _records(admin: AdminClient, group: str, offsets: Mapping[TopicPartition, int], settings: Settings) -> Waiting:
    topics = answered(lambda: describe(admin, {topic for topic, _ in offsets}), settings.kafka)
    committed = answered(lambda: committed_offsets(settings.kafka, group, topics), settings.kafka)
    missing = sum(max(0, offset + 1 - committed.get(at, 0)) for at, offset in offsets.items())
    workers = answered(lambda: member_count(admin, group), settings.kafka) if missing else 0
    return Waiting(group=group, records=missing, due=None, workers=workers)


def _uncounted(admin: AdminClient, generation: str, offsets: Mapping[TopicPartition, int], settings: Settings) -> int:
    """How many of these events statistics don't know; 0 where nobody keeps any."""
    from streams.generations import statistics_group_of

    counted = {settings.topics.searches, settings.topics.purchases, settings.topics.products}
    events = {at: offset for at, offset in offsets.items() if at[0] in counted}
    if not events or not asyncio.run(_has_statistics(settings, generation)):
        return 0
    return _records(admin, statistics_group_of(generation), events, settings).records


async def _has_statistics(settings: Settings, generation: str) -> bool:
    from sinks.collections import statistics_collection
    from sinks.statistics_store import StatisticsStore
    from streams.generations import connected

    client = connected(settings)
    try:
        if not await client.collection_exists(statistics_collection(generation)):
            return False
        return await StatisticsStore(client, generation).head() is not None
    finally:
        await client.close()


async def _wait_for_due(settings: Settings, generation: str, horizon_ms: int, report: Callable[[int], None]) -> None:
    from qdrant_client import models

    from sinks.collections import profiles_collection
    from sinks.retry import RetryPolicy, until_answered
    from streams.generations import connected

    client = connected(settings)
    is_due = models.Filter(must=[models.FieldCondition(key="due", range=models.Range(lte=horizon_ms))])
    collection = profiles_collection(generation)

    async def count() -> int:
        return (await client.count(collection, is_due, exact=True)).count

    try:
        while due := await until_answered(
            count, doing="counting due profiles", collection=collection, retry=RetryPolicy()
        ):
            report(due)
            await asyncio.sleep(POLL_SECONDS)
        report(0)
    finally:
        await client.close()
