"""`afterglow verify`: what is needed to judge a generation's profiles, and whether it fits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import numpy as np

from encoders.client import EncoderClient, EncoderError
from sinks.catalogue import Catalogue
from sinks.collections import Generation, products_collection, profiles_collection, read_generation
from sinks.identity import PointIds
from sinks.mean import read_mean
from sinks.support import UNKNOWN_CATALOGUE, Support
from streams.generations import as_folded, connected
from streams.secret import read_secret
from streams.settings import Settings
from streams.verification.findings import Verdict
from streams.verification.judge import Judge, Progress
from streams.verification.sources import Unverifiable, users_topics
from streams.verification.stored import StoredProfiles

ENCODER_SECONDS: Final = 60.0


def verify(
    settings: Settings, *, sample: int | None = None, report: Callable[[Progress], None] = lambda _: None
) -> Verdict:
    """Judges the profiles of the settings' generation; of `sample` users, chosen by hash, or of all. Changes nothing.

    Topics, beginnings and the rules of the fold are those that the generation was made with. Raises Unverifiable,
    NoSecret, KafkaUnreachable, PermanentReadError and StateError.
    """
    return asyncio.run(_verify(settings, sample, report))


async def _verify(settings: Settings, sample: int | None, report: Callable[[Progress], None]) -> Verdict:
    client = connected(settings)
    encoder = EncoderClient(settings.encoder_address)
    replicated = settings.qdrant.replication_factor > 1
    try:
        ids = PointIds(read_secret(settings.secret_file))
        generation = await read_generation(client, settings.generation)
        if generation is None:
            raise Unverifiable(f"Qdrant at {settings.qdrant.address} has no generation {settings.generation!r}")
        if generation.secret_fingerprint != ids.fingerprint:
            raise Unverifiable(
                f"the point ids of generation {generation.name!r} were made with the secret of fingerprint "
                f"{generation.secret_fingerprint}, and {settings.secret_file} has {ids.fingerprint}"
            )
        await _require_model(encoder, generation, settings)
        topics = await asyncio.to_thread(users_topics, settings, generation)
        mean = await read_mean(client, generation.name, replicated=replicated)
        name = generation.name
        judge = Judge(
            as_folded(settings, generation),
            topics=topics,
            stored=StoredProfiles(client, profiles_collection(name), replicated=replicated),
            catalogue=Catalogue(
                client,
                products_collection(name),
                ids,
                cached=settings.worker.cached_products,
                replicated=replicated,
            ),
            encoder=encoder,
            ids=ids,
            mean=np.zeros(generation.model.dimension, np.float32) if mean is None else mean.vector,
            support=UNKNOWN_CATALOGUE if mean is None else Support(mean.landmarks, mean.vector),
            report=report,
        )
        return await judge.run(sample)
    finally:
        await client.close()
        await encoder.close()


async def _require_model(encoder: EncoderClient, generation: Generation, settings: Settings) -> None:
    try:
        async with asyncio.timeout(ENCODER_SECONDS):
            found = await encoder.describe()
    except (TimeoutError, EncoderError) as error:
        raise Unverifiable(
            f"the encoding worker at {settings.encoder_address} does not answer, and sums can't be recomputed without "
            f"vectors ({error or 'time is up'}): start `afterglow up` or `afterglow encoder`"
        ) from None
    wanted = generation.model
    if found.identity != wanted.identity:
        raise Unverifiable(
            f"the encoding worker at {settings.encoder_address} has the model {found.name} ({found.identity}), and "
            f"generation {generation.name!r} was made with {wanted.name} ({wanted.identity}): start one with the "
            f"latter beside it (`afterglow encoder --address ...`, encoder.model = {wanted.source!r}), and verify with "
            "its address (AFTERGLOW_ENCODER_ADDRESS)"
        )
