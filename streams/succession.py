"""Lets readers see another generation, waits until live workers have caught up in it, and drops one for good.

Live workers follow the readers by themselves (`streams.worker`): to roll back is to let readers see an earlier
generation again, whose group goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from sinks.collections import Generation, read_generation
from sinks.generations import StillServed, drop_generation, serve, served_generation
from streams.existing import ASKED, UnknownGeneration, open_existing
from streams.generations import group_of, statistics_group_of
from streams.inventory import Reached, Who, reached
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.lag import waiting
from streams.settings import Settings
from streams.topics import REQUEST_SECONDS, TopicPartition

PATIENCE_SECONDS: Final = 180.0
"""How long live workers may take to come over: they finish what they have, and may wait for another model."""

_POLL_SECONDS: Final = 0.5
_KAFKA_SECONDS: Final = 3.0
_FEW: Final = 100  # offsets of which it is looked whether they hold an event: marks of transactions don't


class Unfinished(RuntimeError):
    """The generation was begun by a replay that has not completed it."""


class GenerationInUse(RuntimeError):
    """Somebody is in the group of the generation, and may write to it still."""


class NobodyCame(RuntimeError):
    """Readers see the generation, but no live worker has come over to keep it up to date."""


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """Readers see `generation` now. `missing` events have to be caught up; None where Kafka did not say.

    `workers` says whether there are live ones, who will do that.
    """

    generation: str
    before: str | None
    missing: int | None
    workers: bool


class CatchingUp(msgspec.Struct, frozen=True):
    """What is left of the events that were missing, and how many live workers are in the group."""

    left: int
    of: int
    workers: int


async def activate(settings: Settings, client: AsyncQdrantClient, name: str, *, force: bool = False) -> Activated:
    """Lets readers see this generation. Needs Kafka for nothing but to tell what it misses, and waits little for it.

    Raises UnknownGeneration, NoSecret, RefusedGeneration (made with another secret), Unfinished (unless `force`),
    PermanentSinkError, and what Qdrant's client raises.
    """
    generation = (await open_existing(settings, client, name)).generation
    if generation.replayed and generation.built is None and not force:
        raise Unfinished(
            f"generation {name!r} was begun by a replay that has not completed it: readers would see half of it. "
            f"Complete it (`afterglow replay --generation {name}`), or insist (--force)"
        )
    before = await served_generation(client, retry=ASKED)
    former = await read_generation(client, before, retry=ASKED) if before is not None else None
    # Who is in the groups is asked first, since live workers leave theirs within a second; but readers don't wait long.
    asking = asyncio.create_task(asyncio.to_thread(_missing, settings, generation, former))
    await asyncio.wait({asking}, timeout=_KAFKA_SECONDS)
    await serve(client, name, retry=ASKED)
    missing, workers = await asking
    return Activated(generation=name, before=before, missing=missing, workers=workers)


def _missing(settings: Settings, generation: Generation, former: Generation | None) -> tuple[int | None, bool]:
    """Events to catch up (None: Kafka does not say), and whether there are live workers to do it."""
    admin = connect_admin(settings.kafka)
    try:
        found = reached(settings, admin, generation)
        groups = [found, reached(settings, admin, former)] if former is not None else [found]
    except (KafkaUnreachable, KafkaException):
        return None, False
    return found.lag, any(group.who in (Who.WORKERS, Who.JOINING) for group in groups)


def catch_up(
    settings: Settings,
    generation: Generation,
    report: Callable[[CatchingUp], None] = lambda _: None,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> int:
    """Returns when live workers have folded in whatever there is at this moment; how much that was.

    Raises NobodyCame where there is no live worker in its group for `patience_seconds`, and KafkaUnreachable.
    """
    admin = connect_admin(settings.kafka)
    found = answered(lambda: reached(settings, admin, generation), settings.kafka)
    ends = {at: position.end for at, position in found.positions.items()}
    of, seen = found.lag, time.monotonic()
    while left := _left(settings, generation, found, ends):
        if found.who is Who.WORKERS:
            seen = time.monotonic()
        elif time.monotonic() - seen > patience_seconds:
            raise NobodyCame(
                f"readers see generation {generation.name!r}, but no live worker has come to the group "
                f"{group_of(generation.name)} in {patience_seconds:.0f} s: those that were told another generation "
                "(AFTERGLOW_GENERATION) stay with it; what hinders others is in their logs"
            )
        report(CatchingUp(left, of, found.members if found.who is Who.WORKERS else 0))
        time.sleep(_POLL_SECONDS)
        found = answered(lambda: reached(settings, admin, generation), settings.kafka)
    report(CatchingUp(0, of, found.members if found.who is Who.WORKERS else 0))
    return of


def _left(settings: Settings, generation: Generation, found: Reached, ends: Mapping[TopicPartition, int]) -> int:
    short = {
        at: position._replace(end=ends[at])
        for at, position in found.positions.items()
        if position.next < ends.get(at, 0)
    }
    left = sum(position.end - position.next for position in short.values())
    if 0 < left <= _FEW and not answered(
        lambda: waiting(settings.kafka, group_of(generation.name), short), settings.kafka
    ):
        return 0
    return left


async def require_unused(settings: Settings, client: AsyncQdrantClient, name: str) -> None:
    """Raises UnknownGeneration, StillServed, GenerationInUse, KafkaUnreachable, and what Qdrant's client raises."""
    generation = await read_generation(client, name, retry=ASKED)
    if generation is None:
        raise UnknownGeneration(f"there is no generation {name!r}: `afterglow generations` lists those that there are")
    if name == await served_generation(client, retry=ASKED):
        raise StillServed(
            f"readers see generation {name!r}: let them see another one first (`afterglow generations activate`)"
        )
    found = await asyncio.to_thread(lambda: reached(settings, connect_admin(settings.kafka), generation))
    if found.members:
        raise _in_use(name, f"there {'are' if found.members > 1 else 'is'} {found.members} ({found.who})")


async def drop(settings: Settings, client: AsyncQdrantClient, name: str) -> None:
    """Deletes a generation, and the offsets of its groups: nothing but a replay brings it back.

    That of its workers goes first, since Kafka refuses to delete one that has members: so nobody writes what is
    deleted. Safe to repeat after a crash. Raises as `require_unused`, and PermanentSinkError.
    """
    await require_unused(settings, client, name)
    await asyncio.to_thread(_delete_groups, settings, connect_admin(settings.kafka), name)
    await drop_generation(client, name, retry=ASKED)


def _delete_groups(settings: Settings, admin: AdminClient, name: str) -> None:
    def delete(group: str) -> None:
        admin.delete_consumer_groups([group], request_timeout=REQUEST_SECONDS)[group].result()

    for group in (group_of(name), statistics_group_of(name)):
        try:
            answered(partial(delete, group), settings.kafka)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.NON_EMPTY_GROUP:
                raise _in_use(name, "somebody has just come") from None
            if code != KafkaError.GROUP_ID_NOT_FOUND:  # nobody has ever committed anything
                raise


def _in_use(name: str, who: str) -> GenerationInUse:
    return GenerationInUse(
        f"the consumer group {group_of(name)} of generation {name!r} has members ({who}), who may write to it still: "
        "stop them first, or those that were told this generation (AFTERGLOW_GENERATION)"
    )
