"""Pairs out of behaviour, and who is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.protocol import TextKind
from encoders.training.pairs import Examples, Pair, TrainingError
from streams.events import Product, Purchase, Search
from streams.training import mining
from streams.training.labels import Label, read_labels
from streams.training.mining import Splits, companions, mine, splits_of

DAY_MS = 86_400_000
MINUTE_MS = 60_000
T0 = 1_700_000_000_000
PRODUCTS = [Product(name, name.title(), brand="Fell") for name in ("boots", "socks", "tent", "mat", "lamp")]
LATER = Splits(T0 + 10 * DAY_MS, T0 + 20 * DAY_MS, T0 + 30 * DAY_MS)


def bought(user_id: str, product_id: str, ts: int) -> Purchase:
    return Purchase(user_id, product_id, 1, T0 + ts)


def mined(purchases: list[Purchase], searches: list[Search], splits: Splits = LATER, seed: int = 1) -> Examples:
    return mine(PRODUCTS, purchases, searches, splits, half_life_ms=10 * DAY_MS, seed=seed)


ADA, BOB = "ada", "bob"


def test_a_search_leads_to_what_is_clicked() -> None:
    (pair,) = mined([], [Search(ADA, "  Two-person TENT ", T0, clicked_product_id="tent")]).pairs
    assert pair == Pair(TextKind.QUERY, ("two-person tent",), "tent", ADA, T0)


def test_a_search_leads_to_what_is_bought_within_the_session() -> None:
    searches = [Search(ADA, "camping", T0), Search(BOB, "camping", T0)]
    pairs = mined([bought(ADA, "tent", 29 * MINUTE_MS), bought(BOB, "tent", 31 * MINUTE_MS)], searches).pairs
    assert pairs == [Pair(TextKind.QUERY, ("camping",), "tent", ADA, T0 + 29 * MINUTE_MS)]


def test_what_was_bought_before_leads_to_what_is_new() -> None:
    purchases = [
        bought(ADA, "boots", 0),
        bought(ADA, "boots", DAY_MS),
        bought(ADA, "socks", DAY_MS),
        bought(BOB, "tent", DAY_MS),
        bought(BOB, "mat", DAY_MS),
    ]
    assert mined(purchases, []).pairs == [
        Pair(TextKind.PRODUCT, ("boots",), "socks", ADA, T0 + DAY_MS),
        Pair(TextKind.PRODUCT, ("tent",), "mat", BOB, T0 + DAY_MS),  # a first order leads to itself
        Pair(TextKind.PRODUCT, ("mat",), "tent", BOB, T0 + DAY_MS),
    ]


def test_products_that_nobody_named_teach_nothing() -> None:
    assert mined([bought(ADA, "nameless", 0), bought(ADA, "tent", DAY_MS)], []).pairs == []
    assert mined([], [Search(ADA, "x", T0, clicked_product_id="nameless")]).pairs == []
    titled = Purchase(ADA, "nameless", 1, T0, title="Camping stove")
    assert [pair.right for pair in mined([titled, bought(ADA, "tent", DAY_MS)], []).pairs] == ["tent"]


def test_who_is_new_is_asked_about() -> None:
    purchases = [
        bought("new", "boots", 11 * DAY_MS),
        bought("new", "boots", 21 * DAY_MS),
        bought("new", "socks", 21 * DAY_MS),
        bought("newer", "boots", 12 * DAY_MS),
        bought("newer", "tent", 15 * DAY_MS),
        bought("newest", "lamp", 22 * DAY_MS),
        bought("newest", "boots", 25 * DAY_MS),
        bought("newest", "tent", 29 * DAY_MS),
        bought("newest", "mat", 31 * DAY_MS),  # after the end
    ]
    examples = mined(purchases, [])
    assert examples.pairs == []
    (one,) = examples.validation
    assert (one.user, one.lefts, one.wanted, one.hidden) == ("newer", ("boots",), {"tent"}, {"boots"})
    first, second = examples.test
    assert (first.user, first.wanted) == ("newest", {"boots"})
    assert second.lefts == ("lamp", "boots")
    assert second.weights == pytest.approx((2**-0.3, 1.0))  # three days of a half-life of ten
    assert examples.facts["validation_of_purchases"] == 1
    assert examples.facts["until_ms"] == T0 + 30 * DAY_MS


def test_what_those_learned_from_did_afterwards_helps_to_choose() -> None:
    purchases = [
        bought(user, product, day * DAY_MS)
        for user in (f"user {i}" for i in range(40))
        for day, product in ((1, "boots"), (2, "socks"), (11, "tent"), (21, "mat"))
    ]
    examples = mined(purchases, [])
    learned_from = {pair.user for pair in examples.pairs}
    assert {probe.user for probe in examples.returning} == learned_from
    assert {(probe.ts, probe.wanted) for probe in examples.returning} == {(T0 + 11 * DAY_MS, frozenset({"tent"}))}


TIMES = st.integers(0, 29 * DAY_MS)
USERS = st.sampled_from([f"user {i}" for i in range(9)])
IDS = st.sampled_from([product.product_id for product in PRODUCTS])


@settings(max_examples=50)
@given(
    st.lists(st.builds(bought, USERS, IDS, TIMES), max_size=60),
    st.lists(
        st.builds(lambda u, p, t: Search(u, "camping", T0 + t, clicked_product_id=p), USERS, st.none() | IDS, TIMES),
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_nobody_and_no_moment_is_on_two_sides(purchases: list[Purchase], searches: list[Search], seed: int) -> None:
    examples = mined(purchases, searches, seed=seed)
    learned_from = {pair.user for pair in examples.pairs}
    validated, tested = ({probe.user for probe in probes} for probes in (examples.validation, examples.test))
    assert not learned_from & (validated | tested)
    assert not validated & tested
    returning = {probe.user for probe in examples.returning}
    assert not returning & (validated | tested)
    assert all(pair.ts < LATER.validation_from for pair in examples.pairs)
    assert all(LATER.validation_from <= probe.ts < LATER.test_from for probe in examples.validation)
    assert all(LATER.validation_from <= probe.ts < LATER.test_from for probe in examples.returning)
    assert all(LATER.test_from <= probe.ts < LATER.until for probe in examples.test)
    for probe in (*examples.validation, *examples.returning, *examples.test):
        assert probe.wanted
        assert not probe.wanted & probe.hidden
        assert len(probe.lefts) == len(probe.weights)
    for pair in examples.pairs:
        assert pair.right not in pair.lefts
    assert mined(purchases, searches, seed=seed) == examples


def test_of_too_many_pairs_those_of_some_users_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "MAX_PAIRS", 20)
    searches = [Search(f"user {i % 8}", "camping", T0 + i, clicked_product_id="tent") for i in range(40)]
    pairs = mined([], searches).pairs
    assert len(pairs) == 20
    assert len({pair.user for pair in pairs}) == 4


def test_splits_are_of_what_happened() -> None:
    purchases = [bought("ada", "boots", i) for i in range(1000)]
    splits = splits_of(purchases, [])
    assert (splits.validation_from - T0, splits.test_from - T0, splits.until - T0) == pytest.approx(
        (800, 899, 1000), abs=2
    )
    given_all = splits_of(purchases, [], validation_from=T0 + 5, test_from=T0 + 6, until=T0 + 7)
    assert given_all == Splits(T0 + 5, T0 + 6, T0 + 7)
    with pytest.raises(TrainingError, match="they have to follow each other"):
        splits_of(purchases, [], validation_from=T0 + 6, test_from=T0 + 5)
    with pytest.raises(TrainingError, match="nothing happened"):
        splits_of([], [])


def test_labels_weigh_by_their_relevance_and_a_query_is_on_one_side() -> None:
    labels = [Label(f"query {i}", product, relevance) for i in range(60) for product, relevance in
              (("boots", 1.0), ("socks", 2.0), ("tent", 3.0))]  # fmt: skip
    examples = mine(PRODUCTS, [], [], LATER, half_life_ms=DAY_MS, seed=1, labels=labels)
    assert {(pair.right, pair.weight) for pair in examples.pairs} == {("socks", 0.5), ("tent", 1.0)}
    assert {probe.wanted for probe in (*examples.validation, *examples.test)} == {frozenset({"tent"})}
    queries = [{one.lefts for one in some} for some in (examples.pairs, examples.validation, examples.test)]
    assert sum(map(len, queries)) == len(set.union(*queries)) == 60
    assert all(queries)


def test_a_line_that_is_no_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"query": "boots", "product_id": "p", "relevance": 3}\n{"query": "boots"}\n')
    with pytest.raises(TrainingError, match=r"labels\.jsonl:2 is not .*missing required field `product_id`"):
        read_labels(str(path))
    with pytest.raises(TrainingError, match=r"there is no file .*nowhere"):
        read_labels(str(tmp_path / "nowhere"))


def test_companions_are_brand_and_category() -> None:
    products = [Product("boots", "Boots", brand="FELL", category="Outdoor"), Product("tent", "Tent")]
    assert companions(products) == {"boots": ["fell", "outdoor"]}
