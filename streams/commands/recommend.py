"""`afterglow recommend`: what to show a user, or many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

import click
import msgspec

from streams.commands.moments import at_option
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table, tell_reading
from streams.settings import Settings

if TYPE_CHECKING:
    from sinks.reasons import Reason
    from sinks.retrieval import RecommendationList

_USERS_AT_ONCE: Final = 1024


@click.command("recommend")
@click.argument("user", required=False)
@click.option(
    "--users-from", type=click.File("r"), metavar="FILE", help="Of many users; see below. - is standard input."
)
@click.option("--query", metavar="TEXT", help="Only products near this text, in this user's order.")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=20, show_default=True, help="Most products.")
@click.option("--kind", type=click.Choice(["product", "content", "ad"]), help="Only this kind.")
@click.option("--new-only", is_flag=True, help="Leave out what the user bought before.")
@at_option
@as_json
@with_settings
def command(
    settings: Settings,
    user: str | None,
    users_from: IO[str] | None,
    query: str | None,
    limit: int,
    kind: str | None,
    new_only: bool,
    at: int | None,
    as_json: bool,
) -> None:
    """Recommend products to a user, or to many, derived from the stored profile at TIME.

    Each comes with its reasons and their shares: "interest" (near what the user likes), "recent" (near what they do
    now), "bought" (before), "together" (others bought it with what they bought), "related" (the catalogue says that it
    goes with that), "kin" (its brand or category is bought with that), "viewed" (others clicked it within an hour of
    what they clicked), "clicked" (others clicked it after the same query), "popular", "new", "query". TIME moves the
    clock only: events after it aren't undone.

    With --query, what is near the text and what others clicked after it: the more is known of the query, the less the
    user and its words matter. A misspelt word is read as the catalogue spells it; "read_as" says how.

    With --users-from, FILE has a user id a line, or JSON lines with a user_id. The output is a line a user, in that
    order; users without a profile are shown what is popular now. With --json: {"user_id", "items": [{"product_id",
    "title", "score", "because"}]}.
    """
    if (user is None) == (users_from is None):
        raise click.UsageError("name a USER, or give --users-from FILE")
    asked = _Asked(limit=limit, kind=kind, new_only=new_only, query=query, at=at)
    if user is not None:
        found = asyncio.run(_recommend(settings, user, asked))
        _print(found, as_json)
    elif users_from is not None:
        asyncio.run(_recommend_many(settings, _users(users_from), asked, as_json))


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    limit: int
    kind: str | None
    new_only: bool
    query: str | None
    at: int | None


async def _recommend(settings: Settings, user: str, asked: _Asked) -> RecommendationList:
    from streams.reading import open_recommender

    async with open_recommender(settings) as recommender:
        return await recommender.recommend(user, **msgspec.structs.asdict(asked))


async def _recommend_many(settings: Settings, users: Iterator[str], asked: _Asked, as_json: bool) -> None:
    from streams.reading import open_recommender

    async with open_recommender(settings) as recommender:
        for chunk in _chunks(users):
            for found in await recommender.recommend_many(chunk, **msgspec.structs.asdict(asked)):
                if as_json:
                    document = {"user_id": found.user_id, "items": [item.payload() for item in found.items]}
                    sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
                else:
                    titles = " | ".join(item.title for item in found.items)
                    click.echo(f"{found.user_id}\t{titles or found.note or 'nothing to recommend'}")
            sys.stdout.flush()


def _users(lines: IO[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not (line := line.strip()):
            continue
        if line.startswith("{"):
            try:
                yield msgspec.json.decode(line, type=_Line).user_id
            except msgspec.DecodeError as error:
                raise click.ClickException(f"line {number} of the users: {error}") from None
        else:
            yield line


class _Line(msgspec.Struct):
    user_id: str


def _chunks(users: Iterator[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for user in users:
        chunk.append(user)
        if len(chunk) == _USERS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _print(found: RecommendationList, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "user_id": found.user_id,
                "at": found.at,
                "known": round(found.known, 4),
                "note": found.note,
                "read_as": found.read_as,
                "items": [item.payload() for item in found.items],
            }
        )
        return
    if found.note:
        click.secho(found.note, dim=True, err=True)
    tell_reading(found.read_as)
    if not found.items:
        click.echo("nothing to recommend")
        return
    rows = [
        [str(place), item.product_id, item.title, f"{item.score:.2f}", ", ".join(map(_reason, item.because[:2]))]
        for place, item in enumerate(found.items, start=1)
    ]
    print_table(["#", "PRODUCT", "TITLE", "SCORE", "BECAUSE"], rows)


def _reason(reason: Reason) -> str:
    told = _TOLD[reason.kind]
    texts = f" {reason.texts[0]}" if reason.texts else ""
    return f"{reason.share:.0%} {told}{texts}"


_TOLD: Final = {
    "interest": "likes",
    "recent": "lately",
    "bought": "bought",
    "together": "bought with",
    "related": "goes with",
    "kin": "of a kind with",
    "viewed": "seen with",
    "clicked": "others clicked it",
    "popular": "popular",
    "new": "new",
    "query": "asked for",
}
