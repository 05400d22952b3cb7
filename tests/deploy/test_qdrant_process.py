"""The embedded Qdrant as a process: error codes, restarts, kill -9, the folder's lock, the disk, large writes."""

import asyncio
import base64
import contextlib
import json
import os
import resource
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import grpc as wire
from qdrant_client import models as m

from deploy.children import Child, wait_until
from deploy.qdrant.packing import PACKED

PROFILE = {
    "long": m.VectorParams(size=384, distance=m.Distance.COSINE, datatype=m.Datatype.FLOAT16),
    "interests": m.VectorParams(
        size=384,
        distance=m.Distance.COSINE,
        datatype=m.Datatype.FLOAT16,
        multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
        hnsw_config=m.HnswConfigDiff(m=0),
    ),
}

NO_GRAPH = m.HnswConfigDiff(m=0)


class Embedded:
    """The service on one folder, started and killed at will."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self._address_file = directory / "address"
        self._log = directory / "log"
        self._child: Child | None = None
        self.address = ""

    def start(self) -> None:
        self._address_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "deploy.qdrant", "--data-dir", str(self.data_dir)]
        self._child = Child("qdrant", [*command, "--address-file", str(self._address_file)], log=self._log)
        deadline = time.monotonic() + 60
        while not self._address_file.exists():
            assert self._child.exit_code is None, self._child.last_lines()
            assert wait_until(deadline), self._child.last_lines()
        self.address = self._address_file.read_text().strip()

    def client(self) -> QdrantClient:
        host, port = self.address.split(":")
        return QdrantClient(host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False, timeout=30)

    def async_client(self) -> AsyncQdrantClient:
        host, port = self.address.split(":")
        return AsyncQdrantClient(
            host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False, timeout=30
        )

    def stop(self) -> int:
        assert self._child is not None
        assert self._child.stop(30), self._child.last_lines()
        assert self._child.exit_code is not None
        return self._child.exit_code

    def wait(self) -> int:
        assert self._child is not None
        return self._child.wait()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def signal(self, number: int) -> None:
        assert self._child is not None
        os.kill(self._child.pid, number)

    @property
    def exit_code(self) -> int | None:
        assert self._child is not None
        return self._child.exit_code

    def fill_the_disk(self) -> None:
        """No file of this process can grow any more, its log included, as on a disk without room."""
        assert self._child is not None
        _, most = resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (1, most))

    def bytes_on_disk(self) -> int:
        total = 0
        for folder, _, files in os.walk(self.data_dir):
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # compaction removes files meanwhile
                    total += Path(folder, file).stat().st_blocks * 512
        return total


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    service = Embedded(tmp_path)
    service.start()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantClient]:
    """A client of a service that a test doesn't stop; it has the collection `shop`: `v` of 2 numbers, `m` of many."""
    service = Embedded(tmp_path_factory.mktemp("shared"))
    service.start()
    client = service.client()
    multi = m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "shop",
        vectors_config={
            "v": m.VectorParams(size=2, distance=m.Distance.COSINE),
            "m": m.VectorParams(size=2, distance=m.Distance.COSINE, multivector_config=multi),
        },
    )
    yield client
    client.close()
    service.kill()


def at(identity: int | str, **vectors: object) -> m.PointStruct:
    return m.PointStruct(id=identity, vector=vectors, payload={})  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[QdrantClient], object], grpc.StatusCode, str]] = {
    "missing collection": (
        lambda c: c.upsert("nowhere", [at(1)]),
        grpc.StatusCode.NOT_FOUND,
        "Collection `nowhere` doesn't exist!",
    ),
    "reading a missing collection": (
        lambda c: c.retrieve("nowhere", [1]),
        grpc.StatusCode.NOT_FOUND,
        "Collection `nowhere` doesn't exist!",
    ),
    "existing collection": (
        lambda c: c.create_collection("shop", vectors_config={}),
        grpc.StatusCode.ALREADY_EXISTS,
        "Collection `shop` already exists!",
    ),
    "wrong dimension": (
        lambda c: c.upsert("shop", [at(1, v=[1.0, 0.0]), at(2, v=[1.0, 2.0, 3.0])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected dim: 2, got 3",
    ),
    "wrong dimension in a multivector": (
        lambda c: c.upsert("shop", [at(1, m=[[1.0, 0.0], [1.0]])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected dim: 2, got 1",
    ),
    "unknown vector": (
        lambda c: c.upsert("shop", [at(1, w=[1.0, 0.0])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "Not existing vector name error: w",
    ),
    "several vectors for one": (
        lambda c: c.upsert("shop", [at(1, v=[[1.0, 0.0]])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "configured as dense, not multi",
    ),
    "nothing to upsert": (lambda c: c.upsert("shop", []), grpc.StatusCode.INVALID_ARGUMENT, "Empty update request"),
    "no UUID": (lambda c: c.retrieve("shop", ["user-1"]), grpc.StatusCode.INVALID_ARGUMENT, "Unable to parse UUID"),
    "malformed key": (
        lambda c: c.count("shop", m.Filter(must=[m.FieldCondition(key="a[[", match=m.MatchValue(value=1))])),
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid JSON path a[[",
    ),
    "empty condition": (
        lambda c: c.grpc_points.Count(
            wire.CountPoints(
                collection_name="shop",
                filter=wire.Filter(must=[wire.Condition(field=wire.FieldCondition(key="a"))]),
            )
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "the condition on 'a' says nothing",
    ),
    "query of another dimension": (
        lambda c: c.query_points("shop", [1.0], using="v"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected dim: 2, got 1",
    ),
    "query of an unknown vector": (
        lambda c: c.query_points("shop", [1.0, 0.0]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "Not existing vector name error",
    ),
    "query by a missing point": (
        lambda c: c.query_points("shop", 404, using="v"),
        grpc.StatusCode.NOT_FOUND,
        "No point with id 404",
    ),
    "payload of a missing point": (
        lambda c: c.set_payload("shop", {"a": 1}, points=[404]),
        grpc.StatusCode.NOT_FOUND,
        "No point with id 404",
    ),
    "ordering without an index": (
        lambda c: c.scroll("shop", order_by="price"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "No range index",
    ),
    "alias of a missing collection": (
        lambda c: c.update_collection_aliases(
            [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="nowhere", alias_name="x"))]
        ),
        grpc.StatusCode.NOT_FOUND,
        "Collection `nowhere` doesn't exist!",
    ),
    "alias with a collection's name": (
        lambda c: c.update_collection_aliases(
            [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="shop", alias_name="shop"))]
        ),
        grpc.StatusCode.ALREADY_EXISTS,
        "Collection `shop` already exists!",
    ),
    "collection without a name": (
        lambda c: c.create_collection("a/b", vectors_config={}),
        grpc.StatusCode.INVALID_ARGUMENT,
        "contains '/'",
    ),
    "groups": (
        lambda c: c.query_points_groups("shop", group_by="kind", query=[1.0, 0.0], using="v"),
        grpc.StatusCode.UNIMPLEMENTED,
        "Points.QueryGroups",
    ),
    "snapshots": (lambda c: c.create_snapshot("shop"), grpc.StatusCode.UNIMPLEMENTED, "Snapshots.Create"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_and_how(shared: QdrantClient, what: str) -> None:
    call, code, words = REFUSED[what]
    with pytest.raises(grpc.RpcError) as refusal:
        call(shared)
    assert refusal.value.code() == code
    assert words in refusal.value.details()
    assert shared.count("shop").count == 0  # nothing of a refused request is applied


def test_deleting_what_is_missing_is_no_error(shared: QdrantClient) -> None:
    assert not shared.delete_collection("nowhere")
    assert not shared.collection_exists("nowhere")


def test_the_name_of_what_is_packed_is_no_field(shared: QdrantClient) -> None:
    shared.create_collection("names", vectors_config={})
    with pytest.raises(grpc.RpcError, match="no payload field can have the name"):
        shared.upsert("names", [m.PointStruct(id=1, vector={}, payload={PACKED: "no base64"})])


def test_nan_is_accepted_as_a_server_accepts_it(shared: QdrantClient) -> None:
    shared.create_collection("nan", vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT))
    shared.upsert("nan", [m.PointStruct(id=1, vector=[float("nan"), 1.0])])
    assert shared.count("nan").count == 1


def test_metadata_and_settings_without_effect_are_kept(shared: QdrantClient) -> None:
    shared.create_collection(
        "kept",
        vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT, on_disk=True),
        metadata={"generation": {"model": "mini", "dimension": 2}},
        replication_factor=2,
        hnsw_config=m.HnswConfigDiff(m=16),
    )
    shared.update_collection("kept", metadata={"more": 1})
    config = shared.get_collection("kept").config
    assert config.metadata == {"generation": {"model": "mini", "dimension": 2}, "more": 1}
    assert config.params.replication_factor == 2
    assert isinstance(config.params.vectors, m.VectorParams)
    assert config.params.vectors.on_disk


def profile(number: int, version: int, rng: np.random.Generator, state_bytes: int = 9000) -> m.PointStruct:
    state = base64.b64encode(rng.bytes(state_bytes)).decode()
    vectors = rng.standard_normal((5, 384)).astype(np.float32)
    return m.PointStruct(
        id=str(uuid.UUID(int=number + 1)),
        vector={"long": vectors[0].tolist(), "interests": vectors[1:].tolist()},
        payload={"version": version, "due": number, "state": state},
    )


def test_everything_is_there_after_a_restart(embedded: Embedded) -> None:
    client = embedded.client()
    client.create_collection("p--main", vectors_config=PROFILE, metadata={"model": "mini"})
    client.create_payload_index("p--main", "due", m.PayloadSchemaType.INTEGER)
    client.create_collection("gone", vectors_config={})
    client.delete_collection("gone")
    create = m.CreateAlias(collection_name="p--main", alias_name="p")
    client.update_collection_aliases([m.CreateAliasOperation(create_alias=create)])
    rng = np.random.default_rng(0)
    client.upsert("p", [profile(number, 1, rng, 100) for number in range(50)])
    before = client.retrieve("p", [str(uuid.UUID(int=7))], with_vectors=True)
    assert embedded.stop() == 0
    embedded.start()
    client = embedded.client()
    assert [collection.name for collection in client.get_collections().collections] == ["p--main"]
    assert [(alias.alias_name, alias.collection_name) for alias in client.get_aliases().aliases] == [("p", "p--main")]
    info = client.get_collection("p")
    assert info.config.metadata == {"model": "mini"}
    assert info.points_count == 50
    assert info.payload_schema["due"].data_type == m.PayloadSchemaType.INTEGER
    assert client.retrieve("p", [str(uuid.UUID(int=7))], with_vectors=True) == before
    due = m.Filter(must=[m.FieldCondition(key="due", range=m.Range(gte=40))])
    assert client.count("p", due).count == 10
    with pytest.raises(grpc.RpcError):
        client.upsert("p", [m.PointStruct(id=1, vector={"long": [1.0]})])


def test_packed_fields_stay_as_open_as_they_were_after_a_restart(embedded: Embedded) -> None:
    client = embedded.client()
    client.create_collection("p", vectors_config={})
    payload: m.Payload = {name: [{"id": number, "text": "x" * 50} for number in range(9)] for name in ("a", "b")}
    client.upsert("p", [m.PointStruct(id=1, vector={}, payload=payload)])

    def holding(name: str, number: int) -> int:
        condition = m.FieldCondition(key=f"{name}[].id", match=m.MatchValue(value=number))
        return client.count("p", m.Filter(must=[condition])).count

    assert holding("a", 8) == 1
    embedded.kill()
    embedded.start()
    client = embedded.client()
    client.upsert("p", [m.PointStruct(id=2, vector={}, payload=payload)])
    assert (holding("a", 8), holding("b", 8), holding("b", 9)) == (2, 2, 0)
    client.create_payload_index("p", "b[].id", m.PayloadSchemaType.INTEGER)
    client.upsert("p", [m.PointStruct(id=3, vector={}, payload=payload)])
    assert holding("b", 8) == 3
    assert [record.payload for record in client.retrieve("p", [1, 2, 3])] == [payload] * 3


def test_packed_vectors_are_searched_and_stay_open_after_a_restart(embedded: Embedded) -> None:
    client = embedded.client()
    client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(6)
    first, second = profile(1, 1, rng), profile(2, 1, rng)
    client.upsert("p", [first])
    written = client.retrieve("p", [first.id], with_vectors=True)
    embedded.kill()
    embedded.start()
    client = embedded.client()

    def nearest(point: m.PointStruct) -> list[m.ExtendedPointId]:
        assert isinstance(point.vector, dict)
        return [hit.id for hit in client.query_points("p", point.vector["long"], using="long").points]

    assert client.retrieve("p", [first.id], with_vectors=True) == written
    assert nearest(first) == [first.id]
    embedded.kill()
    embedded.start()
    client = embedded.client()
    client.upsert("p", [second])
    assert nearest(first) == [first.id, second.id]
    assert client.retrieve("p", [first.id])[0].payload == first.payload


def test_a_folder_of_an_earlier_version_is_refused(embedded: Embedded, tmp_path: Path) -> None:
    embedded.client().create_collection("p", vectors_config={})
    assert embedded.stop() == 0
    catalogue = embedded.data_dir / "catalogue.json"
    content = json.loads(catalogue.read_bytes())
    del content["format"]
    catalogue.write_text(json.dumps(content))
    second = Child(
        "second", [sys.executable, "-m", "deploy.qdrant", "--data-dir", str(embedded.data_dir)], log=tmp_path / "second"
    )
    assert second.wait() == 1
    assert second.last_lines()[-1].endswith(
        "catalogue.json was written by another version; move it away to start empty, and replay the topics"
    )


async def test_kill_9_loses_nothing_acknowledged(embedded: Embedded) -> None:
    client = embedded.async_client()
    await client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(1)
    acknowledged: dict[str, int] = {}
    enough = asyncio.Event()

    async def stream(first: int) -> None:
        version = 0
        while True:
            version += 1
            points = [profile(first + number, version, rng, 3000) for number in range(16)]
            await client.upsert("p", points)
            acknowledged.update({str(point.id): version for point in points})
            if sum(acknowledged.values()) >= 1500:  # flushes were among these writes
                enough.set()

    streams = [asyncio.create_task(stream(first)) for first in (0, 100, 200)]
    await enough.wait()
    embedded.kill()
    for ended in await asyncio.gather(*streams, return_exceptions=True):
        assert isinstance(ended, grpc.aio.AioRpcError)
    embedded.start()
    client = embedded.async_client()
    records = await client.retrieve("p", list(acknowledged), with_payload=["version"])
    stored = {str(record.id): record.payload["version"] for record in records if record.payload}
    assert stored.keys() == acknowledged.keys()
    older = {key for key, version in acknowledged.items() if stored[key] < version}
    assert older == set()


async def test_a_full_disk_ends_it_and_loses_nothing_acknowledged(embedded: Embedded) -> None:
    """The engine refuses every write after one that failed, until it is opened anew."""
    client = embedded.async_client()
    await client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(1)
    acknowledged: dict[str, int] = {}
    refused = version = 0
    while embedded.exit_code is None:
        version += 1
        if version == 5:
            embedded.fill_the_disk()
        points = [profile(number, version, rng, 3000) for number in range(version, version + 16)]
        try:
            await client.upsert("p", points)
        except grpc.aio.AioRpcError:
            refused += 1
        else:
            acknowledged.update({str(point.id): version for point in points})
    assert (embedded.exit_code, refused > 0) == (1, True)
    embedded.start()
    records = await embedded.async_client().retrieve("p", list(acknowledged), with_payload=["version"])
    stored = {str(record.id): record.payload["version"] for record in records if record.payload}
    assert {key for key, version in acknowledged.items() if stored.get(key, 0) < version} == set()


async def test_a_conditional_upsert_is_a_compare_and_set(embedded: Embedded) -> None:
    """Two connections raise one counter as fast as they can: no number is won twice."""
    clients = [embedded.async_client(), embedded.async_client()]
    await clients[0].create_collection("c", vectors_config={})
    won: list[int] = []

    async def race(client: AsyncQdrantClient, who: int) -> None:
        while len(won) < 300:
            records = await client.retrieve("c", [1])
            number = records[0].payload["number"] if records and records[0].payload else 0
            version = who * 1_000_000 + number + 1
            read = m.MatchAny(any=[records[0].payload["version"] if records and records[0].payload else 0])
            await client.upsert(
                "c",
                [m.PointStruct(id=1, vector={}, payload={"number": number + 1, "version": version})],
                update_filter=m.Filter(must=[m.FieldCondition(key="version", match=read)]),
                update_mode=None if records else m.UpdateMode.INSERT_ONLY,
            )
            (now,) = await client.retrieve("c", [1])
            if now.payload and now.payload["version"] == version:
                won.append(number + 1)

    await asyncio.gather(*(race(client, who) for who, client in enumerate(clients * 2, start=1)))
    assert len(won) == len(set(won))


async def test_reads_don_t_wait_for_a_large_write(embedded: Embedded) -> None:
    client = embedded.async_client()
    await client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(2)
    points = [profile(number, 1, rng, 100) for number in range(1500)]
    large = asyncio.create_task(client.upsert("p", points))
    counts: list[int] = []
    while not large.done():
        counts.append((await client.count("p")).count)
    assert (await large).status == m.UpdateStatus.COMPLETED
    assert any(0 < count < 1500 for count in counts), counts
    assert counts == sorted(counts)


async def test_a_write_whose_caller_has_gone_is_finished(embedded: Embedded) -> None:
    client = embedded.async_client()
    await client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(3)
    large = asyncio.create_task(client.upsert("p", [profile(number, 1, rng, 100) for number in range(1500)]))
    while not (await client.count("p")).count:
        assert not large.done()
    large.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await large
    deadline = time.monotonic() + 60
    while (await client.count("p")).count < 1500:
        assert wait_until(deadline), "the rest of the write is missing"


def test_a_folder_is_served_by_one_process(embedded: Embedded, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.qdrant", "--data-dir", str(embedded.data_dir)]
    second = Child("second", command, log=tmp_path / "second")
    assert second.wait() == 1
    (line,) = second.last_lines()
    assert line.startswith(f"embedded Qdrant: {embedded.data_dir} is served by another process (pid ")
    assert embedded.client().get_collections().collections == []


def test_a_taken_port_is_named(embedded: Embedded, tmp_path: Path) -> None:
    port = embedded.address.split(":")[1]
    command = [sys.executable, "-m", "deploy.qdrant", "--data-dir", str(tmp_path / "other"), "--port", port]
    second = Child("second", command, log=tmp_path / "second")
    assert second.wait() == 1
    assert f"127.0.0.1:{port}" in second.last_lines()[-1]


def test_a_folder_that_nobody_names_is_removed_at_start(embedded: Embedded) -> None:
    embedded.client().create_collection("kept", vectors_config={})
    embedded.stop()
    orphan = embedded.data_dir / "collections" / "half-made"
    orphan.mkdir()
    (orphan / "file").write_text("x")
    embedded.start()
    assert not orphan.exists()
    assert embedded.client().collection_exists("kept")


def test_ctrl_c_stops_it_cleanly(embedded: Embedded) -> None:
    embedded.client().create_collection("kept", vectors_config={})
    embedded.signal(signal.SIGINT)
    assert embedded.wait() == 0


def test_overwrites_leave_the_disk_bounded(embedded: Embedded) -> None:
    """Twenty times the same 300 profiles: what they leave behind is given back, not kept."""
    client = embedded.client()
    client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(4)
    for version in range(20):
        client.upsert("p", [profile(number, version, rng, int(rng.integers(6000, 9000))) for number in range(300)])
    live = 300 * (12_000 + 5 * 384 * 2)
    write_ahead_log = 100 << 20  # three preallocated files of 32 MB at most
    assert client.count("p").count == 300
    written = 20 * live
    assert embedded.bytes_on_disk() - write_ahead_log < written / 3


def test_deletions_are_given_back_when_nobody_writes(embedded: Embedded) -> None:
    client = embedded.client()
    client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    rng = np.random.default_rng(5)
    client.upsert("p", [profile(number, 1, rng) for number in range(2000)])
    full = embedded.bytes_on_disk()
    client.delete("p", [str(uuid.UUID(int=number + 1)) for number in range(100, 2000)])
    deadline = time.monotonic() + 60
    while embedded.bytes_on_disk() > full - 10_000_000:
        assert wait_until(deadline), f"{full} bytes before, {embedded.bytes_on_disk()} after"
    assert client.count("p").count == 100
    (kept,) = client.retrieve("p", [str(uuid.UUID(int=50))], with_payload=["due"], with_vectors=["long"])
    assert kept.payload == {"due": 49}


async def test_a_point_built_on_the_wire_is_read_back(embedded: Embedded) -> None:
    """As the sinks write: packed bytes, never lists; and an async client with protobuf points."""
    client = embedded.async_client()
    await client.create_collection("p", vectors_config=PROFILE, hnsw_config=NO_GRAPH)
    vector = np.zeros(384, np.float32)
    vector[3] = 2.0
    dense = wire.DenseVector.FromString(b"\x0a\x80\x0c" + vector.tobytes())
    named = wire.NamedVectors(vectors={"long": wire.Vector(dense=dense)})
    point = wire.PointStruct(id=wire.PointId(num=1), vectors=wire.Vectors(vectors=named))
    point.payload["state"].string_value = "c3RhdGU="
    await client.grpc_points.Upsert(wire.UpsertPoints(collection_name="p", wait=True, points=[point]))
    (found,) = await client.retrieve("p", [1], with_vectors=["long"])
    assert found.payload == {"state": "c3RhdGU="}
    assert isinstance(found.vector, dict)
    values = found.vector["long"]
    assert isinstance(values, list)
    assert values[2:5] == [0.0, 1.0, 0.0]
