"""`afterglow derive`: other interests and candidates from the same ledgers, with no Kafka anywhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from machine import ENVIRONMENT
from qdrant_client import AsyncQdrantClient
from services import running_qdrant

from encoders.client import EncoderClient
from encoders.testing import WordHashEncoder
from sinks.collections import Generation
from sinks.connection import connect
from sinks.generations import serve
from sinks.identity import PointIds
from sinks.opening import open_generation
from sinks.profiles import ProfileStore
from streams.existing import open_existing
from streams.keeper import Keeper
from streams.opening import new_generation
from streams.records import Record
from streams.rederivation import derive_all
from streams.settings import Settings, load

pytestmark = pytest.mark.end_to_end

SECRET = bytes(range(32))
IDS = PointIds(SECRET)
NOW = 1_700_000_000_000
WORDS = ["leather", "walking", "boots", "baking", "tin", "oven", "camping", "stove", "tent", "mixer", "kitchen", "rope"]
USERS = [f"user-{n}" for n in range(70)]
CHANGED = {"derivation.interests": "2", "derivation.interest_similarity": "0.7", "derivation.candidates": "3"}


@pytest.fixture
async def own_qdrant(tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "secret").write_text(SECRET.hex())
    directory = tmp_path / "qdrant"
    directory.mkdir()
    with running_qdrant(directory) as address:
        yield address


@pytest.fixture
async def client(own_qdrant: str) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(own_qdrant, timeout_seconds=30)
    yield client
    await client.close()


def settings_at(qdrant: str, data_dir: Path, **changed: str) -> Settings:
    overrides = {
        "qdrant.address": qdrant,
        "kafka.bootstrap_servers": "127.0.0.1:1",  # nobody is there
        "worker.inline_users": "1000",
        "worker.chunk_users": "16",
        **changed,
    }
    return load(data_dir=data_dir, overrides=overrides, environment={})


async def keeper_of(client: AsyncQdrantClient, settings: Settings, name: str) -> Keeper:
    encoder = WordHashEncoder(64)
    wanted = new_generation(settings, name, await encoder.describe(), IDS, {})
    generation: Generation = await open_generation(client, wanted, serve=False)
    keeper = Keeper(settings, generation, client=client, encoder=cast(EncoderClient, encoder), ids=IDS)
    await keeper.start()
    return keeper


def catalogue() -> list[Record]:
    products = [
        {"product_id": f"p{n}", "title": f"{WORDS[n % 12]} {WORDS[(n * 5 + 1) % 12]} {n}", "available": True}
        for n in range(40)
    ]
    return records("products", [(str(product["product_id"]), product) for product in products])


def purchases(users: Sequence[str], *, first_offset: int = 0) -> list[Record]:
    events = [
        (user, {"user_id": user, "product_id": f"p{(n * 7 + k * 11) % 40}", "quantity": 1, "ts": NOW - k * 3_600_000})
        for k in range(6)
        for n, user in enumerate(users)
    ]
    return records("purchases", events, first_offset=first_offset)


def records(topic: str, events: Sequence[tuple[str, Mapping[str, object]]], *, first_offset: int = 0) -> list[Record]:
    return [
        Record(topic, f"id-{topic}", 0, first_offset + n, NOW, key.encode(), orjson.dumps(event))
        for n, (key, event) in enumerate(events)
    ]


async def fill(keeper: Keeper) -> None:
    await keeper.apply_products(await keeper.prepare_products(catalogue()))
    await keeper.apply_events(await keeper.prepare_events(purchases(USERS)))


async def stored(client: AsyncQdrantClient, name: str) -> dict[str, Any]:
    points, _ = await client.scroll(f"profiles--{name}", limit=1000, with_payload=True, with_vectors=True)
    return {str(point.id): point for point in points}


def shown(point: Any) -> tuple[object, ...]:
    """What readers find, as far as the moment of its derivation does not change it."""
    payload = point.payload
    return (
        [(one["texts"], round(one["share"], 3)) for one in payload["interests"]],
        [one["product_id"] for one in payload["candidates"]],
        len(point.vector["interests"]),
    )


async def test_profiles_are_as_a_worker_with_the_changed_settings_derives_them(
    own_qdrant: str, client: AsyncQdrantClient, tmp_path: Path
) -> None:
    await fill(await keeper_of(client, settings_at(own_qdrant, tmp_path), "main"))
    await fill(await keeper_of(client, settings_at(own_qdrant, tmp_path, **CHANGED), "as-changed"))
    await serve(client, "main")
    before, wanted = await stored(client, "main"), await stored(client, "as-changed")
    assert len(before) == len(USERS)
    assert all(shown(before[id_]) != shown(wanted[id_]) for id_ in before)

    told = await asyncio.to_thread(derive, own_qdrant, tmp_path)

    assert (told["generation"], told["profiles"], told["redone"]) == ("main", 70, 0)
    after = await stored(client, "main")
    for id_, point in after.items():
        assert shown(point) == shown(wanted[id_])
        for name in ("long", "interests"):
            np.testing.assert_allclose(point.vector[name], wanted[id_].vector[name], atol=2e-3)
        assert point.payload["state"] == before[id_].payload["state"] == wanted[id_].payload["state"]
        assert point.payload["version"] != before[id_].payload["version"]
        assert "due" not in point.payload


def derive(qdrant: str, data_dir: Path) -> dict[str, Any]:
    """`afterglow derive`, by the changed settings."""
    environment = {f"AFTERGLOW_{name.replace('.', '_').upper()}": value for name, value in CHANGED.items()}
    done = subprocess.run(
        [sys.executable, "-m", "streams", "derive", "--json", "--kafka", "127.0.0.1:1", "--qdrant", qdrant],
        env={**ENVIRONMENT, **environment, "AFTERGLOW_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


async def test_beside_a_worker_that_goes_on_folding_nothing_is_lost(
    own_qdrant: str, client: AsyncQdrantClient, tmp_path: Path
) -> None:
    keeper = await keeper_of(client, settings_at(own_qdrant, tmp_path), "main")
    await fill(keeper)
    await serve(client, "main")
    changed = settings_at(own_qdrant, tmp_path, **CHANGED)
    offset = 6 * len(USERS)

    async def fold_on() -> None:
        nonlocal offset
        for _ in range(8):
            batch = purchases(USERS, first_offset=offset)
            offset += len(batch)
            await keeper.apply_events(await keeper.prepare_events(batch))

    async def derive_again() -> int:
        redone = 0
        for _ in range(8):
            derived = await derive_all(await open_existing(changed, client), client, at_once=20)
            redone += derived.redone
        return redone

    _, redone = await asyncio.gather(fold_on(), derive_again())
    assert redone + keeper.figures.writes_redone > 0, "they never met"
    held = await ProfileStore(client, "profiles--main", cached_bytes=0).load([IDS.user(user) for user in USERS])
    assert {found.decoded().purchases.events for found in held.values()} == {6 * 9}
    assert {found.decoded().purchases.applied.offset for found in held.values()} <= set(range(offset))


async def test_it_tells_how_far_it_is(own_qdrant: str, client: AsyncQdrantClient, tmp_path: Path) -> None:
    await fill(await keeper_of(client, settings_at(own_qdrant, tmp_path), "main"))
    told: list[tuple[int, int]] = []
    existing = await open_existing(settings_at(own_qdrant, tmp_path), client)
    await derive_all(existing, client, lambda done, of: told.append((done, of)), at_once=30)
    assert told == [(0, 70), (30, 70), (60, 70), (70, 70)]


def refused(qdrant: str, data_dir: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "streams", "derive", "--qdrant", qdrant],
        env={**ENVIRONMENT, "AFTERGLOW_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    return done.stderr


async def test_what_can_not_be_derived_is_refused_by_name(
    own_qdrant: str, client: AsyncQdrantClient, tmp_path: Path
) -> None:
    said = await asyncio.to_thread(refused, own_qdrant, tmp_path)
    assert "there is no generation 'main': a worker makes the first one" in said
    await fill(await keeper_of(client, settings_at(own_qdrant, tmp_path), "main"))
    (tmp_path / "secret").write_text("00" * 32)
    said = await asyncio.to_thread(refused, own_qdrant, tmp_path)
    assert f"were made with the secret of fingerprint {IDS.fingerprint}" in said
    said = await asyncio.to_thread(refused, "127.0.0.1:1", tmp_path)
    assert "Qdrant at 127.0.0.1:1 can't be reached" in said
