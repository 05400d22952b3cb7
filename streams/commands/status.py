"""`afterglow status`: how everything is doing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import click

from streams.commands.moments import shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.status import EncoderStatus, KafkaStatus, QdrantStatus, StatisticsStatus, Status


@click.command("status")
@as_json
@with_settings
def command(settings: Settings, as_json: bool) -> None:
    """Show health, lag of each partition, events folded in, generation and model.

    Exit code 1, with the problems in words, when something is wrong. Lag is no problem by itself; where events have
    waited for a while, it takes some seconds to see whether they are acknowledged.
    """
    from streams.generations import resolved
    from streams.health import look

    logging.getLogger("encoders").setLevel(logging.ERROR)  # what does not answer is told below
    status = asyncio.run(look(resolved(settings)))
    if as_json:
        print_json(status)
    else:
        _print(status)
    if not status.healthy:
        raise click.exceptions.Exit(1)


def _print(status: Status) -> None:
    if status.healthy:
        click.secho("ok", fg="green", bold=True)
    for problem in status.problems:
        click.secho("problem: ", fg="red", bold=True, nl=False)
        click.echo(problem)
    facts = {**_of_qdrant(status.qdrant), **_of_encoder(status.encoder), **_of_kafka(status.kafka)}
    if facts:
        click.echo()
    for name, value in facts.items():
        click.echo(f"{name:<11} {value}")
    if status.kafka is not None and status.kafka.partitions:
        click.echo()
        print_table(
            ["TOPIC", "PARTITION", "END", "COMMITTED", "LAG", "WAITING SINCE"],
            [
                [
                    at.topic,
                    at.partition,
                    at.end,
                    "-" if at.committed is None else f"{at.committed:,}",
                    at.lag,
                    "" if at.waiting_since is None else shown(at.waiting_since),
                ]
                for at in status.kafka.partitions
            ],
        )


def _of_qdrant(qdrant: QdrantStatus | None) -> dict[str, str]:
    if qdrant is None or qdrant.generation is None or qdrant.profiles is None or qdrant.products is None:
        return {}
    generation, profiles, products = qdrant.generation, qdrant.profiles, qdrant.products
    served = "" if generation.served else "; readers' aliases lead to another"
    return {
        "generation": f"{generation.name}, made {shown(generation.created_at)} UTC{served}",
        "model": f"{generation.model} ({generation.model_identity}, {generation.dimension} dimensions)",
        "qdrant": qdrant.address,
        "profiles": f"{profiles.count:,}",
        "folded in": f"{profiles.searches:,} searches, {profiles.purchases:,} purchases",
        **({"noise": _told(profiles.noise)} if profiles.noise else {}),
        "waiting": f"{profiles.waiting:,} profiles for {profiles.pending_products:,} unknown products; "
        f"{profiles.due:,} with work due",
        "products": f"{products.count:,}, {products.available:,} available",
        **({} if qdrant.statistics is None else {"statistics": _of_statistics(qdrant.statistics, products.available)}),
    }


def _of_statistics(statistics: StatisticsStatus, available: int) -> str:
    coverage = statistics.covered / max(available, 1)
    return (
        f"{statistics.events:,} events until {shown(statistics.as_of)} UTC, learned from {statistics.users:,} users; "
        f"{statistics.lists:,} people's lists cover {coverage:.0%} of the available products"
    )


def _told(noise: dict[str, int]) -> str:
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in noise.items())
    return f"{sum(noise.values()):,} searches weigh less: {reasons}"


def _of_encoder(encoder: EncoderStatus | None) -> dict[str, str]:
    if encoder is None:
        return {}
    return {
        "encoder": f"{encoder.address}, {encoder.model} on {encoder.device}, up {encoder.uptime_seconds:,.0f} s",
        "texts": f"{encoder.texts:,}, {encoder.cache_share:.0%} from the cache; "
        f"{encoder.waiting:,} of {encoder.waiting_limit:,} places in the queue taken",
    }


def _of_kafka(kafka: KafkaStatus | None) -> dict[str, str]:
    if kafka is None:
        return {}
    who = f"{kafka.members:,} in the group {kafka.group}"
    return {
        "kafka": kafka.address,
        **({"workers": who} if kafka.live else {"replay": f"{who}; workers join when it has left"}),
        "lag": f"{kafka.lag:,} events" + (f"; statistics {kafka.uncounted:,}" if kafka.uncounted is not None else ""),
        "unread": f"{kafka.dead_letters:,} dead letters"
        + (", see `afterglow dead-letters`" * bool(kafka.dead_letters)),
    }
