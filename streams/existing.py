"""Opens a generation that is there already, for commands that need neither Kafka nor a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from qdrant_client import AsyncQdrantClient

from sinks.collections import Generation, RefusedGeneration, read_generation
from sinks.generations import list_generations
from sinks.identity import PointIds
from sinks.retrieval import QdrantUnreachable
from sinks.retry import TRANSIENT, RetryPolicy, describe
from streams.generations import as_folded, connected, generation_in_force
from streams.secret import read_secret
from streams.settings import Settings

ASKED: Final = RetryPolicy(attempts=4, limit_seconds=1.0, on_retry=lambda _: None)
"""How a person who waits for the answer asks Qdrant."""


class UnknownGeneration(LookupError):
    """There is no such generation; the text says which there are."""


class Existing(NamedTuple):
    """A generation as it is recorded, with the secret that its points are found by."""

    generation: Generation
    settings: Settings  # with the profiles' settings that the generation was made with
    ids: PointIds


@asynccontextmanager
async def asked(settings: Settings) -> AsyncIterator[AsyncQdrantClient]:
    """A client of Qdrant. A transient failure that is raised inside becomes QdrantUnreachable."""
    client = connected(settings)
    try:
        yield client
    except TRANSIENT as failure:
        raise QdrantUnreachable(
            f"Qdrant at {settings.qdrant.address} can't be reached ({describe(failure)}): start `afterglow up`, or "
            "give --qdrant host:port"
        ) from failure
    finally:
        await client.close()


async def open_existing(settings: Settings, client: AsyncQdrantClient, name: str | None = None) -> Existing:
    """The generation of this name; without one, that in force.

    Raises UnknownGeneration, NoSecret, PermanentSinkError, what Qdrant's client raises, and RefusedGeneration where it
    was made with another secret.
    """
    name = name or await generation_in_force(settings, client, retry=ASKED)
    generation = await read_generation(client, name, retry=ASKED)
    if generation is None:
        known = [one.name for one in await list_generations(client, retry=ASKED)]
        raise UnknownGeneration(
            f"there is no generation {name!r}: "
            + (f"there {'are' if known[1:] else 'is'} {', '.join(known)}" if known else "a worker makes the first one")
        )
    ids = PointIds(read_secret(settings.secret_file))
    if generation.secret_fingerprint != ids.fingerprint:
        raise RefusedGeneration(
            f"the point ids of generation {name!r} were made with the secret of fingerprint "
            f"{generation.secret_fingerprint}, and the one at {settings.secret_file} has {ids.fingerprint}: nobody "
            "would be found. Give the file of the former (secret_file)"
        )
    return Existing(generation, as_folded(settings, generation), ids)
