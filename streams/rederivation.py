"""Derives what readers see anew, for every profile, from what is stored: without Kafka, and beside live workers.

Interests, vectors and candidates are a function of the ledgers, the catalogue and a few settings, so that another
value of these needs no replay. Ledgers stay as they are. Writes are conditional like any other: where a worker has
written a profile meanwhile, it is read and derived again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from qdrant_client import AsyncQdrantClient

from encoders.client import EncoderClient
from streams.existing import Existing
from streams.keeper import Keeper

AT_ONCE: Final = 2048
"""Profiles that are begun together, in chunks, several in flight: what bounds memory, whatever their number."""


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. `redone` counts those that somebody else had written meanwhile."""

    generation: str
    profiles: int
    redone: int
    seconds: float


async def derive_all(
    existing: Existing,
    client: AsyncQdrantClient,
    report: Callable[[int, int], None] = lambda _, __: None,
    *,
    at_once: int = AT_ONCE,
) -> Derived:
    """Derives every profile of the generation by these settings; `report` hears of how many, of how many.

    Repeat it after an interruption: it does no harm, and begins anew. Waits out a Qdrant that is away. Raises
    PermanentSinkError and StateError.
    """
    began = time.monotonic()
    settings = existing.settings
    keeper = Keeper(
        # Each profile is read once: keeping them would only cost memory.
        msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, profile_cache=0)),
        existing.generation,
        client=client,
        encoder=EncoderClient(settings.encoder_address),  # connects when it is first asked, and it is not
        ids=existing.ids,
    )
    await keeper.start()
    of = await keeper.profiles.count()
    done = 0
    async for ids in _pages(keeper.profiles.ids(), at_once):
        report(done, max(of, done))
        await keeper.read_mean()  # a worker may renew it meanwhile
        await keeper.rederive(ids)
        done += len(ids)
    report(done, done)
    figures = keeper.figures
    return Derived(
        generation=existing.generation.name,
        profiles=done,
        redone=figures.writes_redone,
        seconds=time.monotonic() - began,
    )


async def _pages(ids: AsyncIterator[str], size: int) -> AsyncIterator[list[str]]:
    page: list[str] = []
    async for id_ in ids:
        page.append(id_)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
