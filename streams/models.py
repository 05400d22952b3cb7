"""Which model the encoding worker is to have: that of the generation in force, and when it is another one's turn."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from qdrant_client import AsyncQdrantClient

from encoders.errors import ModelError
from encoders.protocol import ModelDescription
from encoders.recipe import identity, locate, read_recipe
from sinks.collections import Generation, Model, RefusedGeneration, read_generation
from sinks.retry import TRANSIENT, PermanentSinkError, Retry, RetryPolicy
from streams.generations import connected, generation_in_force
from streams.settings import Settings

logger = logging.getLogger("afterglow.models")

LOOK_SECONDS: Final = 1.0
"""How often it is looked which generation is served."""

_PACKAGED: Final = "the package of the default model"
_LOOKS: Final = 2  # workers look as often, and are to leave while this model still answers them
_SAY_EVERY_SECONDS: Final = 30.0


def model_in_force(settings: Settings) -> str:
    """What to load: the model of the generation in force, or where there is none yet, `encoder.model`.

    The generation's holds; where somebody has set another one, the log says so. Waits for Qdrant. Raises ModelError
    where the generation's model is not on this machine, RefusedGeneration and PermanentSinkError.
    """
    generation = asyncio.run(_in_force(settings))
    if generation is None:
        return settings.encoder.model
    source = _source_here(settings, generation.model)
    if source is None:
        raise ModelError(
            f"generation {generation.name!r} holds vectors of the model {generation.model.name} "
            f"({generation.model.identity}), which is no longer what {generation.model.source or _PACKAGED} holds, nor "
            "what encoder.model, encoder.query_prefix and encoder.product_prefix say: put it back, set them to where "
            "it is now, or go on with another generation (AFTERGLOW_GENERATION=NAME; `afterglow generations activate`)"
        )
    if is_overruled(settings, generation):
        logger.warning(
            "event=setting_overruled setting=encoder.model value=%s from=%r reason='generation %s was made with %s, "
            "which holds: `afterglow replay --model` makes one with another model'",
            settings.encoder.model, settings.source("encoder.model"), generation.name,
            generation.model.source or generation.model.name,
        )  # fmt: skip
    return source


def is_overruled(settings: Settings, generation: Generation) -> bool:
    """Whether somebody has set `encoder.model`, and the generation was made with another model, which holds."""
    if settings.source("encoder.model") == "default":
        return False
    return _identity_of(settings, settings.encoder.model) != generation.model.identity


async def superseded(settings: Settings, loaded: ModelDescription) -> None:
    """Returns when the generation in force has another model than this, and that can be loaded here.

    Where it can't, the log says so, and this one goes on being served. A Qdrant that is away changes nothing.
    """
    client = connected(settings)
    seen, told = 0, -_SAY_EVERY_SECONDS
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            generation = await _look(settings, client)
            if generation is None or generation.model.identity == loaded.identity:
                seen = 0
                continue
            seen += 1
            if seen < _LOOKS or time.monotonic() - told < _SAY_EVERY_SECONDS:
                continue
            told = time.monotonic()
            if await asyncio.to_thread(_source_here, settings, generation.model) is not None:
                logger.info(
                    "event=model_replaced generation=%s model=%s identity=%s",
                    generation.name, generation.model.name, generation.model.identity,
                )  # fmt: skip
                return
            logger.error(
                "event=model_missing generation=%s model=%s identity=%s source=%r serving=%s",
                generation.name, generation.model.name, generation.model.identity, generation.model.source,
                loaded.identity,
            )  # fmt: skip
    finally:
        await client.close()


async def _in_force(settings: Settings) -> Generation | None:
    """The record of the generation in force; None before there is one. Waits for Qdrant, and says so."""
    began, told = time.monotonic(), 0.0

    def tell(retry: Retry) -> None:
        nonlocal told
        if time.monotonic() - began > 5.0 and time.monotonic() - told > _SAY_EVERY_SECONDS:
            told = time.monotonic()
            logger.warning("event=waiting_for_qdrant address=%s reason=%r", settings.qdrant.address, retry.reason)

    retry = RetryPolicy(limit_seconds=1.0, on_retry=tell)
    client = connected(settings)
    try:
        name = await generation_in_force(settings, client, retry=retry)
        return await read_generation(client, name, retry=retry)
    finally:
        await client.close()


async def _look(settings: Settings, client: AsyncQdrantClient) -> Generation | None:
    once = RetryPolicy(attempts=1)
    try:
        return await read_generation(client, await generation_in_force(settings, client, retry=once), retry=once)
    except (*TRANSIENT, PermanentSinkError, RefusedGeneration):
        return None


def _source_here(settings: Settings, model: Model) -> str | None:
    """Where this machine has the model: where it was when the generation was made, or at `encoder.model`."""
    for source in (model.source, settings.encoder.model):
        if _identity_of(settings, source) == model.identity:
            return source
    return None


def _identity_of(settings: Settings, source: str) -> str | None:
    encoder = settings.encoder
    try:
        folder, _ = locate(source)
        recipe = read_recipe(
            folder, query_prefix=encoder.query_prefix or None, product_prefix=encoder.product_prefix or None
        )
        return identity(folder, recipe)
    except (ModelError, OSError):
        return None
