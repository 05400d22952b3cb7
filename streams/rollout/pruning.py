"""Which generations of trained models are kept: the newest few, and whatever readers see. The rest are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qdrant_client import AsyncQdrantClient

from sinks.collections import Generation
from sinks.generations import StillServed, list_generations, served_generation
from streams.existing import ASKED
from streams.settings import Settings
from streams.succession import GenerationInUse, drop


def superfluous(
    generations: Sequence[Generation], served: str | None, is_ours: Callable[[str], bool], keep: int
) -> list[str]:
    """Names of generations to drop, of those whose model `is_ours` (by its source), the oldest first.

    The `keep` newest complete ones stay, and the served one. One that a replay has begun and not completed is of a
    retraining that was given up. `generations` are the oldest first.
    """
    ours = [one for one in generations if one.replayed and is_ours(one.model.source) and one.name != served]
    complete = [one.name for one in ours if one.built is not None]
    room = keep - (1 if any(one.name == served and is_ours(one.model.source) for one in generations) else 0)
    stay = {*complete[len(complete) - room :]} if room > 0 else set()
    return [one.name for one in ours if one.name not in stay]


async def prune(
    settings: Settings, client: AsyncQdrantClient, is_ours: Callable[[str], bool], keep: int
) -> tuple[list[str], list[str]]:
    """Drops what is superfluous; returns what was dropped, and the sources of the models of those that are left.

    One whose group still has members is left to the next time. Raises PermanentSinkError, KafkaUnreachable and what
    Qdrant's client raises.
    """
    known = await list_generations(client, retry=ASKED)
    served = await served_generation(client, retry=ASKED)
    dropped = []
    for name in superfluous(known, served, is_ours, keep):
        try:
            await drop(settings, client, name)
        except (GenerationInUse, StillServed):
            continue
        dropped.append(name)
    return dropped, [one.model.source for one in known if one.name not in dropped]
