"""Collections on disk: one engine shard each, and one small catalogue file that names them.

    DATA_DIR/lock             held while a process serves the folder; says which process
    DATA_DIR/catalogue.json   collections (folder, configuration) and aliases; replaced atomically, synced
    DATA_DIR/collections/ID   one shard of the engine

A collection is made before the catalogue names it and unmade after the catalogue has forgotten it, so a crash in
between leaves only a folder that nobody names, which the next start removes.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

import qdrant_edge as edge
from google.protobuf import json_format  # type: ignore[import-untyped]
from qdrant_client import grpc as wire

from deploy.qdrant import refusals
from deploy.qdrant.packing import PACKED, VECTORS, Contents, fields_in, fields_of, vectors_in
from deploy.qdrant.points import Layout, PointId, opened_vectors, plain_payload
from deploy.qdrant.schemas import check_name, described, engine_configuration, may_pack_vectors, vector_slots

log = logging.getLogger(__name__)

FORMAT = 2
"""Of a folder: what is packed, and how."""

COMFORTABLE_POINTS = 100_000
UNFLUSHED_BYTES = 32 << 20
"""Written between two flushes, at most. What overwrites leave behind is freed by a flush, and everyone waits for it and
for the disk. At 2,000 profiles a second this is once a second, as often as it is done anyhow; with a quarter of it, a
stream of writes took a third longer.
"""

MIN_POINT_BYTES = 1024
"""What a small point counts for."""

POINTS_A_STEP = 16
"""Points worked on before others get a turn: a millisecond or two."""

IDS_A_STEP = 128

Step = edge.UpdateOperation | None
"""A step of a write: an operation to apply, or None where only work that comes before the first one was done."""

_T = TypeVar("_T")


class FolderInUse(Exception):
    """Another process serves this data folder."""


class UnreadableFolder(Exception):
    """The data folder isn't what this version wrote."""


def steps(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Consecutive slices."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def others_first() -> None:
    """Give waiting requests a turn: between two steps of a large one."""
    await asyncio.sleep(0)


class Collection:
    """One shard, its configuration, and the order of its writes.

    Reads go straight to `shard`: they see every finished step of a write in progress. Writes go through `write`,
    one after another. Only the event loop's thread may touch a collection.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        shard: edge.EdgeShard,
        configuration: wire.CreateCollection,
        created_at_ms: int,
        open_fields: Iterable[str],
        save: Callable[[], None],
    ) -> None:
        self.name = name
        self.folder = folder
        self.shard = shard
        self.configuration = configuration
        self.created_at_ms = created_at_ms
        self.laid_open = set(open_fields)
        slots = vector_slots(configuration)
        self.layout = Layout(slots, may_pack_vectors(configuration, slots), set(open_fields))
        self.unflushed = 0
        self.first_unflushed_at = 0.0
        self.last_write_at = time.monotonic()
        self.deletions = 0
        self._writing = asyncio.Lock()
        self._operations = 0
        self._save = save
        self.closed = False

    async def write(self, steps_of_it: Iterator[Step], bytes_a_step: int) -> int:
        """Take the steps of a write in order, no other write in between but reads after each; the write's number.

        Preparing is a part of the write, so that however many are sent at once, a read waits for one step of one of
        them. Every refusal must come before the first operation. `bytes_a_step`: about how many each writes.
        """
        async with self._writing:
            for operation in steps_of_it:
                if self.closed:
                    raise refusals.no_collection(self.name)
                if operation is not None:
                    self._apply(operation, bytes_a_step)
                await others_first()
            self._operations += 1
            return self._operations

    def _apply(self, operation: edge.UpdateOperation, size: int) -> None:
        self.shard.update(operation)
        self.last_write_at = time.monotonic()
        if not self.unflushed:
            self.first_unflushed_at = self.last_write_at
        self.unflushed += size
        if self.unflushed >= UNFLUSHED_BYTES:
            self.flush()

    async def lay_open(self, paths: Iterable[str]) -> None:
        """Before a request looks inside payload fields, changes them, or looks at vectors (`VECTORS`): unpack them in
        every point, once and for good.

        Atomic against writes. After a crash in the middle it is done again when somebody next looks.
        """
        fields = fields_of(paths)
        if not fields <= self.laid_open:
            await self.write(self._laying_open(fields), POINTS_A_STEP * MIN_POINT_BYTES)

    def _laying_open(self, fields: set[str]) -> Iterator[Step]:
        if fields <= self.laid_open:  # by the write before this one
            return
        self.layout.open_fields |= fields  # from here on nothing is packed that isn't unpacked below
        offset: PointId | None = None
        while True:
            records, offset = self.shard.scroll(
                edge.ScrollRequest(offset=offset, limit=IDS_A_STEP, with_payload=True, with_vector=False)
            )
            yield None
            for record in records:
                yield self._opened(record, fields)
            if offset is None:
                break
        self.laid_open |= fields
        self._save()

    def _opened(self, record: edge.Record, fields: set[str]) -> Step:
        payload = dict(record.payload or {})
        packed = payload.pop(PACKED, None)
        if not isinstance(packed, str):
            return None
        vectors = vectors_in(packed)
        opened, kept = Contents(fields_in(packed), vectors).divided(fields)
        payload |= {**plain_payload(opened.payload), PACKED: kept.packed()}
        if vectors and VECTORS in fields:
            whole = edge.Point(record.id, opened_vectors(vectors, self.layout.slots), payload)
            return edge.UpdateOperation.upsert_points([whole])
        # Not set_payload, which takes a null for a field to be removed.
        return edge.UpdateOperation.overwrite_payload([record.id], payload) if opened.payload else None

    def matching(self, condition: edge.Filter) -> list[PointId]:
        """Ids of every point that matches."""
        ids: list[PointId] = []
        offset: PointId | None = None
        while True:
            records, offset = self.shard.scroll(
                edge.ScrollRequest(offset=offset, limit=10_000, filter=condition, with_payload=False, with_vector=False)
            )
            ids.extend(record.id for record in records)
            if offset is None:
                return ids

    def flush(self) -> None:
        """Sync to disk; frees what overwrites left behind, in files and in the write-ahead log."""
        self.shard.flush()
        self.unflushed = 0

    def compact(self) -> bool:
        """Give back the space of deleted points, if they are many; True if that was so. Stalls everyone."""
        self.flush()
        self.deletions = 0
        compacted = self.shard.optimize()
        self.flush()  # only then are the old segment's files removed
        return compacted

    def describe(self) -> wire.CollectionInfo:
        return described(self.configuration, self.shard.info(), self.created_at_ms)

    async def close(self) -> None:
        """After the writes under way; those that wait find the collection gone."""
        async with self._writing:
            self.closed = True
            self.shard.flush()
            self.shard.close()


@dataclass
class _Entry:
    folder: str
    created_at_ms: int
    configuration: dict[str, object]
    open_fields: list[str] = field(default_factory=list)


class Catalogue:
    """Every collection and alias of a data folder. Names may be real names or aliases unless said otherwise."""

    def __init__(self, data_dir: Path) -> None:
        """Take the folder (made if need be), load what it holds.

        Raises `FolderInUse`, `UnreadableFolder`, `OSError`.
        """
        self._data_dir = data_dir
        self._shards_dir = data_dir / "collections"
        self._shards_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _take(data_dir / "lock")
        self._collections: dict[str, Collection] = {}
        self._aliases: dict[str, str] = {}
        self._load()

    def __iter__(self) -> Iterator[Collection]:
        return iter(list(self._collections.values()))

    def find(self, name: str) -> Collection | None:
        return self._collections.get(self._aliases.get(name, name))

    def get(self, name: str) -> Collection:
        """Raises `Refused` (NOT_FOUND)."""
        collection = self.find(name)
        if collection is None:
            raise refusals.no_collection(name)
        return collection

    def create(self, configuration: wire.CreateCollection) -> None:
        """Raises `Refused`: ALREADY_EXISTS, or INVALID_ARGUMENT for a bad name, an alias's name, a bad vector."""
        name = configuration.collection_name
        check_name(name)
        if name in self._collections:
            raise refusals.collection_exists(name)
        if name in self._aliases:
            raise refusals.invalid(f"Can't create collection with name {name}. Alias with the same name already exists")
        engine = engine_configuration(configuration)
        folder = self._shards_dir / uuid.uuid4().hex
        shard = edge.EdgeShard.create(str(folder), engine)
        shard.flush()
        kept = wire.CreateCollection()
        kept.CopyFrom(configuration)
        created_at_ms = time.time_ns() // 1_000_000
        self._collections[name] = Collection(name, folder, shard, kept, created_at_ms, (), self._save)
        try:
            self._save()
        except OSError:
            del self._collections[name]
            raise

    def reconfigure(self, request: wire.UpdateCollection) -> None:
        """Keep changed settings and metadata (merged; an empty value removes nothing), for `describe` to show."""
        configuration = self.get(request.collection_name).configuration
        configuration.hnsw_config.MergeFrom(request.hnsw_config)
        configuration.optimizers_config.MergeFrom(request.optimizers_config)
        for key, value in request.metadata.items():
            configuration.metadata[key].CopyFrom(value)
        self._save()

    async def delete(self, name: str) -> bool:
        """By real name, with its aliases; False where there is none."""
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}
        self._save()
        await asyncio.shield(asyncio.create_task(_remove(collection)))  # finished even if the caller goes
        return True

    def aliases(self, of: str | None = None) -> list[tuple[str, str]]:
        """(alias, real name), sorted; those of one collection if asked."""
        return sorted((alias, target) for alias, target in self._aliases.items() if of in (None, target))

    def change_aliases(self, actions: Sequence[wire.AliasOperations]) -> None:
        """All of them or none. Creating over an existing alias repoints it; deleting a missing one is no error.

        Raises `Refused`: NOT_FOUND for a missing collection or alias to rename, ALREADY_EXISTS for an alias that
        is a collection's name.
        """
        before = self._aliases
        self._aliases = dict(before)
        try:
            for action in actions:
                self._change_alias(action)
            self._save()
        except (refusals.Refused, OSError):
            self._aliases = before
            raise

    def _change_alias(self, action: wire.AliasOperations) -> None:
        kind = action.WhichOneof("action")
        if kind == "create_alias":
            alias, target = action.create_alias.alias_name, action.create_alias.collection_name
            if target not in self._collections:
                raise refusals.no_collection(target)
            check_name(alias)
            if alias in self._collections:
                raise refusals.collection_exists(alias)
            self._aliases[alias] = target
        elif kind == "delete_alias":
            self._aliases.pop(action.delete_alias.alias_name, None)
        elif kind == "rename_alias":
            old, new = action.rename_alias.old_alias_name, action.rename_alias.new_alias_name
            if old not in self._aliases:
                raise refusals.not_found(f"Alias {old} does not exists!")
            check_name(new)
            if new in self._collections:
                raise refusals.collection_exists(new)
            self._aliases[new] = self._aliases.pop(old)
        else:
            raise refusals.invalid("an alias operation has no action")

    async def close(self) -> None:
        """Flush everything and give the folder back."""
        for collection in self:
            await collection.close()
        self._lock.close()

    def _load(self) -> None:
        path = self._data_dir / "catalogue.json"
        entries: dict[str, _Entry] = {}
        if path.exists():
            try:
                content = json.loads(path.read_bytes())
                if content.get("format") != FORMAT:
                    raise UnreadableFolder(
                        f"{path} was written by another version; move it away to start empty, and replay the topics"
                    )
                entries = {name: _Entry(**entry) for name, entry in content["collections"].items()}
                self._aliases = dict(content["aliases"])
            except (ValueError, TypeError, KeyError) as error:
                raise UnreadableFolder(f"{path} can't be read ({error}); move it away to start empty") from error
        for name, entry in entries.items():
            self._collections[name] = self._open(name, entry)
        named = {entry.folder for entry in entries.values()}
        for folder in self._shards_dir.iterdir():
            if folder.name not in named:
                log.info("removing %s: no collection has this folder", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _open(self, name: str, entry: _Entry) -> Collection:
        folder = self._shards_dir / entry.folder
        try:
            shard = edge.EdgeShard.load(str(folder))
        except Exception as error:
            raise UnreadableFolder(f"collection {name!r} in {folder} can't be loaded: {error}") from error
        configuration = json_format.ParseDict(entry.configuration, wire.CreateCollection())
        points = shard.info().points_count
        if points > COMFORTABLE_POINTS:
            log.warning(
                "collection %r has %d points: the embedded Qdrant searches by brute force and is good to %d; "
                "use a Qdrant server (--qdrant) for more",
                name,
                points,
                COMFORTABLE_POINTS,
            )
        collection = Collection(name, folder, shard, configuration, entry.created_at_ms, entry.open_fields, self._save)
        collection.deletions = 1  # how many there were isn't kept: look once
        return collection

    def _save(self) -> None:
        content = {
            "format": FORMAT,
            "aliases": self._aliases,
            "collections": {
                name: vars(
                    _Entry(
                        collection.folder.name,
                        collection.created_at_ms,
                        json_format.MessageToDict(collection.configuration, preserving_proto_field_name=True),
                        sorted(collection.laid_open),
                    )
                )
                for name, collection in self._collections.items()
            },
        }
        replace_file(self._data_dir / "catalogue.json", json.dumps(content, indent=1).encode())


async def _remove(collection: Collection) -> None:
    await collection.close()
    shutil.rmtree(collection.folder, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Whole or not at all, and on disk when this returns."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take(path: Path) -> TextIO:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise FolderInUse(
            f"{path.parent} is served by another process (pid {holder}): stop that one, or take another --data-dir"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
