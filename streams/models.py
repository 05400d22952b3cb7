"""Which model the encoding worker is to have: that of the generation in force, and when it is another one's turn."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, NamedTuple

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


class Loadable(NamedTuple):
    """What an encoding worker is to load, and to put before texts (None: what the model itself asks for)."""

    source: str
    query_prefix: str | None
    product_prefix: str | None


def model_in_force(settings: Settings) -> Loadable:
    """What to load: the model of the generation in force, or where there is none yet, the one that is set.

    The generation's holds; where somebody has set something else, the log says so. Waits for Qdrant. Raises ModelError
    where the generation's model is not on this machine, RefusedGeneration and PermanentSinkError.
    """
    generation = asyncio.run(_in_force(settings))
    if generation is None:
        return model_as_set(settings)
    found = found_here(settings, generation.model)
    if found is None:
        raise ModelError(
            f"generation {generation.name!r} holds vectors of the model {generation.model.name} "
            f"({generation.model.identity}), which is no longer what {generation.model.source or _PACKAGED} holds, nor "
            "what encoder.model does: put it back, set encoder.model to where it is now, or go on with another "
            "generation (AFTERGLOW_GENERATION=NAME; `afterglow generations activate`)"
        )
    for setting, (given, kept) in overruled(settings, generation).items():
        logger.warning(
            "event=setting_overruled setting=%s value=%s from=%r reason='generation %s was made with %s, which holds: "
            "`afterglow replay --model` makes one with another model'",
            setting, given, settings.source(setting), generation.name, kept,
        )  # fmt: skip
    return found


def model_as_set(settings: Settings) -> Loadable:
    """What the settings say."""
    encoder = settings.encoder
    return Loadable(encoder.model, encoder.query_prefix or None, encoder.product_prefix or None)


def overruled(settings: Settings, generation: Generation) -> dict[str, tuple[str, str]]:
    """What somebody has set, and the generation's model differs in: (set, recorded), by name."""
    encoder, model = settings.encoder, generation.model
    found = {}
    if (
        settings.source("encoder.model") != "default"
        and _identity_of(_prefixed(settings, encoder.model, model)) != model.identity
    ):
        found["encoder.model"] = encoder.model, model.source or model.name
    for name, given, kept in (
        ("encoder.query_prefix", encoder.query_prefix, model.query_prefix),
        ("encoder.product_prefix", encoder.product_prefix, model.product_prefix),
    ):
        if given and kept is not None and given != kept:
            found[name] = repr(given), repr(kept)
    return found


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
            if await asyncio.to_thread(found_here, settings, generation.model) is not None:
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


def _prefixed(settings: Settings, source: str, model: Model) -> Loadable:
    """This source, with the prefixes that the model is recorded with; those that are set where none are recorded."""
    here = model_as_set(settings)
    return Loadable(
        source,
        here.query_prefix if model.query_prefix is None else model.query_prefix,
        here.product_prefix if model.product_prefix is None else model.product_prefix,
    )


def found_here(settings: Settings, model: Model) -> Loadable | None:
    """Where this machine has the model: where it was when the generation was made, or at `encoder.model`; else None."""
    for source in (model.source, settings.encoder.model):
        found = _prefixed(settings, source, model)
        if _identity_of(found) == model.identity:
            return found
    return None


def _identity_of(model: Loadable) -> str | None:
    try:
        folder, _ = locate(model.source)
        recipe = read_recipe(folder, query_prefix=model.query_prefix, product_prefix=model.product_prefix)
        return identity(folder, recipe)
    except (ModelError, OSError):
        return None
