"""A write replaces only what was read, and says truly what became of it: whatever the network does."""

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import cast

import grpc
import pytest
from conditional_store import ConditionalStore, Turn, Unhurried, error
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

import sinks.writes
from deploy.children import Child, wait_until
from deploy.qdrant_server import QdrantServer
from sinks.connection import connect
from sinks.points import payload_point
from sinks.retry import PermanentReadError, PermanentWriteError, RetryPolicy, until_answered
from sinks.writes import VERSION_LIMIT, Write, new_version, read_versions, write

ADA = "00000000-0000-0000-0000-00000000000a"
BOB = "00000000-0000-0000-0000-00000000000b"
EVE = "00000000-0000-0000-0000-00000000000e"


def a_write(id_: str, version: int, replaces: int | None, size: int = 0) -> Write:
    return Write(id_, version, replaces, payload_point(id_, version, {"state": bytes(size)}))


async def stored(store: ConditionalStore, *writes: Write, retry: RetryPolicy | None = None) -> list[bool]:
    client = cast(AsyncQdrantClient, store)
    return await write(client, "profiles--main", writes, retry=retry or Unhurried())


async def a_store_of(*script: Turn, **versions: int) -> ConditionalStore:
    """A store that holds ADA, BOB and EVE in the versions given, and then goes as the script says."""
    ids = {"ada": ADA, "bob": BOB, "eve": EVE}
    store = ConditionalStore()
    await stored(store, *(a_write(ids[name], version, None) for name, version in versions.items()))
    store.requests.clear()
    store.replaced.clear()
    store.script = deque(script)
    return store


def versions(store: ConditionalStore) -> dict[str, int | None]:
    return {id_: store.version(id_) for id_ in sorted(store.points)}


async def test_a_missing_point_is_inserted_and_a_read_one_replaced() -> None:
    store = await a_store_of(ada=11)
    assert await stored(store, a_write(ADA, 12, 11), a_write(BOB, 21, None)) == [True, True]
    assert versions(store) == {ADA: 12, BOB: 21}
    assert len(store.requests) == 1


async def test_a_point_that_somebody_else_wrote_meanwhile_is_left_alone() -> None:
    store = await a_store_of(ada=13, bob=21)
    assert await stored(store, a_write(ADA, 12, 11), a_write(BOB, 22, 21)) == [False, True]
    assert versions(store) == {ADA: 13, BOB: 22}


async def test_a_point_that_somebody_else_inserted_meanwhile_is_left_alone() -> None:
    store = await a_store_of(ada=13)
    assert await stored(store, a_write(ADA, 12, None)) == [False]
    assert versions(store) == {ADA: 13}


async def test_a_point_that_vanished_is_not_taken_for_one_still_to_be_written() -> None:
    store = await a_store_of(Turn.BE_UNAVAILABLE)
    assert await stored(store, a_write(ADA, 12, 11)) == [False]
    assert len(store.requests) == 1


async def test_a_lost_answer_is_found_out_by_reading_back() -> None:
    store = await a_store_of(Turn.LOSE_THE_ANSWER, ada=11)
    assert await stored(store, a_write(ADA, 12, 11)) == [True]
    assert len(store.requests) == 1


@pytest.mark.parametrize("turn", [Turn.BE_LATE, Turn.ANSWER_WAIT_TIMEOUT])
async def test_a_write_that_is_under_way_is_sent_again_and_may_land_twice(turn: Turn) -> None:
    store = await a_store_of(turn, ada=11)
    assert await stored(store, a_write(ADA, 12, 11)) == [True]
    assert len(store.requests) == 2
    assert store.requests[0] == store.requests[1]
    store.land_late_ones()
    assert store.replaced == [(11, 12)]


async def test_a_late_write_does_not_land_on_what_somebody_else_wrote() -> None:
    store = await a_store_of(Turn.BE_LATE, Turn.RIVAL_WRITES, ada=11)
    assert await stored(store, a_write(ADA, 12, 11)) == [False]
    store.land_late_ones()
    assert versions(store) == {ADA: 2**53 - 1}


async def test_only_what_is_not_settled_is_sent_again() -> None:
    store = await a_store_of(Turn.BE_LATE, Turn.SUCCEED, ada=11, bob=22)
    assert await stored(store, a_write(ADA, 12, 11), a_write(BOB, 23, 21)) == [True, False]
    assert [[p.id.uuid for p in r.points] for r in store.requests] == [[ADA, BOB], [ADA]]


async def test_a_rate_limit_is_given_the_time_it_asks_for() -> None:
    store, retry = await a_store_of(Turn.LIMIT_THE_RATE, ada=11), Unhurried()
    assert await stored(store, a_write(ADA, 12, 11), retry=retry) == [True]
    assert retry.slept == [7.0]


async def test_waits_grow_to_a_limit_and_each_is_told() -> None:
    store, retry = await a_store_of(*[Turn.BE_UNAVAILABLE] * 9, ada=11), Unhurried()
    await read_versions(cast(AsyncQdrantClient, store), "profiles--main", [ADA], retry=retry)
    for slept, bound in zip(retry.slept, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5], strict=True):
        assert bound / 2 <= slept <= bound
    assert [r.attempt for r in retry.retries] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert retry.retries[0].reason == "UNAVAILABLE: connection refused"
    assert retry.retries[0].collection == "profiles--main"


async def test_an_unavailable_server_is_waited_for() -> None:
    store = await a_store_of(*[Turn.BE_UNAVAILABLE] * 20, ada=11)
    assert await stored(store, a_write(ADA, 12, 11)) == [True]


async def test_a_number_of_attempts_ends_in_an_error() -> None:
    store = await a_store_of(*[Turn.BE_LATE, Turn.SUCCEED] * 3, ada=11)
    with pytest.raises(TimeoutError, match="1 of 1 points were not written to 'profiles--main' in 3 attempts"):
        await stored(store, a_write(ADA, 12, 11), retry=Unhurried(attempts=3))


async def test_a_permanent_refusal_names_the_collection_and_what_to_do() -> None:
    store = await a_store_of(Turn.REFUSE, ada=11)
    with pytest.raises(PermanentWriteError) as caught:
        await stored(store, a_write(ADA, 12, 11))
    message = str(caught.value)
    assert "'profiles--main'" in message
    assert "expected dim: 384, got 2" in message
    assert "The request does not fit the collection" in message


async def test_a_permanent_refusal_of_the_read_back_is_raised_too() -> None:
    store = await a_store_of(Turn.SUCCEED, Turn.REFUSE, ada=11)
    with pytest.raises(PermanentWriteError, match="reading versions back"):
        await stored(store, a_write(ADA, 12, 11))


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"]
)
async def test_what_no_repetition_cures_is_raised_at_once(code: str) -> None:
    async def call() -> None:
        raise error(grpc.StatusCode[code], "no")

    with pytest.raises(PermanentReadError, match=f"{code}: no"):
        await until_answered(call, doing="a read", collection="products", retry=Unhurried())


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"]
)
async def test_what_may_pass_is_tried_again(code: str) -> None:
    failures = [error(grpc.StatusCode[code], "not now")] * 2

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await until_answered(call, doing="a read", collection="products", retry=Unhurried()) == "done"


async def test_a_large_chunk_is_cut_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await a_store_of()
    monkeypatch.setattr(sinks.writes, "REQUEST_BYTES", 3000)
    chunk = [a_write(ADA, 11, None, 900), a_write(BOB, 21, None, 900), a_write(EVE, 31, None, 900)]
    assert await stored(store, *chunk) == [True, True, True]
    assert [[p.id.uuid for p in r.points] for r in store.requests] == [[ADA, BOB], [EVE]]


async def test_a_message_that_a_proxy_finds_too_large_is_halved() -> None:
    store = await a_store_of()
    store.message_limit = 2000
    chunk = [a_write(ADA, 11, None, 900), a_write(BOB, 21, None, 900), a_write(EVE, 31, None, 900)]
    assert await stored(store, *chunk) == [True, True, True]
    assert versions(store) == {ADA: 11, BOB: 21, EVE: 31}


async def test_one_point_that_is_too_large_alone_is_a_permanent_error() -> None:
    store = await a_store_of()
    store.message_limit = 2000
    with pytest.raises(PermanentWriteError, match="One point alone is larger"):
        await stored(store, a_write(ADA, 11, None, 900), a_write(BOB, 21, None, 9000))


async def test_a_point_twice_in_a_chunk_is_refused_before_anything_is_sent() -> None:
    store = await a_store_of()
    with pytest.raises(ValueError, match=f"point {ADA} is written twice"):
        await stored(store, a_write(ADA, 11, None), a_write(BOB, 21, None), a_write(ADA, 12, None))
    assert store.requests == []


@pytest.mark.parametrize(("version", "replaces"), [(0, None), (2**53, None), (7, 7)])
async def test_a_version_that_is_not_new_or_out_of_range_is_refused(version: int, replaces: int | None) -> None:
    with pytest.raises(ValueError, match="must be new and in"):
        await stored(await a_store_of(), a_write(ADA, version, replaces))


async def test_a_point_without_a_version_is_nobodys_and_is_left_alone() -> None:
    store = await a_store_of(ada=11)
    del store.points[ADA].payload["version"]
    assert await stored(store, a_write(ADA, 12, None)) == [False]


async def test_replicas_are_written_in_one_order_and_read_by_majority() -> None:
    store = await a_store_of()
    client = cast(AsyncQdrantClient, store)
    await write(client, "profiles--main", [a_write(ADA, 11, None)], replicated=True)
    assert store.requests[0].ordering.type == 2  # strong


def test_versions_are_in_range_and_differ() -> None:
    drawn = {new_version() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(0 < version < VERSION_LIMIT for version in drawn)


async def test_of_writers_that_compete_on_a_real_engine_none_loses_or_repeats_an_event(qdrant: str) -> None:
    async def fold(writer: str, events: int) -> int:
        """Adds events to three points, each event once; returns how many writes had to be done anew."""
        client, redone = connect(qdrant, timeout_seconds=30), 0
        for event in (f"{writer}{n}" for n in range(events)):
            left = [ADA, BOB, EVE]
            while left:
                found = await client.retrieve("competing", left)
                read = {str(p.id): (p.payload["version"], p.payload["events"]) for p in found if p.payload}
                # A False may stand for a write that was applied and replaced since: hence the look before adding.
                left = [id_ for id_ in left if event not in read.get(id_, (0, []))[1]]
                writes = []
                for id_ in left:
                    replaces, folded = read.get(id_, (None, []))
                    version = new_version()
                    point = payload_point(id_, version, {"events": [*folded, event]})
                    writes.append(Write(id_, version, replaces, point))
                mine = await write(client, "competing", writes)
                left = [w.id for w, done in zip(writes, mine, strict=True) if not done]
                redone += len(left)
        await client.close()
        return redone

    client = connect(qdrant, timeout_seconds=30)
    await client.create_collection("competing", vectors_config={})
    redone = await asyncio.gather(*[fold(writer, 10) for writer in "wxyz"])
    points = await client.retrieve("competing", [ADA, BOB, EVE])
    await client.close()
    everything = sorted(f"{writer}{n}" for writer in "wxyz" for n in range(10))
    assert [p.payload and sorted(p.payload["events"]) for p in points] == [everything] * 3
    assert sum(redone) > 0  # they did get in each other's way


async def test_writers_wait_out_a_server_that_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    server = QdrantServer(tmp_path)
    server.prepare()

    def started() -> Child:
        return Child("qdrant", server.command, log=tmp_path / "qdrant.log", environment=server.environment)

    written = dict.fromkeys((ADA, BOB, EVE), 0)
    half_way = asyncio.Event()

    async def count(client: AsyncQdrantClient, id_: str) -> None:
        replaces = None
        for n in range(1, 61):
            version = new_version()
            point = payload_point(id_, version, {"n": n})
            (mine,) = await write(
                client, "killed", [Write(id_, version, replaces, point)], retry=RetryPolicy(limit_seconds=0.5)
            )
            assert mine, "nobody else writes this point"
            replaces, written[id_] = version, n
            if n == 30:
                half_way.set()

    def wait_for_answers() -> None:
        deadline = time.monotonic() + 60
        while not server.answers():
            assert child.exit_code is None, "\n".join(child.last_lines())
            assert wait_until(deadline), "no answer in 60 s"

    child = started()
    client = connect(server.address, timeout_seconds=30)
    try:
        await asyncio.to_thread(wait_for_answers)
        await client.create_collection("killed", vectors_config={})
        writers = [asyncio.create_task(count(client, id_)) for id_ in written]
        await half_way.wait()
        child.kill()
        await asyncio.to_thread(child.wait)
        assert any(n < 60 for n in written.values())
        child = started()
        await asyncio.gather(*writers)
        # Of a client's three channels, one may not have noticed yet that the server is back.
        stored_points = await until_answered(
            lambda: client.retrieve("killed", list(written)), doing="a read", collection="killed", retry=RetryPolicy()
        )
        assert {str(p.id): p.payload and p.payload["n"] for p in stored_points} == written
    finally:
        await client.close()
        await asyncio.to_thread(child.stop, 10)


any_turn = st.sampled_from([turn for turn in Turn if turn is not Turn.REFUSE])


@given(
    script=st.lists(any_turn, max_size=12),
    found=st.lists(st.sampled_from(["missing", "as read", "newer"]), min_size=1, max_size=3),
    afterwards=st.sampled_from(["nothing", "late ones land"]),
)
def test_whatever_happens_a_write_says_truly_what_is_stored_and_replaces_only_what_was_read(
    script: list[Turn], found: list[str], afterwards: str
) -> None:
    async def scenario() -> None:
        store = ConditionalStore()
        writes = []
        for index, (id_, how) in enumerate(zip((ADA, BOB, EVE), found, strict=False)):
            read, mine, newer = 10 * index + 1, 10 * index + 2, 10 * index + 3
            if how != "missing":
                await stored(store, a_write(id_, read if how == "as read" else newer, None))
            writes.append(a_write(id_, mine, None if how == "missing" else read))
        store.replaced.clear()
        store.script = deque(script)

        outcome = await stored(store, *writes)

        assert outcome == [store.last_read[w.id] == w.version for w in writes]
        if afterwards == "late ones land":
            before = versions(store)
            store.land_late_ones()
            assert versions(store) == before
        replaces = {w.version: w.replaces for w in writes}
        assert all(replaces[new] == old for old, new in store.replaced)
        assert len(store.replaced) == len({new for _, new in store.replaced})

    asyncio.run(scenario())
