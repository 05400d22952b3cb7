"""A reader of profiles, from the settings: what the commands that read are built on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from encoders.client import EncoderClient, EncoderError, ModelDescription, TextKind
from encoders.text import clean, normalise
from sinks.collections import Model
from sinks.derivation import Vector
from sinks.retrieval import AsyncRecommender
from streams.rules import derivation_rules
from streams.secret import read_secret
from streams.settings import Settings

ENCODER_SECONDS: Final = 10.0
"""How long a person who asked for something waits for an encoding worker."""


class UnfitQuery(ValueError):
    """A query that can't be encoded as the profiles were: no letters in it, no encoder, or another model."""


@asynccontextmanager
async def open_recommender(settings: Settings) -> AsyncIterator[AsyncRecommender]:
    """A recommender that asks the encoding worker for the vectors of queries, where there are any.

    Raises NoSecret, and in use what `AsyncRecommender` raises, and UnfitQuery.
    """
    encoder = EncoderClient(settings.encoder_address)
    qdrant = settings.qdrant

    async def encode_query(text: str, wanted: Model) -> Vector:
        if not clean(text):
            raise UnfitQuery(f"{text!r} has nothing that could be searched for")
        try:
            async with asyncio.timeout(ENCODER_SECONDS):
                _compare(await encoder.describe(), wanted)
                vectors = await encoder.encode([text], TextKind.QUERY)
        except TimeoutError:
            raise UnfitQuery(
                f"the encoding worker at {settings.encoder_address} did not answer in {ENCODER_SECONDS:.0f} s: "
                "start `afterglow up` or `afterglow encoder`"
            ) from None
        except EncoderError as error:
            raise UnfitQuery(str(error)) from error
        vector: Vector = vectors[0]
        return vector

    recommender = AsyncRecommender(
        qdrant.address,
        read_secret(settings.secret_file),
        derivation_rules(settings),
        generation=settings.generation or None,
        exclude_bought=settings.derivation.exclude_bought,
        encode_query=encode_query,
        query_key=normalise,
        api_key=qdrant.api_key.reveal() or None,
        tls=qdrant.tls,
        timeout_seconds=qdrant.timeout.seconds,
    )
    try:
        yield recommender
    finally:
        await recommender.close()
        await encoder.close()


def _compare(model: ModelDescription, wanted: Model) -> None:
    if model.identity != wanted.identity:
        raise UnfitQuery(
            f"the encoding worker has the model {model.name} ({model.identity}), and the profiles are of "
            f"{wanted.name} ({wanted.identity}): vectors of two models can't be compared. Start the encoding worker "
            "with the latter (encoder.model, encoder.query_prefix)"
        )
