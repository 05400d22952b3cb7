"""A profile written, beside a bare upsert of one vector; and the bytes that profiles of a real shop take.

A profile is written as a worker does it: its point built, an upsert on the condition that nothing else was written, the
version read back. The bare upsert is qdrant-client's own: one vector of as many numbers, no payload, no condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from benchmarks.at_rest import Kept, bytes_of, bytes_of_one
from benchmarks.generation import Cost, KeptGeneration, OwnQdrant, own_qdrant
from benchmarks.real_data import lines, products, text_of
from benchmarks.rows import Bound, Options, Row, side_by_side
from benchmarks.vectors import Vectors, real
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as qdrant
from qdrant_client.conversions.conversion import RestToGrpc

from sinks.points import WirePoint, profile_point
from sinks.profiles import Held, ProfileStore
from sinks.wire import JSON, WireValue, value_of
from sinks.writes import Write, new_version, upsert_request

SHOP: Final = "online-retail"
CALLS: Final = ((128, 1280), (1, 320))  # profiles a call (a worker's chunk; somebody alone), and in all
BARE: Final = "bare"


class Profile(NamedTuple):
    """A profile as it is to be written, and what its point is built from."""

    point: WirePoint
    id: str
    long: Vectors | None
    short: Vectors | None
    interests: Vectors | None
    payload: dict[str, JSON | bytes]


def measure(options: Options) -> Iterator[Row]:
    with own_qdrant() as own:
        shop = own.run(_shop(own, options))
        profiles = own.run(_derived(shop))
        yield from _stored(profiles)
        client = own.run(_bare_client(own))
        for at_once, in_all in CALLS:
            some = profiles[: options.scaled(in_all)]
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(own.run(_write_profiles(own, shop, some, at_once)))
                theirs.append(own.run(_write_bare(own, client, some, at_once)))
            yield _written(own, at_once, ours, theirs)
        yield _on_the_wire(own, profiles)
        own.run(client.close())
        own.run(shop.close())


async def _shop(own: OwnQdrant, options: Options) -> KeptGeneration:
    """All that the shop's customers bought, folded in."""
    sold = products(options.data, SHOP)
    shop = KeptGeneration(own, SHOP, real([text_of(product) for product in sold]))
    await shop.open()
    await shop.stock(sold)
    bought = list(lines(options.data, f"{SHOP}/purchases"))
    customers = list(dict.fromkeys(purchase["user_id"] for purchase in bought))
    some = set(customers[:: len(customers) // options.scaled(len(customers))])
    await shop.fold_history(purchase for purchase in bought if purchase["user_id"] in some)
    return shop


async def _derived(shop: KeptGeneration) -> list[Profile]:
    """Every profile as it is written when all is derived."""
    written: dict[str, WirePoint] = {}
    store = shop.keeper.profiles
    write = store.write

    async def noted(writes: Sequence[tuple[Write, Held]]) -> list[bool]:
        written.update((one.id, one.point) for one, _ in writes)
        return await write(writes)

    store.write = noted  # type: ignore[method-assign]
    await shop.sweep()
    store.write = write  # type: ignore[method-assign]
    return [_taken_apart(point) for point in written.values()]


def _taken_apart(point: WirePoint) -> Profile:
    parsed = qdrant.PointStruct.FromString(point)
    payload: dict[str, JSON | bytes] = {name: value_of(value) for name, value in parsed.payload.items()}
    payload["candidates"] = WireValue(parsed.payload["candidates"].SerializeToString())
    del payload["version"]
    vectors = parsed.vectors.vectors.vectors
    named = {name: np.array(vectors[name].dense.data, np.float32) for name in ("long", "short") if name in vectors}
    rows = [row.data for row in vectors["interests"].multi_dense.vectors] if "interests" in vectors else []
    return Profile(
        point,
        parsed.id.uuid,
        named.get("long"),
        named.get("short"),
        np.array(rows, np.float32) if rows else None,
        payload,
    )


def _stored(profiles: Sequence[Profile]) -> Iterator[Row]:
    by_size = sorted(map(_kept, profiles), key=lambda kept: kept.size)
    note = f"on disk, by Qdrant's engine as a server keeps it, without its log; {len(by_size):,} customers of {SHOP}"
    vectors = sum(kept.bytes_of_vectors for kept in by_size) / len(by_size)
    yield Row(
        name="a profile stored, the mean",
        value=bytes_of(by_size) / 1000,
        unit="KB",
        note=f"{note}; {vectors:,.0f} bytes of vectors",
    )
    for who, kept, goal in (("median", by_size[len(by_size) // 2], 12), ("fullest", by_size[-1], 20)):
        state = len(str(kept.payload["state"]))
        yield Row(
            name=f"a profile stored, the {who} shopper",
            value=bytes_of_one(kept) / 1000,
            unit="KB",
            bound=Bound(goal, None, "lower"),
            note=f"{note}; {kept.bytes_of_vectors:,} bytes of vectors, and before compression {state:,} of state",
        )


def _kept(profile: Profile) -> Kept:
    """As Qdrant gets it."""
    payload = {name: value_of(value) for name, value in qdrant.PointStruct.FromString(profile.point).payload.items()}
    named = {"long": profile.long, "short": profile.short, "interests": profile.interests}
    return Kept({name: vectors for name, vectors in named.items() if vectors is not None}, payload)


async def _write_profiles(own: OwnQdrant, shop: KeptGeneration, profiles: Sequence[Profile], at_once: int) -> Cost:
    store = ProfileStore(shop.client, shop.profiles, cached_bytes=2**30)
    held = await store.load([profile.id for profile in profiles])

    async def write() -> None:
        for start in range(0, len(profiles), at_once):
            some = profiles[start : start + at_once]
            outcome = await store.write([_write(profile, held[profile.id]) for profile in some])
            assert all(outcome), "somebody else writes here"

    return (await own.cost(write())).of_each(len(profiles))


def _write(profile: Profile, held: Held) -> tuple[Write, Held]:
    version = new_version()
    point = profile_point(profile.id, version, profile.long, profile.short, profile.interests, profile.payload)
    return Write(profile.id, version, held.version, point), held._replace(version=version)


async def _bare_client(own: OwnQdrant) -> AsyncQdrantClient:
    host, port = own.address.split(":")
    client = AsyncQdrantClient(host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False)
    await client.create_collection(BARE, models.VectorParams(size=384, distance=models.Distance.COSINE))
    return client


async def _write_bare(own: OwnQdrant, client: AsyncQdrantClient, profiles: Sequence[Profile], at_once: int) -> Cost:
    vectors = _unit_vectors(len(profiles))

    async def write() -> None:
        for start in range(0, len(profiles), at_once):
            some = zip(profiles[start : start + at_once], vectors[start : start + at_once], strict=True)
            await client.upsert(BARE, [_bare_point(profile.id, vector) for profile, vector in some], wait=True)

    return (await own.cost(write())).of_each(len(profiles))


def _bare_point(id_: str, vector: Vectors) -> models.PointStruct:
    return models.PointStruct(id=id_, vector=vector.tolist())


def _written(own: OwnQdrant, at_once: int, ours: Sequence[Cost], theirs: Sequence[Cost]) -> Row:
    ratio, spread = side_by_side([cost.worker for cost in ours], [cost.worker for cost in theirs])
    _, there, elapsed = (median(seconds) for seconds in zip(*ours, strict=True))
    bare, bare_there, bare_elapsed = (median(seconds) for seconds in zip(*theirs, strict=True))
    return Row(
        name=f"a profile written, {at_once} a call",
        value=median(cost.worker for cost in ours),
        unit="us CPU of the client",
        against=f"bare upsert of one vector: {bare:,.0f}",
        ratio=ratio,
        spread=spread,
        note=(
            f"{own.kind} Qdrant, one write in flight; Qdrant's CPU {there:,.0f} and {bare_there:,.0f} us, "
            f"elapsed {elapsed:,.0f} and {bare_elapsed:,.0f}"
        ),
    )


def _on_the_wire(own: OwnQdrant, profiles: Sequence[Profile]) -> Row:
    at_once = CALLS[0][0]
    some = profiles[:at_once]
    writes = [_write(profile, Held(version=new_version()))[0] for profile in some]
    ours = len(upsert_request(SHOP, writes, replicated=False)) / len(some)
    points = [_bare_point(profile.id, vector) for profile, vector in zip(some, _unit_vectors(len(some)), strict=True)]
    request = qdrant.UpsertPoints(
        collection_name=BARE, wait=True, points=[RestToGrpc.convert_point_struct(point) for point in points]
    )
    theirs = request.ByteSize() / len(some)
    return Row(
        name="a profile written, bytes of the request",
        value=ours,
        unit="bytes",
        against=f"bare upsert of one vector: {theirs:,.0f}",
        ratio=ours / theirs,
        note=f"{at_once} a call, {own.kind} Qdrant",
    )


def _unit_vectors(count: int) -> Vectors:
    vectors = np.random.default_rng(5).standard_normal((count, 384), np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
