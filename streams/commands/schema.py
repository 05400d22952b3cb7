"""`afterglow schema`: the JSON Schema of the events."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from streams.commands.output import print_json
from streams.events import Event, Product, Purchase, Search

_EVENTS: Final[dict[str, tuple[type[Event], list[Event]]]] = {
    "search": (
        Search,
        [
            Search(user_id="u-17", query="walking boots", ts=1764000000000),
            Search(
                user_id="u-17",
                query="walking boots",
                ts=1764000000000,
                event_id="e-1",
                session_id="s-9",
                locale="en-GB",
                clicked_product_id="p-4",
            ),
        ],
    ),
    "purchase": (
        Purchase,
        [
            Purchase(user_id="u-17", product_id="p-4", quantity=1, ts=1764000060000),
            Purchase(
                user_id="u-17",
                product_id="p-4",
                quantity=1,
                ts=1764000060000,
                event_id="e-2",
                price=89.0,
                order_id="o-3",
                title="Leather walking boots",
            ),
        ],
    ),
    "product": (
        Product,
        [
            Product(product_id="p-4", title="Leather walking boots"),
            Product(
                product_id="p-5",
                title="Wool socks",
                brand="Alder",
                category="Clothing",
                price=12.5,
                available=False,
                related=("p-4",),
            ),
        ],
    ),
}


@click.command("schema")
@click.argument("event", type=click.Choice(list(_EVENTS)), required=False)
def command(event: str | None) -> None:
    """Show the JSON Schema of one event, or of all three (as {"search": ..., "purchase": ..., "product": ...}).

    Searches and purchases are keyed by user_id, products by product_id; a product with a null value is deleted.
    Fields not named here are ignored. `ts` must be milliseconds, and not more than a day in the future.
    """
    print_json(schema(event) if event else {name: schema(name) for name in _EVENTS})


def schema(name: str) -> dict[str, object]:
    """The JSON Schema of "search", "purchase" or "product", with examples that are valid events."""
    struct, examples = _EVENTS[name]
    (_,), components = msgspec.json.schema_components([struct], ref_template="{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **components[struct.__name__],
        "examples": msgspec.to_builtins(examples),
    }
