"""Which generation to work on, and the consumer group that is its own."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from qdrant_client import AsyncQdrantClient

from sinks.collections import Generation
from sinks.connection import connect
from sinks.generations import served_generation
from sinks.retry import TRANSIENT, PermanentSinkError, RetryPolicy
from streams.rules import UNRECORDED, profiles_of
from streams.settings import Profiles, Settings

FIRST: Final = "main"
"""The generation that the first worker makes."""


def group_of(generation: str) -> str:
    """The consumer group of a generation: its committed offsets are its own."""
    return f"afterglow-{generation}"


def statistics_group_of(generation: str) -> str:
    """The group whose committed offsets say how far the statistics of a generation have come."""
    return f"afterglow-{generation}-statistics"


def connected(settings: Settings, *, timeout_seconds: float | None = None) -> AsyncQdrantClient:
    """A client for the settings' Qdrant; close it. `timeout_seconds` is for one call, by default the setting."""
    qdrant = settings.qdrant
    return connect(
        qdrant.address,
        api_key=qdrant.api_key.reveal() or None,
        tls=qdrant.tls,
        timeout_seconds=timeout_seconds or qdrant.timeout.seconds,
    )


async def generation_in_force(
    settings: Settings, client: AsyncQdrantClient, *, retry: RetryPolicy | None = None
) -> str:
    """The generation that the settings name, else the one that readers see, else the first.

    Raises PermanentSinkError, and after the attempts of `retry` what Qdrant's client raises.
    """
    return settings.generation or await served_generation(client, retry=retry) or FIRST


def in_force(settings: Settings) -> str:
    """`generation_in_force`, for code without asyncio. Waits for Qdrant. Raises PermanentSinkError."""
    if settings.generation:
        return settings.generation

    async def ask() -> str:
        client = connected(settings)
        try:
            return await generation_in_force(settings, client)
        finally:
            await client.close()

    return asyncio.run(ask())


def resolved(settings: Settings) -> Settings:
    """The settings with the name of the generation in force, for commands that look once.

    Where Qdrant does not answer, the first generation is assumed: what follows will say that it does not.
    """
    if settings.generation:
        return settings

    async def ask() -> str:
        client = connected(settings)
        try:
            return await generation_in_force(settings, client, retry=RetryPolicy(attempts=2, on_retry=lambda _: None))
        except (*TRANSIENT, PermanentSinkError):
            return FIRST
        finally:
            await client.close()

    return msgspec.structs.replace(settings, generation=asyncio.run(ask()))


def inherited(settings: Settings, generation: Generation) -> Settings:
    """The settings with the generation's fold where nobody has set anything else: what its successor is made by."""
    recorded = profiles_of(generation.fold, settings.profiles)
    kept = {
        field: getattr(recorded, field)
        for field in Profiles.__struct_fields__
        if settings.source(f"profiles.{field}") == "default" and (field not in UNRECORDED or field in generation.fold)
    }
    return msgspec.structs.replace(settings, profiles=msgspec.structs.replace(settings.profiles, **kept))


def as_folded(settings: Settings, generation: Generation) -> Settings:
    """The settings with those that the generation's ledgers are folded by in place of their own."""
    return msgspec.structs.replace(settings, profiles=profiles_of(generation.fold, settings.profiles))


def overruled(settings: Settings, generation: Generation) -> dict[str, tuple[object, object]]:
    """What somebody has set, and the generation was made with another value of: (set, recorded), by name."""
    recorded = profiles_of(generation.fold, settings.profiles)
    pairs = {
        f"profiles.{field}": (getattr(settings.profiles, field), getattr(recorded, field))
        for field in Profiles.__struct_fields__
    }
    return {
        name: (given, kept)
        for name, (given, kept) in pairs.items()
        if given != kept and settings.source(name) != "default"
    }
