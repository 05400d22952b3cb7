"""What profiles take on Qdrant's disk: written by its own engine, as a server keeps them.

The embedded Qdrant packs payloads for itself (`deploy.qdrant.packing`), a server doesn't: here the engine is given them
plain, and keeps them as JSON, compressed (LZ4), in blocks; vectors as float16. The write-ahead log and
indexes are left out: the former is of bounded size, the latter are a few bytes a profile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import cramjam
import orjson
import qdrant_edge as edge
from benchmarks.vectors import Vectors

from sinks.wire import JSON

_FOLDERS: Final = ("payload_storage", "vector_storage")
_POINTS_A_WRITE: Final = 64
_COPIES: Final = 1024  # of one profile, to take its size: files grow in steps
_BYTES_A_BLOCK: Final = 512  # of `st_blocks`


class Kept(NamedTuple):
    """A profile's vectors and payload."""

    vectors: Mapping[str, Vectors]
    payload: Mapping[str, JSON]

    @property
    def bytes_of_vectors(self) -> int:
        return 2 * sum(vector.size for vector in self.vectors.values())

    @property
    def size(self) -> int:
        """Nearly what it takes, to tell who is the median: without the room that blocks leave."""
        return len(bytes(cramjam.lz4.compress_block(orjson.dumps(self.payload)))) + self.bytes_of_vectors


def bytes_of(profiles: Sequence[Kept]) -> float:
    """On disk, a profile; the mean of all."""
    with tempfile.TemporaryDirectory() as folder:
        shard = edge.EdgeShard.create(folder, _configuration(profiles))
        points = [
            edge.Point(UUID(int=number), {name: vector.tolist() for name, vector in one.vectors.items()}, one.payload)
            for number, one in enumerate(profiles, 1)
        ]
        for start in range(0, len(points), _POINTS_A_WRITE):
            shard.update(edge.UpdateOperation.upsert_points(points[start : start + _POINTS_A_WRITE]))
        shard.flush()
        taken = sum(file.stat().st_blocks * _BYTES_A_BLOCK for file in _files(Path(folder)))
        shard.close()
    return taken / len(profiles)


def bytes_of_one(profile: Kept) -> float:
    """On disk."""
    return bytes_of([profile] * _COPIES)


def _files(folder: Path) -> Iterator[Path]:
    return (
        file
        for file in folder.rglob("*")
        if file.is_file() and any(part.startswith(_FOLDERS) for part in file.relative_to(folder).parts)
    )


def _configuration(profiles: Sequence[Kept]) -> edge.EdgeConfig:
    vectors = {name: vector for one in profiles for name, vector in one.vectors.items()}
    return edge.EdgeConfig(
        vectors={name: _vector(vector) for name, vector in vectors.items()},
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=2**32),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
    )


def _vector(example: Vectors) -> edge.EdgeVectorParams:
    """As `sinks.opening` has it made: [d] or several, [k, d]."""
    return edge.EdgeVectorParams(
        size=example.shape[-1],
        distance=edge.Distance.Cosine,
        datatype=edge.VectorStorageDatatype.Float16,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if example.ndim == 2 else None,
    )
