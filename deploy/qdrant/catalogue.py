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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import qdrant_edge as edge
from google.protobuf import json_format  # type: ignore[import-untyped]
from qdrant_client import grpc as wire

from deploy.qdrant import refusals
from deploy.qdrant.collection import Collection
from deploy.qdrant.schemas import check_name, engine_configuration

log = logging.getLogger(__name__)

FORMAT = 2
"""Of a folder: what is packed, and how."""

COMFORTABLE_POINTS = 100_000


class FolderInUse(Exception):
    """Another process serves this data folder."""


class UnreadableFolder(Exception):
    """The data folder isn't what this version wrote."""


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
