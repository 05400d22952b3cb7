"""A model beside the one in service, for commands that roll one out: encoding workers, topics, and the judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from encoders.errors import EncoderError
from streams.commands.own_encoder import encoding_with
from streams.settings import Settings, changed

if TYPE_CHECKING:
    from encoders.protocol import ModelDescription
    from sinks.collections import Generation
    from streams.evaluation.evaluation import Report
    from streams.evaluation.files import Shop
    from streams.evaluation.texts import EncodedShop
    from streams.rollout.judgement import Judgement


class ModelNotHere(click.ClickException):
    """This machine doesn't have the model in service."""


class InService(NamedTuple):
    """What readers see, and which models replays have begun to fold by and not completed."""

    generation: Generation
    begun: frozenset[str]  # identities


def in_service(settings: Settings) -> InService | None:
    """None before there is a generation. Raises QdrantUnreachable and RefusedGeneration."""
    from sinks.collections import read_generation
    from sinks.generations import list_generations, served_generation
    from streams.existing import ASKED, asked

    async def ask() -> InService | None:
        async with asked(settings) as client:
            served = await served_generation(client, retry=ASKED)
            generation = await read_generation(client, served, retry=ASKED) if served is not None else None
            if generation is None:
                return None
            known = await list_generations(client, retry=ASKED)
            return InService(
                generation, frozenset(one.model.identity for one in known if one.replayed and one.built is None)
            )

    return asyncio.run(ask())


def judged(settings: Settings, candidate: Settings, generation: Generation, report: Report) -> Judgement | None:
    """The model of the encoding worker of `candidate` beside that of the generation; None where it is the same one.

    By what the model's folder holds of that, else by the newest events of the topics. Raises ModelNotHere,
    ClickException, HistoryGone, KafkaUnreachable and EncoderError.
    """
    from streams.generations import as_folded
    from streams.rollout.judgement import NEWEST_EVENTS, cut_of, judge, kept, nothing_concluded, tells_anything
    from streams.training.topics import extent_now, read_history

    model = described(candidate)
    if model.identity == generation.model.identity:
        return None
    identities = generation.model.identity, model.identity
    extent = extent_now(settings, NEWEST_EVENTS)
    if model.source and (judgement := kept(Path(model.source), identities, extent.topics)) is not None:
        return judgement
    shop = read_history(settings, extent, report).shop
    if not tells_anything(shop):
        return nothing_concluded(shop, identities, extent.topics)
    with encoding_as(settings, generation) as theirs:
        report("encoding texts by the model in service", 0, 1)
        before = encoded(theirs, shop)
    report("encoding texts by the new model", 0, 1)
    both = before, encoded(candidate, shop)
    folded = as_folded(settings, generation)
    cut = max(cut_of(shop), learned_nothing_since(model.source, extent.topics))
    return asyncio.run(judge(shop, both, identities, extent.topics, folded, report, cut=cut))


def learned_nothing_since(source: str, topics: Mapping[str, str]) -> int:
    """Event time, ms, from which on these topics gave the model nothing, as its card says; 0 where it says nothing."""
    from encoders.recipe import locate
    from encoders.training.model_card import read_card

    card = read_card(locate(source)[0])
    since = card.data.get("test_from_ms") if card is not None and card.data.get("topics") == topics else None
    return since if isinstance(since, int) else 0


@contextmanager
def encoding_as(settings: Settings, generation: Generation) -> Iterator[Settings]:
    """The settings with the address of an encoding worker that has the generation's model: a running one, or its own.

    Raises ModelNotHere, and ClickException where it can't be served.
    """
    from streams.models import found_here

    if settings.encoder.address and _serves(settings, generation.model.identity):
        yield settings
        return
    found = found_here(settings, generation.model)
    if found is None:
        raise ModelNotHere(
            f"the model in service, {generation.model.name} ({generation.model.identity}), is not on this machine: "
            "another can't be compared with it. Put it back, or set encoder.model to where it is"
        )
    prefixes = {
        f"encoder.{kind}_prefix": prefix
        for kind, prefix in (("query", found.query_prefix), ("product", found.product_prefix))
        if prefix is not None
    }
    with encoding_with(changed(settings, prefixes), found.source) as served:
        yield served


def _serves(settings: Settings, identity: str) -> bool:
    """Whether the encoding worker of the settings has the model; not where none answers: this needs no other one."""
    try:
        return described(settings).identity == identity
    except (click.ClickException, EncoderError):
        return False


def described(settings: Settings) -> ModelDescription:
    """The model of the encoding worker. Raises ClickException where it does not answer, and EncoderError."""
    from encoders.client import EncoderClient
    from streams.reading import ENCODER_SECONDS

    async def ask() -> ModelDescription:
        encoder = EncoderClient(settings.encoder_address)
        try:
            async with asyncio.timeout(ENCODER_SECONDS):
                return await encoder.describe()
        except TimeoutError:
            raise click.ClickException(
                f"the encoding worker at {settings.encoder_address} did not answer in {ENCODER_SECONDS:.0f} s"
            ) from None
        finally:
            await encoder.close()

    return asyncio.run(ask())


def encoded(settings: Settings, shop: Shop) -> EncodedShop:
    """The shop's texts by the settings' encoding worker. Raises EncoderError, UnfitFile."""
    from encoders.client import EncoderClient
    from streams.evaluation.texts import encode_shop

    async def ask() -> EncodedShop:
        encoder = EncoderClient(settings.encoder_address)
        try:
            return await encode_shop(shop, encoder)
        finally:
            await encoder.close()

    return asyncio.run(ask())
