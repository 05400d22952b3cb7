import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc as qdrant
from qdrant_client.conversions.conversion import payload_to_grpc

from sinks.points import interests_value, payload_point, product_point, profile_point
from sinks.stored import read_profile, read_vectors
from sinks.wire import JSON, dense_vector, value_of, wire_value

ID = "5622e1c5-c11e-4bbf-8bfc-cd94ccbc2d80"
LONG = np.array([0.6, 0.8], np.float32)
SHORT = np.array([1, 0], np.float32)
INTERESTS = np.array([[1, 0], [0, 1], [0.6, -0.8]], np.float32)

PROFILE = {
    "state": b"\x00\xffledgers",
    "due": 1_764_000_000_123,
    "pending": ["85123A", "22423"],
    "partition": 3,
    "known": 0.25,
    "n_searches": 7,
    "n_purchases": 130,
    "last_search_ts": 1_763_000_000_000,
    "last_purchase_ts": 1_763_500_000_000,
    "made_at": 1_763_999_999_999,
    "made_from": (-3.5, 12.0),
    "interests": [{"share": 0.75, "texts": ["Überraschungs-Tüte", "päron"]}, {"share": 0.25, "texts": []}],
    "candidates": [{"product_id": "22423", "title": "REGENCY CAKESTAND", "score": 1.5, "because": "like päron"}],
}


def retrieved(wire: bytes) -> qdrant.RetrievedPoint:
    point = qdrant.PointStruct.FromString(wire)
    return qdrant.RetrievedPoint(
        id=point.id,
        payload=dict(point.payload),
        vectors=qdrant.VectorsOutput.FromString(point.vectors.SerializeToString()),
    )


def test_a_profile_is_the_message_that_protobuf_would_build() -> None:
    by_hand = qdrant.PointStruct.FromString(profile_point(ID, 2**53 - 1, LONG, SHORT, INTERESTS, PROFILE))

    assert by_hand == qdrant.PointStruct(
        id=qdrant.PointId(uuid=ID),
        payload=payload_to_grpc(
            {**PROFILE, "state": base64.b64encode(b"\x00\xffledgers").decode(), "version": 2**53 - 1}
        ),
        vectors=qdrant.Vectors(
            vectors=qdrant.NamedVectors(
                vectors={
                    "long": qdrant.Vector(dense=qdrant.DenseVector(data=[0.6, 0.8])),
                    "short": qdrant.Vector(dense=qdrant.DenseVector(data=[1, 0])),
                    "interests": qdrant.Vector(
                        multi_dense=qdrant.MultiDenseVector(
                            vectors=[
                                qdrant.DenseVector(data=[1, 0]),
                                qdrant.DenseVector(data=[0, 1]),
                                qdrant.DenseVector(data=[0.6, -0.8]),
                            ]
                        )
                    ),
                }
            )
        ),
    )


def test_the_fields_of_a_profile_for_readers_in_any_language() -> None:
    point = qdrant.PointStruct.FromString(profile_point(ID, 5, LONG, SHORT, INTERESTS, PROFILE))
    kinds = {name: value.WhichOneof("kind") for name, value in point.payload.items()}
    assert kinds == {
        "version": "integer_value",
        "state": "string_value",
        "due": "integer_value",
        "pending": "list_value",
        "partition": "integer_value",
        "known": "double_value",
        "n_searches": "integer_value",
        "n_purchases": "integer_value",
        "last_search_ts": "integer_value",
        "last_purchase_ts": "integer_value",
        "made_at": "integer_value",
        "made_from": "list_value",
        "interests": "list_value",
        "candidates": "list_value",
    }


def test_what_was_written_is_read() -> None:
    stored = read_profile(retrieved(profile_point(ID, 5, LONG, SHORT, INTERESTS, PROFILE)))

    assert (stored.id, stored.version, stored.state) == (ID, 5, b"\x00\xffledgers")
    assert stored.pending == ("85123A", "22423")
    assert stored.interests == PROFILE["interests"]
    assert stored.candidates == PROFILE["candidates"]
    scalars = set(PROFILE) - {"state", "pending", "interests", "candidates"}
    assert {name: getattr(stored, name) for name in scalars} == {name: PROFILE[name] for name in scalars}
    np.testing.assert_array_equal(stored.vectors["long"], LONG)
    np.testing.assert_array_equal(stored.vectors["short"], SHORT)
    np.testing.assert_array_equal(stored.vectors["interests"], INTERESTS)


def test_what_is_absent_stays_absent() -> None:
    wire = profile_point(ID, 5, None, None, None, {"state": b""})
    point = qdrant.PointStruct.FromString(wire)
    assert sorted(point.payload) == ["state", "version"]
    assert point.HasField("vectors")  # Qdrant refuses a point without the field
    stored = read_profile(retrieved(wire))
    assert (stored.due, stored.pending, stored.last_search_ts, stored.made_at) == (None, (), None, None)
    assert (stored.interests, stored.candidates, dict(stored.vectors)) == ([], [], {})


def test_a_value_is_carried_from_read_to_write_unopened() -> None:
    stored = read_profile(retrieved(profile_point(ID, 5, LONG, SHORT, INTERESTS, PROFILE)))
    again = read_profile(retrieved(profile_point(ID, 6, None, None, None, {"candidates": stored.candidates_value})))
    assert again.candidates == PROFILE["candidates"]
    assert wire_value(PROFILE["candidates"]).decoded() == PROFILE["candidates"]  # type: ignore[arg-type]


def test_interests_are_the_value_that_any_list_of_them_would_be() -> None:
    for interests in ([], [(1.0, ())], [(0.75, ("oak chair", "Ünï")), (0.0, ("tin",) * 300)]):
        listed: JSON = [{"share": share, "texts": list(texts)} for share, texts in interests]
        assert interests_value(interests) == wire_value(listed)


def test_a_point_of_somebody_else_is_not_taken_for_a_profile() -> None:
    with pytest.raises(ValueError, match=f"{ID} of the profiles has no version"):
        read_profile(qdrant.RetrievedPoint(id=qdrant.PointId(uuid=ID)))


def test_vectors_in_the_field_of_older_servers_are_read() -> None:
    outputs = {
        "long": qdrant.VectorOutput(data=[0.6, 0.8]),
        "interests": qdrant.VectorOutput(data=[1, 0, 0, 1, 0.6, -0.8], vectors_count=3),
    }
    vectors = qdrant.VectorsOutput(vectors=qdrant.NamedVectorsOutput(vectors=outputs))
    read = read_vectors(qdrant.RetrievedPoint(vectors=vectors))
    np.testing.assert_array_equal(read["long"], LONG)
    np.testing.assert_array_equal(read["interests"], INTERESTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["long", "short", "interests"])
def test_a_vector_that_is_not_finite_never_leaves(name: str, bad: float) -> None:
    vectors = {"long": LONG.copy(), "short": SHORT.copy(), "interests": INTERESTS.copy()}
    vectors[name].flat[-1] = bad
    with pytest.raises(ValueError, match=f"'{name}' is not finite"):
        profile_point(ID, 5, **vectors, payload={})


def test_vectors_of_a_profile_have_one_dimension() -> None:
    with pytest.raises(ValueError, match=r"different dimensions: \[2, 3\]"):
        profile_point(ID, 5, LONG, np.zeros(3, np.float32), None, {})


def test_a_batch_is_not_taken_for_a_vector() -> None:
    with pytest.raises(ValueError, match=r"'long' has shape \(3, 2\)"):
        profile_point(ID, 5, INTERESTS, None, None, {})
    with pytest.raises(ValueError, match=r"'interests' have shape \(2,\)"):
        profile_point(ID, 5, None, None, LONG, {})


def test_other_layouts_and_float64_are_sent_as_contiguous_float32() -> None:
    column = np.asfortranarray(np.array([[0.6, 9], [0.8, 9]]))[:, 0]
    point = qdrant.PointStruct.FromString(product_point(ID, 5, column, {}))  # type: ignore[arg-type]
    assert list(point.vectors.vectors.vectors["text"].dense.data) == [np.float32(0.6), np.float32(0.8)]


def test_a_product_that_is_gone_is_never_available() -> None:
    with pytest.raises(ValueError, match="deleted, or has no vector, can't be available"):
        product_point(ID, 5, LONG, {"available": True, "deleted": True})
    with pytest.raises(ValueError, match="deleted, or has no vector, can't be available"):
        product_point(ID, 5, None, {"available": True})
    product_point(ID, 5, None, {"available": False, "deleted": True})


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=2100))
def test_a_dense_vector_holds_the_numbers_of_the_array(numbers: list[float]) -> None:
    assert dense_vector(np.array(numbers, np.float32)) == qdrant.DenseVector(data=numbers)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "version"), json_values, max_size=5))
def test_any_payload_is_the_message_that_the_client_would_build(payload: dict[str, object]) -> None:
    point = qdrant.PointStruct.FromString(payload_point(ID, 5, payload))  # type: ignore[arg-type]
    assert point.payload == qdrant.PointStruct(payload=payload_to_grpc({**payload, "version": 5})).payload
    assert {name: value_of(value) for name, value in point.payload.items()} == {**payload, "version": 5}


@given(st.integers(0, 40_000))
def test_lengths_of_any_size_are_framed(length: int) -> None:
    point = qdrant.PointStruct.FromString(payload_point(ID, 5, {"state": bytes(length)}))
    assert base64.b64decode(point.payload["state"].string_value) == bytes(length)


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON has no such number"):
        payload_point(ID, 5, {"share": float("nan")})
    with pytest.raises(ValueError, match="64 bits"):
        payload_point(ID, 5, {"due": 2**63})
    with pytest.raises(TypeError, match="float32 can't be a payload value"):
        payload_point(ID, 5, {"share": np.float32(0.5)})  # type: ignore[dict-item]
