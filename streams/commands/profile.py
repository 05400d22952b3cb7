"""`afterglow profile`: what is known of a user, and why."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from streams.commands.moments import at_option, shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from sinks.retrieval import ProfileView

_SHOWN: Final = 10


@click.command("profile")
@click.argument("user")
@at_option
@as_json
@with_settings
def command(settings: Settings, user: str, at: int | None, as_json: bool) -> None:
    """Show what is known of a user at TIME: interests, and what they are made of.

    The shares of all keys (products and queries) and of what was evicted from the history add up to 1.
    """
    profile = asyncio.run(_profile(settings, user, at))
    if as_json:
        document = asdict(profile)
        document["interests"] = [interest._asdict() for interest in profile.interests]
        document["keys"] = [key._asdict() for key in profile.keys]
        print_json(document)
    else:
        _print(profile)


async def _profile(settings: Settings, user: str, at: int | None) -> ProfileView:
    from streams.reading import open_recommender

    async with open_recommender(settings) as recommender:
        return await recommender.profile(user, at=at)


def _print(profile: ProfileView) -> None:
    if profile.note:
        click.secho(profile.note, dim=True, err=True)
    facts = {
        "user": profile.user_id,
        "point": f"{profile.point_id} of profiles--{profile.generation}",
        "read at": f"{shown(profile.at)} UTC",
        "known": f"{profile.known:.3f} (recent {profile.recent:.3f})",
        "searches": f"{profile.n_searches:,}, the newest {shown(profile.last_search_ts)}",
        "purchases": f"{profile.n_purchases:,}, the newest {shown(profile.last_purchase_ts)}",
        "candidates": f"{len(profile.candidates)} stored, made {shown(profile.made_at)}",
    }
    if profile.due is not None:
        facts["due"] = shown(profile.due)
    if profile.pending:
        facts["waits for"] = f"{len(profile.pending)} unknown products: {', '.join(profile.pending[:5])}"
    for name, value in facts.items():
        click.echo(f"{name:<11} {value}")
    if profile.interests:
        click.echo()
        print_table(
            ["SHARE", "INTEREST"],
            [[f"{interest.share:5.1%}", " | ".join(interest.texts)] for interest in profile.interests],
        )
    if profile.keys:
        click.echo()
        rest = sum(key.share for key in profile.keys[_SHOWN:])
        print_table(
            ["SHARE", "TIMES", "LAST", "MADE OF"],
            [
                [f"{key.share:5.1%}", str(key.times), shown(key.last_ts), f"{key.kind} {key.text}"]
                for key in profile.keys[:_SHOWN]
            ]
            + ([[f"{rest:5.1%}", "", "", f"{len(profile.keys) - _SHOWN} others"]] if rest else [])
            + ([[f"{profile.evicted:5.1%}", "", "", "older things, no longer listed"]] if profile.evicted else []),
        )
