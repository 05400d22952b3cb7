"""What can be wrong between settings that are each right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from streams.settings.sections import Settings

_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/,\[\]]+):(\d{1,5})")


def problems(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between settings that are each right, with the names of those concerned."""
    kafka, topics, profiles, worker = settings.kafka, settings.topics, settings.profiles, settings.worker
    for server in kafka.bootstrap_servers.split(","):
        if not _is_host_port(server.strip()):
            yield ("kafka.bootstrap_servers",), f"kafka.bootstrap_servers: expected host:port, got {server!r}"
    if not _is_host_port(settings.qdrant.address):
        yield (
            ("qdrant.address",),
            f"qdrant.address: expected host:port of gRPC, got {settings.qdrant.address!r}",
        )
    address = settings.encoder.address
    if address and not address.startswith("unix:///") and not _is_host_port(address):
        yield ("encoder.address",), f"encoder.address: expected unix:///path or host:port, got {address!r}"
    if kafka.security_protocol.startswith("SASL_"):
        for field in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if not getattr(kafka, field):
                names = ("kafka.security_protocol", f"kafka.{field}")
                yield names, f"kafka.{field} is needed with kafka.security_protocol {kafka.security_protocol}"
    elif kafka.sasl_mechanism:
        names = ("kafka.sasl_mechanism", "kafka.security_protocol")
        yield names, "kafka.sasl_mechanism needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT"
    by_topic: dict[str, str] = {}
    for field in ("searches", "purchases", "products", "dead_letters"):
        name = getattr(topics, field)
        if name in by_topic:
            names = (f"topics.{by_topic[name]}", f"topics.{field}")
            yield names, f"topics.{by_topic[name]} and topics.{field} must differ, both are {name!r}"
        by_topic[name] = field
    if profiles.half_life_short.milliseconds >= profiles.half_life_long.milliseconds:
        yield (
            ("profiles.half_life_short", "profiles.half_life_long"),
            f"profiles.half_life_short ({profiles.half_life_short}) must be shorter than "
            f"profiles.half_life_long ({profiles.half_life_long})",
        )
    for name, duration in (
        ("profiles.half_life_short", profiles.half_life_short),
        ("qdrant.timeout", settings.qdrant.timeout),
        ("worker.sweep_interval", worker.sweep_interval),
        ("topics.retention", topics.retention),
    ):
        if duration.milliseconds == 0:
            yield (name,), f"{name}: expected more than 0"
    if worker.buffer_events < worker.batch_events:
        yield (
            ("worker.buffer_events", "worker.batch_events"),
            f"worker.buffer_events ({worker.buffer_events}) must hold a batch of worker.batch_events "
            f"({worker.batch_events})",
        )


def _is_host_port(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 0 < int(match[2]) < 65_536
