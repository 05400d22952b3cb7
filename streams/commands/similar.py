"""`afterglow similar`: users of a like taste."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from sinks.retrieval import SimilarUser


@click.command("similar")
@click.argument("user")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="Most users.")
@as_json
@with_settings
def command(settings: Settings, user: str, limit: int, as_json: bool) -> None:
    """Find the users whose lasting taste is most like USER's.

    They are known by their points' ids alone, which nobody without the secret can trace to a person.
    """
    found = asyncio.run(_similar(settings, user, limit))
    if as_json:
        listed = [{**one._asdict(), "interests": [interest._asdict() for interest in one.interests]} for one in found]
        print_json({"user_id": user, "similar": listed})
    elif not found:
        click.echo("nobody to compare with")
    else:
        print_table(
            ["SIMILARITY", "KNOWN", "POINT", "INTERESTS"],
            [
                [
                    f"{one.similarity:.3f}",
                    f"{one.known:.3f}",
                    one.point_id,
                    " | ".join(interest.texts[0] for interest in one.interests if interest.texts),
                ]
                for one in found
            ],
        )


async def _similar(settings: Settings, user: str, limit: int) -> list[SimilarUser]:
    from streams.reading import open_recommender

    async with open_recommender(settings) as recommender:
        return await recommender.similar(user, limit=limit)
