"""Times as people write them on the command line, and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import click


class Moment(click.ParamType):
    """ISO 8601 (UTC where it names no zone), or milliseconds since the epoch: as milliseconds."""

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int) or value.lstrip("-").isdigit():
            return int(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither ISO 8601, like 2026-11-25T10:00, nor milliseconds since 1970", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)


at_option = click.option(
    "--at", type=Moment(), metavar="TIME", help="Read at this time: ISO 8601 or ms.  [default: now]"
)


def shown(ms: int | None) -> str:
    """A time for people: UTC, to the second."""
    if ms is None:
        return "never"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
