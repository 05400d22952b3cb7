"""One suite of behaviours for a Qdrant over gRPC (the embedded service, unless a server's binary is there) and for the
vendor's own local mode: what the embedded service answers is what Qdrant's own code answers.
"""

import uuid
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m

U1, U2, U3 = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def served(qdrant: str) -> Iterator[QdrantClient]:
    host, port = qdrant.split(":")
    client = QdrantClient(host=host, grpc_port=int(port), prefer_grpc=True, check_compatibility=False, timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="module")
def local() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture(params=["served", "local"])
def client(request: pytest.FixtureRequest) -> QdrantClient:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, QdrantClient)
    return found


@pytest.fixture
def name() -> str:
    return f"semantics-{uuid.uuid4().hex}"


@pytest.fixture(params=["with a graph", "without a graph"])
def profiles(client: QdrantClient, name: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection shaped like the profiles: two vectors and a multivector, four points of payload `n` 1 to 4."""
    client.create_collection(
        name,
        hnsw_config=m.HnswConfigDiff(m=0) if request.param == "without a graph" else None,
        vectors_config={
            "long": m.VectorParams(size=3, distance=m.Distance.COSINE, datatype=m.Datatype.FLOAT16),
            "short": m.VectorParams(size=3, distance=m.Distance.DOT),
            "interests": m.VectorParams(
                size=3,
                distance=m.Distance.COSINE,
                multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
                hnsw_config=m.HnswConfigDiff(m=0),
            ),
        },
    )
    client.upsert(
        name,
        [
            point(U1, [1, 0, 0], 1, kind="product"),
            point(U2, [0, 1, 0], 2, kind="product"),
            point(U3, [0, 0, 1], 3, kind="ad"),
            point(7, [1, 1, 0], 4, kind=None),
        ],
    )
    yield name
    client.delete_collection(name)


def point(identity: str | int, vector: list[float], n: int, **payload: object) -> m.PointStruct:
    vectors: dict[str, m.Vector] = {"long": vector, "short": vector, "interests": [vector, [0.0, 0.0, 1.0]]}
    return m.PointStruct(id=identity, vector=vectors, payload={"n": n, **payload})


def field(key: str, match: m.Match) -> m.Filter:
    return m.Filter(must=[m.FieldCondition(key=key, match=match)])


def numbers(client: QdrantClient, name: str) -> dict[m.ExtendedPointId, int]:
    records, _ = client.scroll(name, limit=100, with_payload=["n"])
    return {record.id: record.payload["n"] for record in records if record.payload}


def test_points_are_read_back_as_they_were_written(client: QdrantClient, profiles: str) -> None:
    payload: m.Payload = {
        "text": "größer",
        "none": None,
        "list": [1, {"deep": [2.5, True]}],
        "empty": {},
        "big": 2**53 - 1,
    }
    client.upsert(
        profiles,
        [m.PointStruct(id=8, vector={"short": [0.5, 0.25, 2.0], "interests": [[3.0, 0.0, 4.0]]}, payload=payload)],
    )
    missing, found = (
        client.retrieve(profiles, [9], with_vectors=True),
        client.retrieve(profiles, [8], with_vectors=True),
    )
    assert missing == []
    assert found[0].payload == payload
    assert isinstance(found[0].vector, dict)
    assert found[0].vector["short"] == [0.5, 0.25, 2.0]
    interests = found[0].vector["interests"]
    assert isinstance(interests, list)
    assert interests[0] == pytest.approx([0.6, 0.0, 0.8])  # cosine vectors are kept as unit vectors
    assert "long" not in found[0].vector


def test_a_retrieval_selects_payload_and_vectors(client: QdrantClient, profiles: str) -> None:
    (whole,) = client.retrieve(profiles, [U1])
    (included,) = client.retrieve(profiles, [U1], with_payload=["kind"])
    (excluded,) = client.retrieve(profiles, [U1], with_payload=m.PayloadSelectorExclude(exclude=["kind"]))
    (none,) = client.retrieve(profiles, [U1], with_payload=False, with_vectors=["short"])
    assert whole.payload == {"n": 1, "kind": "product"}
    assert whole.vector is None
    assert included.payload == {"kind": "product"}
    assert excluded.payload == {"n": 1}
    assert not none.payload
    assert none.vector == {"short": [1.0, 0.0, 0.0]}


def test_an_upsert_replaces_the_whole_point(client: QdrantClient, profiles: str) -> None:
    client.upsert(profiles, [m.PointStruct(id=U1, vector={"short": [0.0, 0.0, 2.0]}, payload={"other": "x"})])
    (found,) = client.retrieve(profiles, [U1], with_vectors=True)
    assert found.payload == {"other": "x"}
    assert found.vector == {"short": [0.0, 0.0, 2.0]}


def test_the_last_of_two_points_with_one_id_wins(client: QdrantClient, profiles: str) -> None:
    client.upsert(profiles, [point(U1, [1, 0, 0], 10), point(9, [1, 0, 0], 90), point(U1, [1, 0, 0], 11)])
    assert numbers(client, profiles) == {U1: 11, U2: 2, U3: 3, 7: 4, 9: 90}


def test_a_conditional_upsert_replaces_what_matches_and_inserts_what_is_missing(
    client: QdrantClient, profiles: str
) -> None:
    answer = client.upsert(
        profiles,
        [point(U1, [1, 0, 0], 100), point(U2, [1, 0, 0], 200), point(99, [1, 0, 0], 300)],
        update_filter=field("n", m.MatchAny(any=[0, 2])),
    )
    assert answer.status == m.UpdateStatus.COMPLETED
    assert numbers(client, profiles) == {U1: 1, U2: 200, U3: 3, 7: 4, 99: 300}


def test_a_condition_on_a_missing_or_textual_field_never_holds(client: QdrantClient, profiles: str) -> None:
    client.upsert(profiles, [m.PointStruct(id=U1, vector={}, payload={"n": "1"})])
    client.upsert(profiles, [m.PointStruct(id=U2, vector={}, payload={})])
    client.upsert(
        profiles,
        [point(U1, [1, 0, 0], 100), point(U2, [1, 0, 0], 200)],
        update_filter=m.Filter(must=[m.FieldCondition(key="n", range=m.Range(gte=0, lte=2**53))]),
    )
    assert [record.payload for record in client.retrieve(profiles, [U1, U2])] == [{"n": "1"}, {}]


def test_insert_only_leaves_existing_points_alone(client: QdrantClient, profiles: str) -> None:
    client.upsert(profiles, [point(U1, [1, 0, 0], 100), point(5, [1, 0, 0], 500)], update_mode=m.UpdateMode.INSERT_ONLY)
    assert numbers(client, profiles) == {U1: 1, U2: 2, U3: 3, 7: 4, 5: 500}


def test_update_only_inserts_nothing(client: QdrantClient, profiles: str) -> None:
    client.upsert(profiles, [point(U1, [1, 0, 0], 100), point(5, [1, 0, 0], 500)], update_mode=m.UpdateMode.UPDATE_ONLY)
    assert numbers(client, profiles) == {U1: 100, U2: 2, U3: 3, 7: 4}


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient, profiles: str) -> None:
    client.delete(profiles, points_selector=[U3, 12345])
    client.delete(profiles, points_selector=field("kind", m.MatchValue(value="product")))
    assert numbers(client, profiles) == {7: 4}
    assert client.count(profiles).count == 1


MATCHES: dict[str, tuple[m.Filter, set[int]]] = {
    "keyword": (field("kind", m.MatchValue(value="product")), {1, 2}),
    "any": (field("kind", m.MatchAny(any=["ad", "content"])), {3}),
    "any integer": (field("n", m.MatchAny(any=[1, 4, 77])), {1, 4}),
    "except": (field("kind", m.MatchExcept(**{"except": ["ad"]})), {1, 2}),
    "range": (m.Filter(must=[m.FieldCondition(key="n", range=m.Range(gt=1, lte=3))]), {2, 3}),
    "must not": (m.Filter(must_not=[m.FieldCondition(key="kind", match=m.MatchValue(value="ad"))]), {1, 2, 4}),
    "should": (
        m.Filter(
            should=[
                m.FieldCondition(key="n", match=m.MatchValue(value=1)),
                m.FieldCondition(key="kind", match=m.MatchValue(value="ad")),
            ]
        ),
        {1, 3},
    ),
    "min should": (
        m.Filter(
            min_should=m.MinShould(
                min_count=2,
                conditions=[
                    m.FieldCondition(key="kind", match=m.MatchValue(value="product")),
                    m.FieldCondition(key="n", match=m.MatchAny(any=[2, 3])),
                    m.HasIdCondition(has_id=[U1, 7]),
                ],
            )
        ),
        {1, 2},
    ),
    "has id": (m.Filter(must=[m.HasIdCondition(has_id=[U2, 7])]), {2, 4}),
    "is null": (m.Filter(must=[m.IsNullCondition(is_null=m.PayloadField(key="kind"))]), {4}),
    "is empty": (m.Filter(must=[m.IsEmptyCondition(is_empty=m.PayloadField(key="nothing"))]), {1, 2, 3, 4}),
    "nested filter": (
        m.Filter(must=[m.Filter(must_not=[m.HasIdCondition(has_id=[U1])]), m.HasIdCondition(has_id=[U1, U2])]),
        {2},
    ),
}


@pytest.mark.parametrize("condition", MATCHES)
def test_filters_select(client: QdrantClient, profiles: str, condition: str) -> None:
    chosen, expected = MATCHES[condition]
    records, _ = client.scroll(profiles, scroll_filter=chosen, limit=100)
    assert {record.payload["n"] for record in records if record.payload} == expected
    assert client.count(profiles, count_filter=chosen, exact=True).count == len(expected)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_booleans_are_no_numbers(client: QdrantClient, profiles: str, indexed: bool) -> None:
    if indexed:
        client.create_payload_index(profiles, "available", m.PayloadSchemaType.BOOL)
    client.upsert(
        profiles,
        [
            point(21, [1, 0, 0], 21, available=True),
            point(22, [1, 0, 0], 22, available=False),
            point(23, [1, 0, 0], 23, available=1),
        ],
    )
    for value, expected in ((True, 21), (False, 22), (1, 23)):
        records, _ = client.scroll(profiles, scroll_filter=field("available", m.MatchValue(value=value)))
        assert [record.id for record in records] == [expected]


def test_filters_reach_into_objects_and_lists_and_times(client: QdrantClient, profiles: str) -> None:
    payload = {"tags": ["a", "b"], "offers": [{"price": 3, "shop": "x"}, {"price": 9, "shop": "y"}]}
    client.set_payload(profiles, {**payload, "at": "2026-11-25T03:00:00Z"}, points=[U1])

    def found(condition: m.Condition) -> list[m.ExtendedPointId]:
        return [record.id for record in client.scroll(profiles, scroll_filter=m.Filter(must=[condition]))[0]]

    assert found(m.FieldCondition(key="tags", match=m.MatchValue(value="b"))) == [U1]
    assert found(m.FieldCondition(key="offers[].price", range=m.Range(gt=8))) == [U1]
    assert found(m.FieldCondition(key="tags", values_count=m.ValuesCount(gte=2))) == [U1]
    early = m.DatetimeRange(gte="2026-11-25T02:59:00Z", lt="2026-11-25T03:01:00Z")  # type: ignore[arg-type]
    assert found(m.FieldCondition(key="at", range=early)) == [U1]
    cheap_x = m.Filter(
        must=[
            m.FieldCondition(key="price", range=m.Range(lt=5)),
            m.FieldCondition(key="shop", match=m.MatchValue(value="y")),
        ]
    )
    assert found(m.NestedCondition(nested=m.Nested(key="offers", filter=cheap_x))) == []


CANDIDATES = [
    {"product_id": f"p{rank}", "score": rank / 10, "because": {"texts": ["red", "shoes"]}} for rank in range(20)
]


def test_large_nested_values_are_read_back_as_they_were_written(client: QdrantClient, profiles: str) -> None:
    payload: m.Payload = {"candidates": CANDIDATES, "made_at": 7, "long": {"a" * 200: [None, True, 2.5, {"x": []}]}}
    client.upsert(profiles, [m.PointStruct(id=U1, vector={}, payload=payload)])
    client.set_payload(profiles, {"candidates": CANDIDATES}, points=[U2])
    assert client.retrieve(profiles, [U1])[0].payload == payload
    assert client.retrieve(profiles, [U2], with_payload=["candidates"])[0].payload == {"candidates": CANDIDATES}
    excluded = m.PayloadSelectorExclude(exclude=["long", "made_at"])
    assert client.retrieve(profiles, [U1], with_payload=excluded)[0].payload == {"candidates": CANDIDATES}


def test_filters_look_inside_large_nested_values(client: QdrantClient, profiles: str) -> None:
    client.set_payload(profiles, {"candidates": CANDIDATES}, points=[U1])
    client.set_payload(profiles, {"candidates": CANDIDATES[:19]}, points=[U2])
    last = field("candidates[].product_id", m.MatchValue(value="p19"))
    assert [record.id for record in client.scroll(profiles, scroll_filter=last)[0]] == [U1]
    client.set_payload(profiles, {"candidates": CANDIDATES}, points=[U3])
    assert client.count(profiles, last).count == 2
    several = m.Filter(must=[m.FieldCondition(key="candidates", values_count=m.ValuesCount(gt=0, lt=20))])
    assert client.count(profiles, several).count == 1
    inside = m.Filter(
        must=[
            m.NestedCondition(
                nested=m.Nested(
                    key="candidates", filter=m.Filter(must=[m.FieldCondition(key="score", range=m.Range(gt=1.85))])
                )
            )
        ]
    )
    assert client.count(profiles, inside).count == 2
    client.upsert(profiles, [point(U1, [1, 0, 0], 100), point(U2, [1, 0, 0], 200)], update_filter=last)
    assert [record.payload["n"] for record in client.retrieve(profiles, [U1, U2]) if record.payload] == [100, 2]


def test_parts_of_large_nested_values_are_selected_set_and_deleted(client: QdrantClient, profiles: str) -> None:
    tree = {"left": {"texts": ["a" * 100], "n": 1}, "right": {"texts": ["b" * 100]}}
    client.set_payload(profiles, {"tree": tree}, points=[U1])
    assert client.retrieve(profiles, [U1], with_payload=["tree.left.n"])[0].payload == {"tree": {"left": {"n": 1}}}
    client.set_payload(profiles, {"tree": tree}, points=[U2])
    client.set_payload(profiles, {"n": 2}, key="tree.left", points=[U2])
    client.delete_payload(profiles, ["tree.right"], points=[U2])
    changed = {"left": {"texts": ["a" * 100], "n": 2}}
    assert client.retrieve(profiles, [U2], with_payload=["tree"])[0].payload == {"tree": changed}


def test_a_scroll_pages_through_every_point_once(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=1, distance=m.Distance.DOT))
    client.upsert(name, [m.PointStruct(id=number, vector=[1.0]) for number in range(25)])
    seen: list[m.ExtendedPointId] = []
    offset: m.ExtendedPointId | None = None
    while True:
        records, offset = client.scroll(name, limit=10, offset=offset)
        seen += [record.id for record in records]
        if offset is None:
            break
    assert seen == list(range(25))
    client.delete_collection(name)


def ranked(answer: m.QueryResponse) -> list[tuple[m.ExtendedPointId, float]]:
    return [(hit.id, round(hit.score, 4)) for hit in answer.points]


def test_nearest_by_vector(client: QdrantClient, profiles: str) -> None:
    answer = client.query_points(
        profiles, [2.0, 1.0, 0.0], using="long", limit=2, with_payload=["n"], with_vectors=["short"]
    )
    assert [hit.id for hit in answer.points] == [7, U1]
    assert [hit.score for hit in answer.points] == pytest.approx([0.9487, 0.8944], abs=1e-3)
    assert [hit.payload for hit in answer.points] == [{"n": 4}, {"n": 1}]
    assert answer.points[0].vector == {"short": [1.0, 1.0, 0.0]}


def test_nearest_with_filter_threshold_and_offset(client: QdrantClient, profiles: str) -> None:
    products = field("kind", m.MatchValue(value="product"))
    assert ranked(client.query_points(profiles, [2.0, 1.0, 0.0], using="short", query_filter=products)) == [
        (U1, 2.0),
        (U2, 1.0),
    ]
    assert ranked(client.query_points(profiles, [2.0, 1.0, 0.0], using="short", score_threshold=1.5)) == [
        (7, 3.0),
        (U1, 2.0),
    ]
    assert ranked(client.query_points(profiles, [2.0, 1.0, 0.0], using="short", offset=1, limit=1)) == [(U1, 2.0)]


def test_nearest_by_multivector_is_the_sum_of_best_matches(client: QdrantClient, profiles: str) -> None:
    answer = client.query_points(profiles, [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], using="interests", limit=2)
    assert ranked(answer) == [(U1, 2.0), (7, pytest.approx(1.7071, abs=1e-3))]


def test_nearest_by_point_leaves_that_point_out(client: QdrantClient, profiles: str) -> None:
    answer = client.query_points(profiles, U1, using="long", limit=10)
    assert answer.points[0].id == 7
    assert {hit.id for hit in answer.points} == {U2, U3, 7}


def test_recommend_by_average_and_by_best_score(client: QdrantClient, profiles: str) -> None:
    average = m.RecommendQuery(recommend=m.RecommendInput(positive=[U1, U2], negative=[[0.0, 0.0, 1.0]]))
    best = m.RecommendQuery(
        recommend=m.RecommendInput(positive=[U2], negative=[U3], strategy=m.RecommendStrategy.BEST_SCORE)
    )
    assert client.query_points(profiles, average, using="long", limit=1).points[0].id == 7
    assert client.query_points(profiles, best, using="long", limit=1).points[0].id == 7


def test_a_batch_answers_each_query_in_order(client: QdrantClient, profiles: str) -> None:
    requests = [
        m.QueryRequest(query=[1.0, 0.0, 0.0], using="short", limit=1, with_payload=True),
        m.QueryRequest(query=[[0.0, 1.0, 0.0]], using="interests", limit=2),
        m.QueryRequest(query=U3, using="long", limit=1, filter=field("kind", m.MatchValue(value="product"))),
    ]
    first, second, third = client.query_batch_points(profiles, requests)
    assert first.points[0].id in (U1, 7)
    assert second.points[0].id == U2
    assert third.points[0].id in (U1, U2)


def test_prefetches_are_fused(client: QdrantClient, profiles: str) -> None:
    prefetch = [
        m.Prefetch(query=[1.0, 0.1, 0.0], using="short", limit=2),
        m.Prefetch(query=[0.0, 0.0, 1.0], using="long", limit=1),
    ]
    answer = client.query_points(profiles, query=m.FusionQuery(fusion=m.Fusion.RRF), prefetch=prefetch, limit=5)
    assert {hit.id for hit in answer.points} == {U1, 7, U3}


def test_payload_is_set_overwritten_deleted_and_cleared(client: QdrantClient, profiles: str) -> None:
    def payloads() -> list[object]:
        return [record.payload for record in client.retrieve(profiles, [U1, U2, U3, 7])]

    client.set_payload(profiles, {"a": 1}, points=field("kind", m.MatchValue(value="product")))
    client.overwrite_payload(profiles, {"b": 2}, points=[U3])
    client.set_payload(profiles, {"c": 3}, key="deep", points=[7])
    assert payloads() == [
        {"n": 1, "kind": "product", "a": 1},
        {"n": 2, "kind": "product", "a": 1},
        {"b": 2},
        {"n": 4, "kind": None, "deep": {"c": 3}},
    ]
    client.delete_payload(profiles, ["kind", "n"], points=[U1])
    client.clear_payload(profiles, points_selector=[U2])
    assert payloads()[:2] == [{"a": 1}, {}]


def test_vectors_are_updated_and_deleted(client: QdrantClient, profiles: str) -> None:
    client.update_vectors(profiles, [m.PointVectors(id=U1, vector={"short": [9.0, 9.0, 9.0]})])
    client.delete_vectors(profiles, ["interests", "long"], points=[U1])
    (found,) = client.retrieve(profiles, [U1], with_vectors=True)
    assert found.vector == {"short": [9.0, 9.0, 9.0]}
    assert found.payload == {"n": 1, "kind": "product"}


def test_a_batch_of_operations_is_applied_in_order(client: QdrantClient, profiles: str) -> None:
    client.batch_update_points(
        profiles,
        [
            m.UpsertOperation(upsert=m.PointsList(points=[point(50, [1, 0, 0], 50), point(51, [1, 0, 0], 51)])),
            m.SetPayloadOperation(set_payload=m.SetPayload(payload={"n": 500}, points=[50])),
            m.DeleteOperation(delete=m.PointIdsList(points=[U1, U2, U3, 51])),
        ],
    )
    assert numbers(client, profiles) == {7: 4, 50: 500}


def test_an_alias_stands_for_its_collection_everywhere(client: QdrantClient, profiles: str) -> None:
    alias = f"alias-{profiles}"
    client.update_collection_aliases([create_alias(alias, profiles)])
    assert client.collection_exists(alias)
    client.upsert(alias, [point(U1, [1, 0, 0], 1000)])
    assert numbers(client, alias)[U1] == 1000
    assert client.count(alias).count == 4
    assert client.query_points(alias, [1.0, 0.0, 0.0], using="long", limit=1).points[0].id == U1
    assert client.get_collection(alias).points_count == 4
    assert [found.alias_name for found in client.get_collection_aliases(profiles).aliases] == [alias]


def create_alias(alias: str, collection: str) -> m.CreateAliasOperation:
    return m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=alias))


def test_creating_over_an_alias_repoints_it(client: QdrantClient, name: str) -> None:
    one, two, alias, renamed = f"{name}-1", f"{name}-2", f"{name}-alias", f"{name}-renamed"
    for collection, number in ((one, 1), (two, 2)):
        client.create_collection(collection, vectors_config={})
        client.upsert(collection, [m.PointStruct(id=number, vector={}, payload={"n": number})])
    client.update_collection_aliases([create_alias(alias, one)])
    assert numbers(client, alias) == {1: 1}
    client.update_collection_aliases([create_alias(alias, two)])
    assert numbers(client, alias) == {2: 2}
    rename = m.RenameAlias(old_alias_name=alias, new_alias_name=renamed)
    client.update_collection_aliases([m.RenameAliasOperation(rename_alias=rename)])
    assert numbers(client, renamed) == {2: 2}
    assert not client.collection_exists(alias)
    ours = [(found.alias_name, found.collection_name) for found in client.get_aliases().aliases]
    assert (renamed, two) in ours
    client.delete_collection(two)
    assert renamed not in [found.alias_name for found in client.get_aliases().aliases]
    client.update_collection_aliases([create_alias(alias, one)])
    client.update_collection_aliases([m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name=alias))])
    assert not client.collection_exists(alias)
    client.delete_collection(one)


def test_collections_are_listed_described_and_deleted(client: QdrantClient, profiles: str) -> None:
    assert profiles in [collection.name for collection in client.get_collections().collections]
    vectors = client.get_collection(profiles).config.params.vectors
    assert isinstance(vectors, dict)
    assert vectors["long"].size == 3
    assert vectors["long"].datatype == m.Datatype.FLOAT16
    assert vectors["interests"].multivector_config == m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM)
    assert client.get_collection(profiles).points_count == 4
    assert client.delete_collection(profiles)
    assert not client.collection_exists(profiles)


def test_sparse_vectors_are_searched(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config={}, sparse_vectors_config={"words": m.SparseVectorParams()})
    client.upsert(
        name,
        [
            m.PointStruct(id=1, vector={"words": m.SparseVector(indices=[3, 9], values=[1.0, 2.0])}),
            m.PointStruct(id=2, vector={"words": m.SparseVector(indices=[9], values=[0.5])}),
        ],
    )
    answer = client.query_points(name, m.SparseVector(indices=[9], values=[1.0]), using="words", with_vectors=True)
    assert ranked(answer) == [(1, 2.0), (2, 0.5)]
    assert answer.points[1].vector == {"words": m.SparseVector(indices=[9], values=[0.5])}
    client.delete_collection(name)


def test_an_unnamed_vector_is_read_back_alone(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=2, distance=m.Distance.EUCLID))
    client.upsert(name, [m.PointStruct(id=1, vector=[3.0, 4.0]), m.PointStruct(id=2, vector=[0.0, 1.0])])
    assert client.retrieve(name, [1], with_vectors=True)[0].vector == [3.0, 4.0]
    assert ranked(client.query_points(name, [0.0, 0.0], limit=2)) == [(2, 1.0), (1, 5.0)]
    client.delete_collection(name)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_facets_count_values(client: QdrantClient, profiles: str) -> None:
    client.create_payload_index(profiles, "kind", m.PayloadSchemaType.KEYWORD)
    hits = client.facet(profiles, "kind", exact=True).hits
    assert [(hit.value, hit.count) for hit in hits] == [("product", 2), ("ad", 1)]


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_a_scroll_follows_an_indexed_field(client: QdrantClient, profiles: str) -> None:
    client.create_payload_index(profiles, "n", m.PayloadSchemaType.INTEGER)
    records, _ = client.scroll(profiles, order_by=m.OrderBy(key="n", direction=m.Direction.DESC), limit=3)
    assert [record.id for record in records] == [7, U3, U2]
