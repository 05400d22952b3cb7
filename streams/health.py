"""How everything is doing, from outside: what Kafka, Qdrant and the encoding worker say at this moment.

Each part is asked at the same time as the others and with a deadline, so that one dead service doesn't hide the rest.
Lag is no problem by itself; events that have waited for a while, in partitions whose offsets stand still, are one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Final, TypeVar

from confluent_kafka import KafkaException
from qdrant_client import AsyncQdrantClient, models

from encoders.client import EncoderClient, EncoderError
from sinks.collections import (
    Generation,
    RefusedGeneration,
    Source,
    products_collection,
    profiles_collection,
    read_generation,
)
from sinks.profiles import ProfileStore
from sinks.retry import TRANSIENT, PermanentSinkError, RetryPolicy
from sinks.retry import describe as describe_failure
from sinks.statistics_store import Head, StatisticsStore
from streams.continuity import Discontinuity, compare_committed
from streams.dead_letters import waiting_count
from streams.generations import connected, group_of, statistics_group_of
from streams.group_health import GroupLook, watch_group
from streams.groups import LIVE, members_of
from streams.kafka import KafkaUnreachable, answered, connect_admin
from streams.lag import positions, waiting
from streams.settings import Settings
from streams.status import (
    EncoderStatus,
    GenerationStatus,
    KafkaStatus,
    PartitionStatus,
    ProductsStatus,
    ProfilesStatus,
    QdrantStatus,
    StatisticsStatus,
    Status,
)
from streams.topics import describe

ANSWER_SECONDS: Final = 5.0
STILL_SECONDS: Final = 60.0
COUNT_SECONDS: Final = 60.0  # adding up a million profiles takes its time
_T = TypeVar("_T")


class _Silent(Exception):
    """A part that can't be asked, in words."""


async def look(settings: Settings) -> Status:
    """One look at everything. Raises nothing for a service that is away: that is what it tells."""
    kafka, qdrant, encoder = await asyncio.gather(
        _unless_silent(_kafka(settings)), _unless_silent(_qdrant(settings)), _unless_silent(_encoder(settings))
    )
    problems = [part for part in (kafka, qdrant, encoder) if isinstance(part, str)]
    told_kafka, of_group = (None, []) if isinstance(kafka, str) else kafka
    told_qdrant = None if isinstance(qdrant, str) else qdrant
    told_encoder = None if isinstance(encoder, str) else encoder
    if told_kafka is not None:
        sources = told_qdrant.generation.sources if told_qdrant is not None and told_qdrant.generation else {}
        problems += [*_topic_problems(told_kafka, sources), *of_group]
    if told_qdrant is not None:
        problems += _qdrant_problems(told_qdrant, told_encoder, settings.generation)
        if told_kafka is not None and told_kafka.uncounted:
            problems += await _statistics_problems(settings, told_qdrant, told_kafka.uncounted)
    return Status(healthy=not problems, problems=problems, kafka=told_kafka, qdrant=told_qdrant, encoder=told_encoder)


def _topic_problems(kafka: KafkaStatus, sources: Mapping[str, Source]) -> list[str]:
    """What is wrong with the topics, and with where the group is in them. `sources` are the generation's."""
    problems = []
    if kafka.missing_topics:
        problems.append(f"Kafka has no topic {', '.join(kafka.missing_topics)}: a worker makes it when it starts")
    of_generation = {source.topic: source for source in sources.values()}
    for name, source in of_generation.items():
        if kafka.topic_ids.get(name, source.id) != source.id:
            problems.append(
                f"topic {name} was made anew (id {source.id} became {kafka.topic_ids[name]}): start the workers again, "
                "and they read the new one from its beginning"
            )
    # Offsets of a topic before say nothing about the new one: they are set when a worker starts.
    known = [
        at
        for at in kafka.partitions
        if at.topic not in of_generation or of_generation[at.topic].id == kafka.topic_ids[at.topic]
    ]
    starts = {
        (name, partition): offset
        for name, source in of_generation.items()
        for partition, offset in enumerate(source.start)
    }
    reached = {(at.topic, at.partition): at.committed for at in known}
    positions = {at: starts.get(at) if offset is None else offset for at, offset in reached.items()}
    try:
        compare_committed(
            kafka.group,
            {at: offset for at, offset in positions.items() if offset is not None},
            {(at.topic, at.partition): at.first for at in known},
            {(at.topic, at.partition): at.end for at in known},
        )
    except Discontinuity as error:
        problems.append(str(error))
    return problems


def _qdrant_problems(qdrant: QdrantStatus, encoder: EncoderStatus | None, name: str) -> list[str]:
    generation = qdrant.generation
    if generation is None:
        return [f"Qdrant has no generation {name!r}: a worker makes it when it starts"]
    if encoder is not None and encoder.model_identity != generation.model_identity:
        return [
            f"the encoding worker has the model {encoder.model} ({encoder.model_identity}), and generation {name!r} "
            f"was made with {generation.model} ({generation.model_identity}): start it with the latter (encoder.model)"
        ]
    return []


async def _statistics_problems(settings: Settings, qdrant: QdrantStatus, waiting: int) -> list[str]:
    """Whether statistics stand still while events wait. Takes some seconds where they were not written lately."""
    found = qdrant.statistics
    if found is None or time.time() - found.made_at / 1000 < STILL_SECONDS:
        return []
    await asyncio.sleep(ANSWER_SECONDS)
    client = connected(settings, timeout_seconds=ANSWER_SECONDS)
    try:
        head = await StatisticsStore(
            client, settings.generation, retry=RetryPolicy(attempts=2, on_retry=lambda _: None)
        ).head()
    except (*TRANSIENT, PermanentSinkError):
        return []  # that Qdrant does not answer is told already
    finally:
        await client.close()
    if head is None or head.head.made_at != found.made_at:
        return []
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found.made_at / 1000))
    return [
        f"{waiting:,} events are not in the statistics across users, which stand still since {since} UTC: is "
        "`afterglow statistics` running?"
    ]


async def _unless_silent(asking: Awaitable[_T]) -> _T | str:
    try:
        return await asking
    except _Silent as silence:
        return str(silence)


async def _kafka(settings: Settings) -> tuple[KafkaStatus, list[str]]:
    try:
        return await asyncio.to_thread(_ask_kafka, settings)
    except (KafkaException, KafkaUnreachable) as error:
        cause = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise _Silent(
            f"Kafka at {settings.kafka.bootstrap_servers} does not answer ({cause}): start `afterglow up`, or give "
            "--kafka host:port"
        ) from None


def _ask_kafka(settings: Settings) -> tuple[KafkaStatus, list[str]]:
    """What Kafka says, and what is wrong with the group. Takes its time where something is suspicious."""
    kafka, topics, group = settings.kafka, settings.topics, group_of(settings.generation)
    admin = connect_admin(kafka)
    admin.describe_cluster(request_timeout=ANSWER_SECONDS).result()  # fails soon where Kafka is away
    names = (topics.searches, topics.purchases, topics.products)
    found = describe(admin, (*names, topics.dead_letters))
    read = {name: found[name] for name in names if name in found}

    def seen() -> GroupLook:
        return GroupLook(members_of(admin, group), positions(kafka, admin, group, read))

    health = watch_group(
        group,
        lambda: answered(seen, kafka, ANSWER_SECONDS),
        lambda lagging: answered(lambda: waiting(kafka, group, lagging), kafka, ANSWER_SECONDS),
    )
    partitions = [
        PartitionStatus(
            topic=at[0],
            partition=at[1],
            first=position.first,
            end=position.end,
            committed=position.committed,
            lag=position.lag,
            waiting_since=health.waiting[at].since_ms if at in health.waiting else None,
        )
        for at, position in health.positions.items()
    ]
    counted = {name: found[name] for name in (topics.searches, topics.purchases, topics.products) if name in found}
    of_statistics = positions(kafka, admin, statistics_group_of(settings.generation), counted).values()
    status = KafkaStatus(
        address=kafka.bootstrap_servers,
        group=group,
        members=health.members.number,
        live=health.members.assignor in ("", LIVE),
        lag=sum(partition.lag for partition in partitions),
        dead_letters=waiting_count(settings) if topics.dead_letters in found else 0,
        topic_ids={name: topic.id for name, topic in found.items()},
        uncounted=sum(at.lag for at in of_statistics) if any(at.committed for at in of_statistics) else None,
        missing_topics=[name for name in (*names, topics.dead_letters) if name not in found],
        partitions=partitions,
    )
    return status, health.problems


async def _qdrant(settings: Settings) -> QdrantStatus:
    qdrant, name = settings.qdrant, settings.generation
    client = connected(settings, timeout_seconds=min(qdrant.timeout.seconds, ANSWER_SECONDS))
    retry = RetryPolicy(attempts=2, on_retry=lambda _: None)
    try:
        generation = await read_generation(client, name, retry=retry)
        if generation is None:
            return QdrantStatus(address=qdrant.address)
        async with asyncio.timeout(COUNT_SECONDS):
            told, profiles, products, head = await asyncio.gather(
                _generation(client, generation),
                _profiles(client, name, retry),
                _products(client, name),
                StatisticsStore(client, name, retry=retry).head(),
            )
        return QdrantStatus(
            address=qdrant.address,
            generation=told,
            profiles=profiles,
            products=products,
            statistics=None if head is None else _of_statistics(head.head),
        )
    except (*TRANSIENT, PermanentSinkError, RefusedGeneration) as error:
        raise _Silent(f"Qdrant at {qdrant.address} can't be asked: {describe_failure(error)}") from None
    except TimeoutError:
        raise _Silent(f"Qdrant at {qdrant.address} did not add up its profiles in {COUNT_SECONDS:.0f} s") from None
    finally:
        await client.close()


def _of_statistics(head: Head) -> StatisticsStatus:
    return StatisticsStatus(
        made_at=head.made_at,
        as_of=head.as_of,
        events=head.events,
        users=head.users,
        products=head.products,
        covered=head.covered,
        lists=head.lists,
    )


async def _generation(client: AsyncQdrantClient, generation: Generation) -> GenerationStatus:
    aliases = {alias.alias_name: alias.collection_name for alias in (await client.get_aliases()).aliases}
    return GenerationStatus(
        name=generation.name,
        model=generation.model.name,
        model_identity=generation.model.identity,
        dimension=generation.model.dimension,
        created_at=generation.created_at_ms,
        sources=generation.sources,
        served=aliases.get("profiles") == profiles_collection(generation.name),
    )


async def _profiles(client: AsyncQdrantClient, name: str, retry: RetryPolicy) -> ProfilesStatus:
    now = time.time_ns() // 1_000_000
    count = searches = purchases = waiting = due = 0
    pending: set[str] = set()
    noise: Counter[str] = Counter()
    async for profile in ProfileStore(client, profiles_collection(name), cached_bytes=0, retry=retry).counts():
        count += 1
        searches += profile.n_searches
        purchases += profile.n_purchases
        waiting += bool(profile.pending)
        pending.update(profile.pending)
        noise.update(profile.noise)
        due += profile.due is not None and profile.due <= now
    return ProfilesStatus(
        count=count,
        searches=searches,
        purchases=purchases,
        waiting=waiting,
        pending_products=len(pending),
        due=due,
        noise=dict(noise.most_common()),
    )


async def _products(client: AsyncQdrantClient, name: str) -> ProductsStatus:
    collection = products_collection(name)
    deleted = models.FieldCondition(key="deleted", match=models.MatchValue(value=True))
    available = models.FieldCondition(key="available", match=models.MatchValue(value=True))
    kept = await client.count(collection, models.Filter(must_not=[deleted]), exact=True)
    shown = await client.count(collection, models.Filter(must=[available]), exact=True)
    return ProductsStatus(count=kept.count, available=shown.count)


async def _encoder(settings: Settings) -> EncoderStatus:
    client = EncoderClient(settings.encoder_address)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            model, figures = await client.describe(), await client.statistics()
    except TimeoutError:
        raise _Silent(
            f"the encoding worker at {settings.encoder_address} does not answer: start `afterglow up` or "
            "`afterglow encoder`"
        ) from None
    except EncoderError as error:
        raise _Silent(str(error)) from None
    finally:
        await client.close()
    return EncoderStatus(
        address=settings.encoder_address,
        model=model.name,
        model_identity=model.identity,
        dimension=model.dimension,
        device=model.device,
        texts=figures.texts,
        cache_share=(figures.cache_hits + figures.joined) / figures.texts if figures.texts else 0.0,
        waiting=figures.waiting,
        waiting_limit=figures.waiting_limit,
        uptime_seconds=figures.uptime_seconds,
    )
