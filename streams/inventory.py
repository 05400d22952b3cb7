"""The generations that there are, which one readers see, and how each is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient, models

from sinks.collections import Generation, products_collection, profiles_collection
from sinks.generations import list_generations, served_generation
from sinks.retry import until_answered
from streams.existing import ASKED
from streams.generations import group_of
from streams.groups import LIVE, REPLAY, members_of
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.lag import Position, positions
from streams.rules import profiles_of
from streams.settings import Profiles, Settings
from streams.topics import Topic, TopicPartition, describe

KAFKA_SECONDS: Final = 5.0
"""How long Kafka may take to answer: without it, what Qdrant knows is told all the same."""


class Who(StrEnum):
    """What the members of a group are."""

    NOBODY = "nobody"
    WORKERS = "workers"
    REPLAY = "replay"
    JOINING = "joining"  # they are still agreeing


class Difference(msgspec.Struct, frozen=True):
    """A setting of the fold, as this generation and as the one that readers see was made with."""

    here: str
    served: str


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. What Kafka knows (`lag`, `members`, `who`) is None where it does not answer."""

    name: str
    served: bool
    model: str
    model_identity: str
    created_at: int  # ms
    replayed: bool
    built_at: int | None  # ms: when a replay completed it; of a replayed one, None says that it isn't complete
    from_ms: int | None  # records older than this were left out
    profiles: int
    products: int  # those that were deleted left out
    group: str
    lag: int | None  # events that its group has not folded in
    members: int | None
    who: Who | None
    differs: dict[str, Difference]


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest generation first. `kafka` says why Kafka was not heard, where it wasn't."""

    generations: list[Listed]
    kafka: str | None


class Reached(NamedTuple):
    """How far the group of a generation has come, and who is in it."""

    positions: dict[TopicPartition, Position]
    lag: int
    members: int
    who: Who


async def look(settings: Settings, client: AsyncQdrantClient) -> Inventory:
    """Raises PermanentSinkError, RefusedGeneration, and what Qdrant's client raises."""
    generations = await list_generations(client, retry=ASKED)
    served = await served_generation(client, retry=ASKED)
    shown = next((one for one in generations if one.name == served), None)
    kafka: str | None = None
    found: Mapping[str, Reached] = {}
    try:
        found = await asyncio.to_thread(_ask_kafka, settings, generations)
    except (KafkaUnreachable, KafkaException) as error:
        kafka = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    listed = [await _listed(settings, client, one, shown, found.get(one.name)) for one in generations]
    return Inventory(generations=listed, kafka=kafka)


def reached(settings: Settings, admin: AdminClient, generation: Generation) -> Reached:
    """Asks Kafka, and waits for it a little. A topic that is gone counts for nothing. Raises KafkaUnreachable."""
    return answered(lambda: _reached(settings, admin, generation), settings.kafka, KAFKA_SECONDS)


def _ask_kafka(settings: Settings, generations: list[Generation]) -> dict[str, Reached]:
    admin = connect_admin(settings.kafka)
    return {one.name: reached(settings, admin, one) for one in generations}


def _reached(settings: Settings, admin: AdminClient, generation: Generation) -> Reached:
    topics = settings.topics
    names = [source.topic for source in generation.sources.values()]
    found = describe(admin, names or (topics.searches, topics.purchases, topics.products))
    at = {
        partition: _from_its_start(generation, found, partition, position)
        for partition, position in positions(settings.kafka, admin, group_of(generation.name), found).items()
    }
    members = members_of(admin, group_of(generation.name))
    who = {LIVE: Who.WORKERS, REPLAY: Who.REPLAY}.get(members.assignor, Who.JOINING) if members.number else Who.NOBODY
    return Reached(at, sum(position.lag for position in at.values()), members.number, who)


def _from_its_start(
    generation: Generation, found: Mapping[str, Topic], at: TopicPartition, position: Position
) -> Position:
    """The position with what the generation does not begin with left out."""
    topic, partition = at
    for source in generation.sources.values():
        if source.topic == topic and source.id == found[topic].id and partition < len(source.start):
            return position._replace(first=min(max(position.first, source.start[partition]), position.end))
    return position


async def _listed(
    settings: Settings,
    client: AsyncQdrantClient,
    generation: Generation,
    served: Generation | None,
    found: Reached | None,
) -> Listed:
    name, model = generation.name, generation.model
    deleted = models.FieldCondition(key="deleted", match=models.MatchValue(value=True))
    return Listed(
        name=name,
        served=served is not None and name == served.name,
        model=model.name,
        model_identity=model.identity,
        created_at=generation.created_at_ms,
        replayed=generation.replayed,
        built_at=generation.built.at_ms if generation.built is not None else None,
        from_ms=generation.from_ms,
        profiles=await _count(client, profiles_collection(name), models.Filter()),
        products=await _count(client, products_collection(name), models.Filter(must_not=[deleted])),
        group=group_of(name),
        lag=found.lag if found is not None else None,
        members=found.members if found is not None else None,
        who=found.who if found is not None else None,
        differs=_differences(settings, generation, served),
    )


async def _count(client: AsyncQdrantClient, collection: str, counted: models.Filter) -> int:
    """0 where there is no such collection: a drop was interrupted."""
    there = await until_answered(
        lambda: client.collection_exists(collection), doing="a look-up", collection=collection, retry=ASKED
    )
    if not there:
        return 0
    found = await until_answered(
        lambda: client.count(collection, counted, exact=True), doing="counting", collection=collection, retry=ASKED
    )
    return found.count


def _differences(settings: Settings, generation: Generation, served: Generation | None) -> dict[str, Difference]:
    if served is None:
        return {}
    mine, theirs = (profiles_of(one.fold, settings.profiles) for one in (generation, served))
    pairs = {field: (getattr(mine, field), getattr(theirs, field)) for field in Profiles.__struct_fields__}
    return {field: Difference(str(here), str(there)) for field, (here, there) in pairs.items() if here != there}
