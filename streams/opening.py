"""Opens a generation for writing: everything it takes, checked against each other, before a single event is read."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from qdrant_client import AsyncQdrantClient

from encoders.client import EncoderClient, ModelDescription
from sinks.collections import (
    Generation,
    Model,
    RefusedGeneration,
    Source,
    products_collection,
    profiles_collection,
    read_generation,
)
from sinks.generations import change_generation, list_generations, served_generation
from sinks.identity import PointIds
from sinks.opening import Replication, open_generation
from sinks.retry import RetryPolicy, until_answered
from streams.generations import as_folded, generation_in_force, group_of, overruled
from streams.groups import set_offsets
from streams.kafka import answered, connect_admin
from streams.rules import recorded_fold
from streams.secret import read_secret
from streams.settings import Settings
from streams.topics import (
    MisconfiguredTopics,
    Topic,
    committed_offsets,
    ensure_topics,
    first_offsets,
    offsets_at,
)

logger = logging.getLogger("afterglow.opening")

ROLES: Final = ("searches", "purchases", "products")
ENCODER_SECONDS: Final = 120.0
"""How long an encoding worker may serve another model than the generation's: it may be changing over."""

_POLL_SECONDS: Final = 0.5


class InvalidReplay(ValueError):
    """What was asked of a replay can't be; the text says why, and what can."""


class Opened(NamedTuple):
    """A generation, and what it takes to write it."""

    generation: Generation
    settings: Settings  # with the profiles' settings that the generation was made with
    topics: dict[str, Topic]  # by name, the dead letters' among them
    ids: PointIds
    encoder: EncoderClient


async def open_for_writing(settings: Settings, client: AsyncQdrantClient) -> Opened:
    """The generation in force, made where there is none.

    Waits for Kafka, Qdrant and an encoding worker with the generation's model. Raises MisconfiguredTopics,
    KafkaUnreachable, NoSecret, EncoderError, RefusedGeneration, GroupInUse and PermanentSinkError.
    """
    topics = await asyncio.to_thread(ensure_topics, settings)
    ids = PointIds(read_secret(settings.secret_file))
    name = await generation_in_force(settings, client)
    recorded = await read_generation(client, name)
    encoder, model = await _encoder(settings, recorded)
    wanted = new_generation(settings, name, model, ids, await sources_now(settings, topics))
    await _read_anew_what_is_lost(settings, client, recorded or wanted, topics)
    generation = await open_generation(client, wanted, replication=replication(settings))
    generation = await follow_topics(settings, client, generation, topics)
    for setting, (given, kept) in overruled(settings, generation).items():
        logger.warning(
            "event=setting_overruled setting=%s value=%s from=%r reason='generation %s was made with %s, which holds: "
            "`afterglow replay` makes one with another value'",
            setting, given, settings.source(setting), name, kept,
        )  # fmt: skip
    return Opened(generation, as_folded(settings, generation), topics, ids, encoder)


async def open_for_replay(
    settings: Settings, client: AsyncQdrantClient, *, name: str | None = None, from_ms: int | None = None
) -> Opened:
    """A generation that readers don't see, to be built by the settings: `name`, where it is given.

    Else the one that a replay by the same settings has begun, so that a replay which was killed goes on, at whatever
    moment, and several of them share the work; else a new one. Raises as `open_for_writing` does; and InvalidReplay.
    """
    topics = await asyncio.to_thread(ensure_topics, settings)
    ids = PointIds(read_secret(settings.secret_file))
    encoder = EncoderClient(settings.encoder_address)
    model = await encoder.describe()
    wanted = new_generation(
        settings,
        name or "",
        model,
        ids,
        await sources_now(settings, topics, from_ms=from_ms),
        from_ms=from_ms,
        replayed=True,
    )
    known, served = await list_generations(client), await served_generation(client)
    if name is None:
        begun = [one for one in known if one.replayed and one.name != served and _is_same(one, wanted)]
        wanted = msgspec.structs.replace(wanted, name=begun[-1].name if begun else _next_name(known))
    elif name == served:
        raise InvalidReplay(
            f"generation {name!r} is the one that readers see, and live workers keep it up to date: replay into "
            "another one (leave out --generation, or give a new name)"
        )
    recorded = next((one for one in known if one.name == wanted.name), None)
    await _read_anew_what_is_lost(settings, client, recorded or wanted, topics)
    generation = await open_generation(client, wanted, replication=replication(settings), serve=False)
    if different := overruled(settings, generation):
        told = ", ".join(f"{setting} = {kept} (here: {given})" for setting, (given, kept) in different.items())
        raise InvalidReplay(
            f"generation {generation.name!r} exists already, and was made with {told}: what shapes a profile never "
            "changes within a generation. Leave out --generation, or give a new name"
        )
    if from_ms is not None and generation.from_ms != from_ms:
        raise InvalidReplay(
            f"generation {generation.name!r} exists already, and begins elsewhere than --from says: leave out "
            "--generation, or give a new name"
        )
    generation = await follow_topics(settings, client, generation, topics)
    return Opened(generation, as_folded(settings, generation), topics, ids, encoder)


def _is_same(generation: Generation, wanted: Generation) -> bool:
    return (
        generation.model.identity == wanted.model.identity
        and generation.fold == wanted.fold
        and generation.from_ms == wanted.from_ms
    )


def _next_name(known: Sequence[Generation]) -> str:
    numbers = [int(one.name[1:]) for one in known if re.fullmatch(r"g\d{1,9}", one.name)]
    return f"g{max(numbers, default=1) + 1}"


def new_generation(
    settings: Settings,
    name: str,
    model: ModelDescription,
    ids: PointIds,
    sources: dict[str, Source],
    *,
    from_ms: int | None = None,
    replayed: bool = False,
) -> Generation:
    """The record of a generation that is made by these settings now."""
    return Generation(
        name=name,
        model=Model(
            model.name, model.identity, model.dimension, model.source, model.query_prefix, model.product_prefix
        ),
        secret_fingerprint=ids.fingerprint,
        fold=recorded_fold(settings.profiles),
        created_at_ms=time.time_ns() // 1_000_000,
        sources=sources,
        from_ms=from_ms,
        replayed=replayed,
    )


def replication(settings: Settings) -> Replication:
    return Replication(settings.qdrant.replication_factor, settings.qdrant.shard_number)


async def sources_now(settings: Settings, topics: dict[str, Topic], *, from_ms: int | None = None) -> dict[str, Source]:
    """The topics as they are, each from the oldest record that Kafka still has.

    With `from_ms`, searches and purchases begin at the first record that was produced then or later. Products always
    begin with the oldest: what is sold now was announced at any time.
    """
    admin = connect_admin(settings.kafka)
    read = {topic_of(settings, role): topics[topic_of(settings, role)] for role in ROLES}
    first = await asyncio.to_thread(lambda: answered(lambda: first_offsets(admin, read), settings.kafka))
    if from_ms is not None:
        of_users = {name: topic for name, topic in read.items() if name != topic_of(settings, "products")}
        first |= await asyncio.to_thread(lambda: answered(lambda: offsets_at(admin, of_users, from_ms), settings.kafka))
    return {
        role: Source(
            name := topic_of(settings, role),
            read[name].id,
            [first[name, partition] for partition in range(read[name].partitions)],
        )
        for role in ROLES
    }


def topic_of(settings: Settings, role: str) -> str:
    """The name of the topic that has this role."""
    name: str = getattr(settings.topics, role)
    return name


async def follow_topics(
    settings: Settings, client: AsyncQdrantClient, generation: Generation, topics: dict[str, Topic]
) -> Generation:
    """Makes sure that the topics are those that the generation was made from, or follows one that was made anew.

    The ledgers go on with a topic made anew from its beginning. Its group's committed offsets are of the topic before
    (a worker may have committed them after the new one was made) and are taken back first. Raises MisconfiguredTopics
    where a topic has another name or number of partitions: a user's events would be counted twice, or not at all.
    """
    made_anew = {}
    now = await sources_now(settings, topics)
    for role, source in (generation.sources or now).items():
        found = now[role]
        if found.topic != source.topic:
            raise MisconfiguredTopics(
                f"generation {generation.name!r} is made from the topic {source.topic}, and topics.{role} is "
                f"{found.topic} (from: {settings.source(f'topics.{role}')}): set it back, or make a generation "
                "from the new topic: `afterglow replay`"
            )
        if len(found.start) != len(source.start):
            raise MisconfiguredTopics(
                f"topic {source.topic} has {len(found.start)} partitions, and had {len(source.start)} when generation "
                f"{generation.name!r} was made: users' events moved, and offsets of two partitions have no "
                'order. Copy the records into a new topic and replay that: docs/guarantees.md, "Partitions were added"'
            )
        if found.id != source.id:
            made_anew[role] = msgspec.structs.replace(found, earlier=[*source.earlier, source.id])
    if generation.sources and not made_anew:
        return generation
    for source in made_anew.values():
        start = {(source.topic, partition): offset for partition, offset in enumerate(source.start)}
        await asyncio.to_thread(set_offsets, settings.kafka, group_of(generation.name), start)
        logger.warning("event=topic_made_anew topic=%s id=%s reading='from its beginning'", source.topic, source.id)

    def follow(record: Generation) -> Generation:
        sources = {**(record.sources or now), **made_anew}
        return msgspec.structs.replace(record, sources=sources)

    return await change_generation(client, generation.name, follow, replicated=replication(settings).replicated)


async def _read_anew_what_is_lost(
    settings: Settings, client: AsyncQdrantClient, generation: Generation, topics: dict[str, Topic]
) -> None:
    """Takes offsets back that are committed for collections which aren't there: somebody lost or deleted them.

    Before they are made again, so that a crash in between repeats it. Raises GroupInUse.
    """
    sources = generation.sources or await sources_now(settings, topics)
    read = {source.topic: topics[source.topic] for source in sources.values()}
    group = group_of(generation.name)
    # Asked for before: nobody commits until the collections are there, so what is committed and has none lost it.
    committed = await asyncio.to_thread(
        lambda: answered(lambda: committed_offsets(settings.kafka, group, read), settings.kafka)
    )
    roles: list[str] = []
    for collection, fed_by in (
        (profiles_collection(generation.name), ("searches", "purchases")),
        (products_collection(generation.name), ("products",)),
    ):
        if not await until_answered(
            lambda collection=collection: client.collection_exists(collection),  # type: ignore[misc]
            doing="a look-up",
            collection=collection,
            retry=RetryPolicy(),
        ):
            roles += fed_by
    lost = {sources[role].topic: sources[role].start for role in roles}
    back = {(name, at): lost[name][at] for name, at in committed if name in lost and at < len(lost[name])}
    if back:
        await asyncio.to_thread(set_offsets, settings.kafka, group, back)
        logger.warning(
            "event=collections_lost generation=%s reading=%r", generation.name, f"{', '.join(lost)} from the beginning"
        )


async def _encoder(settings: Settings, recorded: Generation | None) -> tuple[EncoderClient, ModelDescription]:
    """A client of an encoding worker that has the recorded model; an encoder that changes over is waited for."""
    deadline, told = time.monotonic() + ENCODER_SECONDS, False
    while True:
        encoder = EncoderClient(settings.encoder_address)
        model = await encoder.describe()
        if recorded is None or model.identity == recorded.model.identity:
            return encoder, model
        await encoder.close()  # it would return this model's vectors only
        if time.monotonic() > deadline:
            raise RefusedGeneration(
                f"the encoding worker at {settings.encoder_address} has the model {model.name} ({model.identity}), and "
                f"generation {recorded.name!r} holds vectors of {recorded.model.name} ({recorded.model.identity}): "
                "vectors of two models can't be compared. Start the encoding worker with the latter (encoder.model, "
                "encoder.query_prefix, encoder.product_prefix), or make a generation of the former: `afterglow replay`"
            )
        if not told:
            logger.info(
                "event=waiting_for_model generation=%s wanted=%s serving=%s",
                recorded.name, recorded.model.identity, model.identity,
            )  # fmt: skip
            told = True
        await asyncio.sleep(_POLL_SECONDS)
