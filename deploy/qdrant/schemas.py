"""What a collection is: its configuration from the wire to the engine, and back as the server describes it."""

from __future__ import annotations

from collections.abc import Mapping

import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant.points import DEFAULT_VECTOR, VectorSlot, VectorSlots
from deploy.qdrant.refusals import invalid, unserved

_DISTANCES = {
    wire.Cosine: edge.Distance.Cosine,
    wire.Dot: edge.Distance.Dot,
    wire.Euclid: edge.Distance.Euclid,
    wire.Manhattan: edge.Distance.Manhattan,
}
_DATATYPES = {
    wire.Default: edge.VectorStorageDatatype.Float32,
    wire.Float32: edge.VectorStorageDatatype.Float32,
    wire.Float16: edge.VectorStorageDatatype.Float16,
    wire.Uint8: edge.VectorStorageDatatype.Uint8,
}
_STORED = {wire.Default: "<f4", wire.Float32: "<f4", wire.Float16: "<f2"}
_FIELD_TYPES = {
    wire.FieldTypeKeyword: edge.PayloadSchemaType.Keyword,
    wire.FieldTypeInteger: edge.PayloadSchemaType.Integer,
    wire.FieldTypeFloat: edge.PayloadSchemaType.Float,
    wire.FieldTypeGeo: edge.PayloadSchemaType.Geo,
    wire.FieldTypeText: edge.PayloadSchemaType.Text,
    wire.FieldTypeBool: edge.PayloadSchemaType.Bool,
    wire.FieldTypeDatetime: edge.PayloadSchemaType.Datetime,
    wire.FieldTypeUuid: edge.PayloadSchemaType.Uuid,
}
_TOKENIZERS = {
    wire.TokenizerType.Value("Prefix"): edge.TokenizerType.Prefix,
    wire.TokenizerType.Value("Whitespace"): edge.TokenizerType.Whitespace,
    wire.TokenizerType.Value("Word"): edge.TokenizerType.Word,
    wire.TokenizerType.Value("Multilingual"): edge.TokenizerType.Multilingual,
    wire.TokenizerType.Value("Code"): edge.TokenizerType.Code,
}
_WIRE_TYPES = {
    "Keyword": wire.Keyword,
    "Integer": wire.Integer,
    "Float": wire.Float,
    "Geo": wire.Geo,
    "Text": wire.Text,
    "Bool": wire.Bool,
    "Datetime": wire.Datetime,
    "Uuid": wire.Uuid,
}

MAX_NAME_LENGTH = 255
_UNUSED_VECTOR = "unused"
"""What the engine is given for a collection of payloads only: it wants at least one vector. No request can name it."""

_FORBIDDEN_IN_NAMES = frozenset('<>:"/\\|?*\0\x1f')


def check_name(name: str) -> None:
    """A collection's or alias's name, by the server's rules; raises `Refused` (INVALID_ARGUMENT)."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise invalid(f"a collection's name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
    forbidden = sorted(_FORBIDDEN_IN_NAMES & set(name))
    if forbidden:
        raise invalid(f"the name {name!r} contains {forbidden[0]!r}, which no collection's name may")


def vector_slots(configuration: wire.CreateCollection) -> dict[str, VectorSlot]:
    """What may be stored under which vector name."""
    slots = {
        name: VectorSlot(
            "multi" if params.HasField("multivector_config") else "dense",
            params.size,
            stored=_STORED.get(params.datatype),
            unit=params.distance == wire.Cosine,
        )
        for name, params in _dense_params(configuration).items()
    }
    for name in configuration.sparse_vectors_config.map:
        slots[name] = VectorSlot("sparse", 0)
    return slots


def may_pack_vectors(configuration: wire.CreateCollection, slots: VectorSlots) -> bool:
    """Whether vectors may be packed: they are named, nothing is to be built for searching them, and all can be."""
    without_graph = configuration.hnsw_config.HasField("m") and configuration.hnsw_config.m == 0
    return without_graph and DEFAULT_VECTOR not in slots and all(slot.stored for slot in slots.values())


def _dense_params(configuration: wire.CreateCollection) -> Mapping[str, wire.VectorParams]:
    vectors = configuration.vectors_config
    kind = vectors.WhichOneof("config")
    if kind == "params":
        return {DEFAULT_VECTOR: vectors.params}
    if kind == "params_map":
        return dict(vectors.params_map.map)
    return {}


def engine_configuration(configuration: wire.CreateCollection) -> edge.EdgeConfig:
    """The engine's configuration of a new collection: the vectors as asked, and never an HNSW graph.

    Raises `Refused`: INVALID_ARGUMENT for a size or distance that no server takes, UNIMPLEMENTED for a datatype
    that this engine lacks.
    """
    dense = {name: _vector(name, params) for name, params in _dense_params(configuration).items()}
    sparse = {
        name: edge.EdgeSparseVectorParams(
            modifier=edge.Modifier.Idf if params.modifier == wire.Modifier.Value("Idf") else None
        )
        for name, params in configuration.sparse_vectors_config.map.items()
    }
    if not dense and not sparse:
        sparse = {_UNUSED_VECTOR: edge.EdgeSparseVectorParams()}
    return edge.EdgeConfig(
        vectors=dense or None,
        sparse_vectors=sparse or None,
        # Building a graph holds the interpreter for a minute at 100,000 points; brute force answers in milliseconds.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=2**32),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
    )


def _vector(name: str, params: wire.VectorParams) -> edge.EdgeVectorParams:
    if not 1 <= params.size <= 65536:
        raise invalid(f"vector {name!r}: size must be between 1 and 65536, not {params.size}")
    distance = _DISTANCES.get(params.distance)
    if distance is None:
        raise invalid(f"vector {name!r}: unknown distance {params.distance}")
    datatype = _DATATYPES.get(params.datatype)
    if datatype is None:
        raise unserved(f"vectors of datatype {wire.Datatype.Name(params.datatype)}")
    return edge.EdgeVectorParams(
        size=params.size,
        distance=distance,
        datatype=datatype,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        if params.HasField("multivector_config")
        else None,
    )


def index_schema(
    request: wire.CreateFieldIndexCollection,
) -> edge.PayloadSchemaType | edge.IntegerIndexParams | edge.KeywordIndexParams | edge.TextIndexParams:
    """A payload index as the engine takes it. What only places it (memory, disk, tenants, HNSW links) is ignored."""
    kind = request.field_index_params.WhichOneof("index_params")
    if kind == "integer_index_params":
        params = request.field_index_params.integer_index_params
        return edge.IntegerIndexParams(
            lookup=params.lookup if params.HasField("lookup") else None,
            range=params.range if params.HasField("range") else None,
        )
    if kind == "keyword_index_params":
        has_prefix = request.field_index_params.keyword_index_params.HasField("prefix")
        return edge.KeywordIndexParams(prefix=has_prefix or None)
    if kind == "text_index_params":
        return _text_schema(request.field_index_params.text_index_params)
    schema = _FIELD_TYPES.get(request.field_type)
    if schema is None or not request.HasField("field_type"):
        raise invalid(f"the index on {request.field_name!r} has no known field type")
    return schema


def _text_schema(params: wire.TextIndexParams) -> edge.TextIndexParams:
    if params.HasField("stopwords") or params.HasField("stemmer"):
        raise unserved("stop words and stemming of a text index")
    given = {
        name: getattr(params, name)
        for name in ("lowercase", "min_token_len", "max_token_len", "phrase_matching", "ascii_folding")
        if params.HasField(name)
    }
    return edge.TextIndexParams(
        tokenizer=_TOKENIZERS.get(params.tokenizer), scoring=params.HasField("scoring") or None, **given
    )


def described(configuration: wire.CreateCollection, state: edge.ShardInfo, created_at_ms: int) -> wire.CollectionInfo:
    """A collection as `get_collection` shows it: settings without effect are reported as they were asked for."""
    info = wire.CollectionInfo(
        status=wire.Green,
        optimizer_status=wire.OptimizerStatus(ok=True),
        segments_count=state.segments_count,
        points_count=state.points_count,
        indexed_vectors_count=state.indexed_vectors_count,
        config=wire.CollectionConfig(
            params=wire.CollectionParams(
                shard_number=configuration.shard_number or 1,
                replication_factor=configuration.replication_factor or 1,
                write_consistency_factor=configuration.write_consistency_factor or 1,
                on_disk_payload=configuration.on_disk_payload or not configuration.HasField("on_disk_payload"),
                vectors_config=configuration.vectors_config,
                sparse_vectors_config=configuration.sparse_vectors_config
                if configuration.HasField("sparse_vectors_config")
                else None,
            ),
            hnsw_config=wire.HnswConfigDiff(
                m=16, ef_construct=100, full_scan_threshold=10000, max_indexing_threads=0, on_disk=False
            ),
            optimizer_config=wire.OptimizersConfigDiff(
                deleted_threshold=0.2,
                vacuum_min_vector_number=1000,
                default_segment_number=0,
                indexing_threshold=0,
                flush_interval_sec=1,
            ),
            wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=configuration.quantization_config
            if configuration.HasField("quantization_config")
            else None,
            strict_mode_config=configuration.strict_mode_config
            if configuration.HasField("strict_mode_config")
            else None,
            metadata=dict(configuration.metadata),
        ),
        payload_schema={field: _index(index) for field, index in state.payload_schema.items()},
    )
    info.config.hnsw_config.MergeFrom(configuration.hnsw_config)
    info.config.optimizer_config.MergeFrom(configuration.optimizers_config)
    info.config.wal_config.MergeFrom(configuration.wal_config)
    info.created_at.FromMilliseconds(created_at_ms)
    return info


def _index(index: edge.PayloadIndexInfo) -> wire.PayloadSchemaInfo:
    name = str(index.data_type).rpartition(".")[2]
    return wire.PayloadSchemaInfo(data_type=_WIRE_TYPES[name], points=index.points)
