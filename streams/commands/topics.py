"""`afterglow topics`: the topics, their ids, partitions, offsets and retention."""

from __future__ import annotations

import click

from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.settings import Retention, Settings


@click.command("topics")
@as_json
@with_settings
def command(settings: Settings, as_json: bool) -> None:
    """Show the topics: id, partitions, records kept, offsets, and how long records are kept."""
    from streams.kafka import answered, connect_admin
    from streams.topics import describe, end_offsets, first_offsets, policies

    admin = connect_admin(settings.kafka)
    wanted = settings.topics
    names = [wanted.searches, wanted.purchases, wanted.products, wanted.dead_letters]
    found = answered(lambda: describe(admin, names), settings.kafka)
    first = answered(lambda: first_offsets(admin, found), settings.kafka)
    end = answered(lambda: end_offsets(admin, found), settings.kafka)
    kept = answered(lambda: policies(admin, names), settings.kafka)
    listed = []
    for name, topic in found.items():
        partitions = [
            {"partition": number, "first_offset": first[name, number], "end_offset": end[name, number]}
            for number in range(topic.partitions)
        ]
        listed.append(
            {
                "name": name,
                "id": topic.id,
                "records": sum(end[name, number] - first[name, number] for number in range(topic.partitions)),
                "cleanup": kept[name].cleanup if name in kept else None,
                "retention_ms": kept[name].retention_ms if name in kept else None,
                "partitions": partitions,
            }
        )
    missing = [name for name in names if name not in found]
    if as_json:
        print_json({"topics": listed, "missing": missing})
    else:
        print_table(
            ["TOPIC", "ID", "PARTITIONS", "RECORDS", "END OFFSETS", "KEPT"],
            [
                [
                    name,
                    topic.id,
                    topic.partitions,
                    sum(end[name, number] - first[name, number] for number in range(topic.partitions)),
                    " ".join(str(end[name, number]) for number in range(topic.partitions)),
                    _kept(kept[name].cleanup, kept[name].retention_ms) if name in kept else "unknown",
                ]
                for name, topic in found.items()
            ],
        )
    if missing:
        raise click.ClickException(
            f"{settings.kafka.bootstrap_servers} has no topic {', '.join(missing)}: `afterglow up` or a worker "
            "makes it when it starts"
        )


def _kept(cleanup: str, retention_ms: int) -> str:
    return "newest of each key" if cleanup == "compact" else str(Retention(retention_ms))
