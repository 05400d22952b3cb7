"""`afterglow dead-letters`: events that were not understood, and sending them again."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.dead_letters import DeadLetter

_SHOWN: Final = 60


@click.command("dead-letters")
@click.argument("action", type=click.Choice(["list", "retry"]), default="list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="list: so many, the newest.")
@click.option("--reason", metavar="TEXT", default="", help="retry: only those whose field and reason contain TEXT.")
@click.option("--wait", is_flag=True, help="retry: return when those sent are folded in.")
@as_json
@with_settings
def command(settings: Settings, action: str, limit: int, reason: str, wait: bool, as_json: bool) -> None:
    """List the events that were not understood (newest last), or send them again.

    retry judges each waiting letter by today's rules: those that are understood now go to their topic again, with
    their key and their original bytes, once; the others keep waiting, with the reason of today. Exit code 1 if any
    chosen one was refused again.
    """
    if action == "list":
        _list(settings, limit, as_json=as_json)
    else:
        _retry(settings, reason, wait=wait, as_json=as_json)


def _list(settings: Settings, limit: int, *, as_json: bool) -> None:
    from streams.dead_letters import newest, waiting_count

    count, letters = waiting_count(settings), newest(settings, limit)
    if as_json:
        print_json({"waiting": count, "letters": [_document(letter) for letter in letters]})
        return
    if letters:
        print_table(
            ["TIME", "TOPIC/PARTITION", "OFFSET", "KEY", "FIELD", "REASON", "VALUE"],
            [
                [
                    datetime.fromtimestamp(letter.timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                    f"{letter.topic}/{letter.partition}",
                    letter.offset,
                    _shown(letter.key),
                    letter.field,
                    letter.reason,
                    _shown(letter.value),
                ]
                for letter in letters
            ],
        )
    click.echo(f"{count:,} waiting" + (f", the last {len(letters)} shown" if len(letters) < count else ""))


def _retry(settings: Settings, reason: str, *, wait: bool, as_json: bool) -> None:
    from streams.dead_letters import retry
    from streams.progress import wait_until_folded

    retried = retry(settings, time.time_ns() // 1_000_000, reason)
    if wait:
        wait_until_folded(settings, retried.offsets)
    refusals = retried.refusals
    if as_json:
        print_json(
            {
                "sent": retried.sent,
                "not_chosen": retried.kept,
                "refused": refusals.count,
                "refusals": refusals.listed(),
            }
        )
    else:
        click.echo(f"sent {retried.sent:,} again; {retried.kept + refusals.count:,} still wait")
        if refusals.count:
            print_table(
                ["REFUSED", "FIRST FROM", "FIELD", "REASON"],
                [[kind.count, kind.example, kind.field, kind.reason] for kind in refusals.listed()],
            )
    if refusals.count:
        raise click.ClickException(f"{refusals.count:,} are still not understood, and wait on")


def _document(letter: DeadLetter) -> dict[str, object]:
    """A letter as JSON; bytes that are not UTF-8 are given as base64, under another name."""
    document: dict[str, object] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "field": letter.field,
        "reason": letter.reason,
    }
    for name, data in (("key", letter.key), ("value", letter.value)):
        try:
            document[name] = None if data is None else data.decode()
        except UnicodeDecodeError:
            document[f"{name}_base64"] = base64.b64encode(data or b"").decode()
    return document


def _shown(data: bytes | None) -> str:
    if data is None:
        return "(null)"
    text = data[: 4 * _SHOWN].decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
