"""`afterglow search`: products near a text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table, tell_reading
from streams.settings import Settings

if TYPE_CHECKING:
    from sinks.retrieval import SearchResult


@click.command("search")
@click.argument("text")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="Most products.")
@click.option("--kind", type=click.Choice(["product", "content", "ad"]), help="Only this kind.")
@as_json
@with_settings
def command(settings: Settings, text: str, limit: int, kind: str | None, as_json: bool) -> None:
    """Find the available products for TEXT: near it in meaning, by its words, clicked by others after it, and popular.

    A misspelt word is read as the catalogue spells it; the answer says what was read ("read_as").
    """
    items, read_as = asyncio.run(_search(settings, text, limit, kind))
    if as_json:
        print_json({"query": text, "read_as": read_as, "items": [product._asdict() for product in items]})
        return
    tell_reading(read_as)
    if not items:
        click.echo("no product is available")
    else:
        print_table(
            ["SIMILARITY", "PRODUCT", "KIND", "TITLE"],
            [[f"{product.similarity:.3f}", product.product_id, product.kind, product.title] for product in items],
        )


async def _search(settings: Settings, text: str, limit: int, kind: str | None) -> SearchResult:
    from streams.reading import open_recommender

    async with open_recommender(settings) as recommender:
        return await recommender.search(text, limit=limit, kind=kind)
