"""Filters and selectors from the wire to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as wire

from deploy.qdrant.answers import Selection
from deploy.qdrant.packing import PACKED_PATH, fields_of
from deploy.qdrant.points import Layout, point_ids
from deploy.qdrant.refusals import invalid, unserved

Condition = (
    edge.FieldCondition
    | edge.IsEmptyCondition
    | edge.IsNullCondition
    | edge.HasIdCondition
    | edge.HasVectorCondition
    | edge.NestedCondition
    | edge.Filter
)
Match = (
    edge.MatchValue
    | edge.MatchText
    | edge.MatchTextAny
    | edge.MatchPhrase
    | edge.MatchPrefix
    | edge.MatchSubstring
    | edge.MatchAny
    | edge.MatchExcept
)


def engine_filter(message: wire.Filter) -> edge.Filter:
    """Raises `Refused` (INVALID_ARGUMENT) or `ValueError` for what no server would accept."""
    return edge.Filter(
        must=_conditions(message.must),
        should=_conditions(message.should),
        must_not=_conditions(message.must_not),
        min_should=edge.MinShould(
            [_condition(condition) for condition in message.min_should.conditions], message.min_should.min_count
        )
        if message.HasField("min_should")
        else None,
    )


def optional_filter(owner: wire.ScrollPoints, field: str = "filter") -> edge.Filter | None:
    """The filter of a message that may have none."""
    return engine_filter(getattr(owner, field)) if owner.HasField(field) else None


def _conditions(messages: list[wire.Condition]) -> list[Condition] | None:
    return [_condition(message) for message in messages] or None


def _condition(message: wire.Condition) -> Condition:
    kind = message.WhichOneof("condition_one_of")
    if kind == "field":
        return _field(message.field)
    if kind == "has_id":
        return edge.HasIdCondition(set(point_ids(message.has_id.has_id)))
    if kind == "is_empty":
        return edge.IsEmptyCondition(message.is_empty.key)
    if kind == "is_null":
        return edge.IsNullCondition(message.is_null.key)
    if kind == "filter":
        return engine_filter(message.filter)
    if kind == "nested":
        return edge.NestedCondition(message.nested.key, engine_filter(message.nested.filter))
    if kind == "has_vector":
        return edge.HasVectorCondition(message.has_vector.has_vector)
    if kind == "slice":
        raise unserved("slice conditions")
    raise invalid("a filter has an empty condition")


_MATCHES: Mapping[str, Callable[[wire.Match], Match]] = {
    "keyword": lambda match: edge.MatchValue(match.keyword),
    "integer": lambda match: edge.MatchValue(match.integer),
    # The engine takes Python's True for the number 1, which no boolean equals; numpy's is no number.
    "boolean": lambda match: edge.MatchValue(np.bool_(match.boolean)),  # type: ignore[arg-type]
    "text": lambda match: edge.MatchText(match.text),
    "text_any": lambda match: edge.MatchTextAny(match.text_any),
    "phrase": lambda match: edge.MatchPhrase(match.phrase),
    "prefix": lambda match: edge.MatchPrefix(match.prefix),
    "substring": lambda match: edge.MatchSubstring(match.substring),
    "keywords": lambda match: edge.MatchAny(list(match.keywords.strings)),
    "integers": lambda match: edge.MatchAny(list(match.integers.integers)),
    "except_keywords": lambda match: edge.MatchExcept(list(match.except_keywords.strings)),
    "except_integers": lambda match: edge.MatchExcept(list(match.except_integers.integers)),
}


def _field(message: wire.FieldCondition) -> edge.FieldCondition:
    key = message.key
    if message.HasField("match"):
        kind = message.match.WhichOneof("match_value")
        if kind is None:
            raise invalid(f"the match on {key!r} has no value")
        return edge.FieldCondition(key, match=_MATCHES[kind](message.match))
    if message.HasField("range"):
        return edge.FieldCondition(key, range=edge.RangeFloat(**_bounds(message.range)))
    if message.HasField("datetime_range"):
        bounds = {name: time.ToJsonString() for name, time in _bounds(message.datetime_range).items()}
        return edge.FieldCondition(key, range=edge.RangeDateTime(**bounds))
    if message.HasField("geo_bounding_box"):
        box = message.geo_bounding_box
        return edge.FieldCondition(
            key, geo_bounding_box=edge.GeoBoundingBox(_geo(box.top_left), _geo(box.bottom_right))
        )
    if message.HasField("geo_radius"):
        radius = message.geo_radius
        return edge.FieldCondition(key, geo_radius=edge.GeoRadius(_geo(radius.center), radius.radius))
    if message.HasField("geo_polygon"):
        polygon = message.geo_polygon
        return edge.FieldCondition(
            key,
            geo_polygon=edge.GeoPolygon(_ring(polygon.exterior), [_ring(ring) for ring in polygon.interiors]),
        )
    if message.HasField("values_count"):
        return edge.FieldCondition(key, values_count=edge.ValuesCount(**_bounds(message.values_count)))
    if message.HasField("is_empty"):
        return edge.FieldCondition(key, is_empty=message.is_empty)
    if message.HasField("is_null"):
        return edge.FieldCondition(key, is_null=message.is_null)
    raise invalid(f"the condition on {key!r} says nothing")


def _bounds(message: wire.Range) -> dict[str, wire.Timestamp]:
    return {name: getattr(message, name) for name in ("lt", "gt", "gte", "lte") if message.HasField(name)}


def _geo(message: wire.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(message.lon, message.lat)


def _ring(message: wire.GeoLineString) -> list[edge.GeoPoint]:
    return [_geo(point) for point in message.points]


def selection(owner: wire.GetPoints, layout: Layout, unset: bool) -> Selection:
    """`with_payload` and `with_vectors` of a message; `unset`: what the server takes where no payload is spoken of."""
    vectors = _vectors_selector(owner)
    some_vectors = bool(vectors) and layout.may_pack_vectors
    kind = owner.with_payload.WhichOneof("selector_options") if owner.HasField("with_payload") else None
    if kind == "include":
        paths = list(owner.with_payload.include.fields)
        included = fields_of(paths)
        if some_vectors or not included <= layout.open_fields:
            paths.append(PACKED_PATH)
        return Selection(paths, vectors, included.__contains__)
    if kind == "exclude":
        paths = list(owner.with_payload.exclude.fields)
        excluded = fields_of(paths)
        return Selection(edge.PayloadSelector.Exclude(paths), vectors, lambda name: name not in excluded)
    if owner.with_payload.enable if kind == "enable" else unset:
        return Selection(True, vectors, None)
    return Selection([PACKED_PATH] if some_vectors else False, vectors, lambda _: False)


def _vectors_selector(owner: wire.GetPoints) -> bool | list[str]:
    if not owner.HasField("with_vectors"):
        return False  # nothing said: none
    selector = owner.with_vectors
    if selector.WhichOneof("selector_options") == "include":
        return list(selector.include.names)
    return bool(selector.enable)
