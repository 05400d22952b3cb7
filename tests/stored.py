"""Every profile that a running `up` has stored, by user: what end-to-end tests compare."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np

from sinks.connection import connect
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState
from sinks.profiles import ProfileStore
from streams.addresses import read_addresses


def profiles_of(data_dir: Path, users: Iterable[str], generation: str = "main") -> dict[str, ProfileState]:
    """The states of these users, empty for those without a profile."""
    addresses = read_addresses(data_dir)
    assert addresses is not None, f"nothing runs on {data_dir}"
    ids = PointIds(bytes.fromhex(Path(addresses.secret_file).read_text()))
    by_point = {ids.user(user): user for user in users}

    async def read() -> dict[str, ProfileState]:
        client = connect(addresses.qdrant)
        try:
            held = await ProfileStore(client, f"profiles--{generation}", cached_bytes=0).load(list(by_point))
        finally:
            await client.close()
        return {by_point[point]: found.decoded() for point, found in held.items()}

    return asyncio.run(read())


def exact_differences(a: Ledger, b: Ledger) -> list[str]:
    """What two ledgers of the same topic don't agree on to the last bit; sums within what float32 rounds off."""
    found = [
        field.name
        for field in fields(Ledger)
        if field.name not in ("long", "short", "rows", "keys", "query_vectors")
        and getattr(a, field.name) != getattr(b, field.name)
    ]
    if (a.keys, a.history.tobytes()) != (b.keys, b.history.tobytes()):
        found.append("history")
    for name in ("long", "short"):
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (x is not None and np.linalg.norm(x - y) > 1e-6 * np.linalg.norm(x)):
            found.append(name)
    return found


def differences(a: Ledger, b: Ledger) -> list[str]:
    """What two ledgers don't agree on, `applied` aside: it tells where events stood, which two runs may not share."""
    found = [
        f"{name}: {getattr(a, name)} and {getattr(b, name)}"
        for name in ("events", "newest_ts", "orders", "repeats", "later_lines", "distinct", "pending", "n_lost")
        if getattr(a, name) != getattr(b, name)
    ]
    if dict(zip(a.keys, a.history.tolist(), strict=True)) != dict(zip(b.keys, b.history.tolist(), strict=True)):
        found.append("history")
    for name in ("weight_long", "weight_short", "evicted"):
        x, y = getattr(a, name), getattr(b, name)
        if x != y and not abs(x - y) <= 1e-9 * abs(x):
            found.append(f"{name}: {x} and {y}")
    for name in ("long", "short"):
        x, y = getattr(a, name), getattr(b, name)
        x, y = np.zeros(1) if x is None else x, np.zeros(1) if y is None else y
        if np.linalg.norm(x - y) > 1e-5 * max(float(np.linalg.norm(x)), 1e-30):
            found.append(name)
    return found
