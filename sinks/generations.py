"""Which generations there are, which one readers see, and how that is changed.

Readers follow the aliases `profiles`, `products` and `statistics`. Those are repointed in one call that only creates
(over the existing ones): a call that also deletes can be cut in two by a crash, and leave readers without. Should the
three ever disagree, `profiles` decides, and whoever serves next makes the others follow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from qdrant_client import AsyncQdrantClient, models

from sinks.collections import (
    ALIASES,
    GENERATION_POINT,
    Generation,
    RefusedGeneration,
    products_collection,
    profiles_collection,
    read_generation,
    read_point,
    statistics_collection,
)
from sinks.points import Payload, payload_point
from sinks.retry import RetryPolicy, until_answered
from sinks.writes import Write, new_version, write


class StillServed(Exception):
    """The generation that readers see can't be dropped."""


async def served_generation(client: AsyncQdrantClient, *, retry: RetryPolicy | None = None) -> str | None:
    """The name of the generation that readers see; None before there is one. One round trip.

    Raises PermanentSinkError, and after the attempts of `retry` what Qdrant's client raises.
    """
    for alias, collection in (await _aliases(client, retry or RetryPolicy())).items():
        if alias == "profiles":
            return collection.removeprefix(profiles_collection(""))
    return None


async def serve(client: AsyncQdrantClient, name: str, *, retry: RetryPolicy | None = None) -> None:
    """Let readers see this generation: at once, all of it, and safe to repeat after a crash.

    Raises:
        PermanentSinkError: one of its collections does not exist.
    """
    actions: list[models.AliasOperations] = [
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=f"{alias}--{name}", alias_name=alias)
        )
        for alias in sorted(ALIASES, key="profiles".__eq__)  # what decides comes last
    ]
    await until_answered(
        lambda: client.update_collection_aliases(change_aliases_operations=actions),
        doing="repointing aliases",
        collection=f"*--{name}",
        retry=retry or RetryPolicy(),
    )


async def list_generations(client: AsyncQdrantClient, *, retry: RetryPolicy | None = None) -> list[Generation]:
    """Every generation that has a record, the oldest first. Raises PermanentSinkError and RefusedGeneration.

    One that is dropped meanwhile may be among them or not.
    """
    retry = retry or RetryPolicy()
    listed = await until_answered(client.get_collections, doing="listing", collection="all collections", retry=retry)
    prefix = statistics_collection("")
    found = []
    for collection in listed.collections:
        if collection.name.startswith(prefix):
            generation = await read_generation(client, collection.name.removeprefix(prefix), retry=retry)
            if generation is not None:
                found.append(generation)
    return sorted(found, key=lambda generation: (generation.created_at_ms, generation.name))


async def change_generation(
    client: AsyncQdrantClient,
    name: str,
    change: Callable[[Generation], Generation],
    *,
    replicated: bool = False,
    retry: RetryPolicy | None = None,
) -> Generation:
    """Replace the record by what `change` makes of it, again where somebody else has changed it meanwhile.

    Returns the record as it is stored then; nothing is written where `change` changes nothing. Only `sources` and
    `built` may differ: the rest shapes ledgers. Raises RefusedGeneration where there is no record, and
    PermanentSinkError.
    """
    retry = retry or RetryPolicy()
    collection = statistics_collection(name)
    while True:
        stored = await read_point(client, collection, GENERATION_POINT, replicated=replicated, retry=retry)
        if stored is None:
            raise RefusedGeneration(f"generation {name!r} has no record: was it dropped?")
        before = msgspec.json.decode(stored["generation"].string_value, type=Generation)
        after = change(before)
        if after == before:
            return before
        version = new_version()
        payload: Payload = {"generation": msgspec.json.encode(after).decode()}
        point = payload_point(GENERATION_POINT, version, payload)
        (mine,) = await write(
            client,
            collection,
            [Write(GENERATION_POINT, version, stored["version"].integer_value, point)],
            replicated=replicated,
            retry=retry,
        )
        if mine:
            return after


async def drop_generation(client: AsyncQdrantClient, name: str, *, retry: RetryPolicy | None = None) -> bool:
    """Delete the collections of a generation that nobody writes or reads any more; False where there are none.

    The record goes last, so that a drop that was interrupted can be repeated. Raises StillServed, PermanentSinkError.
    """
    retry = retry or RetryPolicy()
    found = False
    aliases = await _aliases(client, retry)
    for collection in (profiles_collection(name), products_collection(name), statistics_collection(name)):
        if collection in aliases.values():
            raise StillServed(
                f"readers see generation {name!r}: let them see another one first (`afterglow generations activate`)"
            )
        found |= await until_answered(
            lambda collection=collection: client.delete_collection(collection),  # type: ignore[misc]
            doing="deleting",
            collection=collection,
            retry=retry,
        )
    return found


async def _aliases(client: AsyncQdrantClient, retry: RetryPolicy) -> dict[str, str]:
    response = await until_answered(
        client.get_aliases, doing="looking up aliases", collection="all collections", retry=retry
    )
    return {alias.alias_name: alias.collection_name for alias in response.aliases}
