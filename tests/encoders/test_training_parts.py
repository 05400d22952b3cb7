"""The parts of a training that need no network: the loss, the batches, the measure, other ways to type a query."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.training.augmentation import Augmentation
from encoders.training.batches import Batches
from encoders.training.choice import gain, is_harmless, simplest, worth
from encoders.training.kinds import kinds_of
from encoders.training.learning import Learned, Learner
from encoders.training.measure import Catalogue, Found, Judged, Score, judge, measure
from encoders.training.mixing import Kept, mix
from encoders.training.objective import Objective, contrast
from encoders.training.options import Options
from encoders.training.pairs import Examples, Pair, Probe, Seen, sampled

NOTHING_MASKED = torch.zeros(2, 3, dtype=torch.bool)


def searched(query: str, product_id: str, user: str = "ada") -> Pair:
    return Pair(TextKind.QUERY, (query,), product_id, user, 0)


def test_the_loss_is_that_of_choosing_the_right_product() -> None:
    asked = torch.eye(3)[:2]
    products = torch.eye(3)
    loss = contrast(
        asked, products, torch.tensor([0, 2]), NOTHING_MASKED, torch.tensor([1.0, 3.0]), scales=torch.full((2,), 2.0)
    )
    total = math.exp(2) + 2  # one product is at cosine 1, two at 0
    assert float(loss) == pytest.approx((math.log(total / math.exp(2)) + 3 * math.log(total)) / 4)


def test_what_is_masked_is_no_negative() -> None:
    asked, products = torch.eye(3)[:1], torch.eye(3)
    masked = torch.tensor([[False, True, True]])
    loss = contrast(asked, products, torch.tensor([0]), masked, torch.ones(1), scales=torch.tensor([2.0]))
    assert float(loss) == 0.0


def test_the_reverse_cross_entropy_is_bounded() -> None:
    asked, products, right = torch.eye(3)[:1], torch.eye(3), torch.tensor([1])
    given = (asked, products, right, NOTHING_MASKED[:1], torch.ones(1))
    chance = 1 / (math.exp(2) + 2)  # of the right product, which is at cosine 0
    loss = contrast(*given, scales=torch.tensor([2.0]), symmetric=0.5)
    assert float(loss) == pytest.approx(-math.log(chance) + 0.5 * 4 * (1 - chance))


def test_the_second_task_is_to_tell_the_kind() -> None:
    objective = Objective(temperature=0.1, symmetric=0.0, kinds=0.5, centres=torch.eye(3))
    alone = Objective(temperature=0.1, symmetric=0.0, kinds=0.5, centres=None)
    batch = (torch.eye(3)[:2], torch.eye(3), torch.tensor([0, 2]), NOTHING_MASKED, torch.tensor([1.0, 3.0]))
    sides = torch.tensor([0, 1])
    known = torch.tensor([0, -1])
    both = (objective(*batch, sides, known) - alone(*batch, sides, known)).item()
    assert both == pytest.approx(0.5 * math.log((math.exp(10) + 2) / math.exp(10)), rel=1e-2)  # only the first is known
    unknown = torch.tensor([-1, -1])
    assert objective(*batch, sides, unknown).item() == alone(*batch, sides, unknown).item()


def test_kinds_are_the_shops_categories() -> None:
    kinds = kinds_of(["boots", "tent", "mat"], np.eye(3, dtype=np.float32), {"tent": "camping", "boots": "shoes"}, 1)
    assert kinds.of == {"boots": 1, "tent": 0}
    assert kinds.centres.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_kinds_are_what_is_alike_where_the_shop_has_no_categories() -> None:
    angles = np.concatenate([np.linspace(0, 0.2, 8), np.linspace(2, 2.2, 8)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids = [f"p{i}" for i in range(16)]
    kinds = kinds_of(ids, vectors, {"p1": "the only one"}, seed=1)
    assert len({kinds.of[one] for one in ids[:8]}) == len({kinds.of[one] for one in ids[8:]}) == 1
    assert kinds.of["p0"] != kinds.of["p15"]
    assert np.linalg.norm(kinds.centres, axis=1) == pytest.approx([1, 1])


def judged(values: list[float]) -> Judged:
    found = np.array(values)
    return Judged({"all": Found(np.arange(len(found)), found, found)}, {})


def asked_by(users: list[str]) -> list[Probe]:
    return [Probe(TextKind.QUERY, (f"q{i}",), (1.0,), frozenset("p"), frozenset(), u, 1) for i, u in enumerate(users)]


def test_worth_is_how_many_times_as_good_by_customer() -> None:
    probes = asked_by(["ada", "bob", "ada", "", ""])  # two labels: nobody's
    parts = worth(judged([0.49, 0.0, 0.49, 0.0, 0.0]), judged([0.14] * 5), probes)
    ratio = 0.15 * 5  # a hundredth is added to both sides
    assert parts == pytest.approx([1.0 / ratio, 0.01 / ratio, 0.01 / ratio, 0.01 / ratio])
    assert worth(judged([0.14] * 5), judged([0.14] * 5), probes).sum() == pytest.approx(1.0)


def test_what_there_is_to_gain_is_told_by_all_that_was_asked() -> None:
    def found(values: float) -> Found:
        return Found(np.arange(30), np.full(30, values), np.full(30, values))

    base = Judged({"all": found(0.49), "tail": found(0.2)}, {"all": found(0.04)})
    now = Judged({"all": found(0.59), "tail": found(0.0)}, {"all": found(0.09)})
    probes = asked_by([f"user {i}" for i in range(30)])
    assert gain(now, base, probes) == pytest.approx(np.full(30, (0.60 / 0.50 + 0.10 / 0.05) / 2 / 30))
    assert gain(base, base, probes).sum() == pytest.approx(1.0)


def test_groups_of_few_probes_do_not_count() -> None:
    probes = asked_by([f"user {i}" for i in range(20)])
    of_all, rare = Found(np.arange(20), np.full(20, 0.5), np.full(20, 0.5)), np.arange(2)
    base = Judged({"all": of_all, "tail": Found(rare, np.ones(2), np.ones(2))}, {})
    worse = Judged({"all": of_all, "tail": Found(rare, np.zeros(2), np.zeros(2))}, {})
    assert worth(worse, base, probes).sum() == pytest.approx(1.0)


def test_what_finds_less_of_any_group_is_harmful_whatever_it_is_worth() -> None:
    def found(probes: int, value: float) -> Found:
        return Found(np.arange(probes), np.full(probes, value), np.full(probes, value))

    base = Judged({"all": found(30, 0.2), "tail": found(25, 0.2), "unseen_queries": found(3, 0.2)}, {})
    assert is_harmless(base, base)
    assert is_harmless(base._replace(queries={**base.queries, "unseen_queries": found(3, 0.0)}), base)  # says nothing
    assert not is_harmless(
        base._replace(queries={**base.queries, "all": found(30, 0.9), "tail": found(25, 0.19)}), base
    )


def test_of_what_is_as_good_the_simplest_is_kept() -> None:
    clearly = [np.full(9, 1.0), np.full(9, 1.5), np.full(9, 1.6)]
    assert simplest(clearly) == 2  # each customer is served better: no doubt
    noise = np.array([1.0, -1.0] * 5)  # in the sum of ten customers, an error of 3.3; of two such, 6.7
    assert simplest([np.full(10, 1.0), 1.7 + noise]) == 1
    assert simplest([np.full(10, 1.0), 1.6 + noise]) == 0  # 6 more: once in twenty that is chance
    assert simplest([np.full(10, 1.0), 1.7 + noise, 1.75 - noise]) == 1
    assert simplest([np.ones(1), np.full(1, 2.0)]) == 1


@pytest.mark.parametrize(
    ("asked", "rate"),
    [
        ({}, 2e-4),
        ({"tune": "full"}, 2e-4),
        ({"tune": "lora"}, 2e-3),
        ({"tune": "head"}, 2e-3),
        ({"tune": "lora", "learning_rate": 5e-4}, 5e-4),
    ],
)
def test_few_weights_are_trained_at_a_greater_rate_unless_one_is_given(asked: dict[str, Any], rate: float) -> None:
    assert Options(**asked).recorded()["learning_rate"] == rate


class Validated:
    """As `mix` sees a learner: its only weight is how much of what was learned there is, by which it is judged."""

    parent: Mapping[str, torch.Tensor] = {"learned": torch.zeros(1)}
    probes = asked_by([f"user {i}" for i in range(30)])

    def __init__(self, tail: Callable[[float], NDArray[np.float64]]) -> None:
        self.learned, self._tail = 0.0, tail
        self.base = self.judge()

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.learned = weights["learned"].item()

    def judge(self) -> Judged:
        everything, tail = np.full(30, 0.2 + 0.1 * self.learned), self._tail(self.learned)
        rows = np.arange(30)
        return Judged({"all": Found(rows, everything, everything), "tail": Found(rows, tail, tail)}, {})


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        # Who finds it changes from one share to the next; that it is no less is all that is asked of what is rare.
        (lambda learned: np.roll(np.repeat([0.9, 0.0], 15), round(60 * learned)), Kept(1.0, averaged=True)),
        (lambda learned: np.full(30, 0.2 if learned < 0.8 else 0.1), Kept(0.75, averaged=True)),
        (lambda learned: np.full(30, 0.2 - learned / 10), Kept(0.0, averaged=False)),
    ],
)
def test_kept_is_as_much_as_all_that_is_asked_gains_by_and_nothing_rare_loses_by(
    tail: Callable[[float], NDArray[np.float64]], kept: Kept
) -> None:
    whole = {"learned": torch.ones(1)}
    learner = Validated(tail)
    assert mix(cast(Learner, learner), [Learned(20, whole, whole, [])], lambda *_: None) == kept
    assert learner.learned == kept.share


@given(st.lists(st.lists(st.floats(0, 2), min_size=6, max_size=6), min_size=1, max_size=6))
def test_what_is_kept_is_no_worse_than_the_best_by_more_than_chance(values: list[list[float]]) -> None:
    worths = [np.array(one) for one in values]
    best = max(worths, key=np.sum)
    kept = worths[simplest(worths)]
    assert best.sum() - kept.sum() <= 1.96 * math.sqrt(6 * float((best - kept).var(ddof=1))) + 1e-12


PAIRS = [
    *(searched(f"query {i}", f"p{i % 7}", f"user {i}") for i in range(40)),
    *(Pair(TextKind.PRODUCT, (f"p{i % 5}", f"p{5 + i % 4}"), f"p{9 + i % 3}", f"user {i}", 0) for i in range(40)),
]


def batches(*, size: int = 16, seed: int = 3) -> Batches:
    return Batches(
        PAIRS,
        Seen(PAIRS),
        size=size,
        bag=1,
        random_negatives=4,
        balance=0.5,
        seed=seed,
    )


@given(st.integers(0, 30))
def test_a_batch_has_each_product_once_and_never_masks_what_is_right(step: int) -> None:
    batch = batches().at(step, {"p1": ["p2"]})
    assert len(set(batch.products)) == len(batch.products)
    assert [batch.products[row] for row in batch.right] == [pair.right for pair in batch.pairs]
    assert not batch.masked[np.arange(len(batch.pairs)), batch.right].any()
    for lefts, pair in zip(batch.lefts, batch.pairs, strict=True):
        assert len(lefts) == 1
        assert set(lefts) <= set(pair.lefts)


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    assert batches().at(4, {})[:3] == batches().at(4, {})[:3]
    assert batches().at(4, {})[0] != batches(seed=4).at(4, {})[0]
    assert batches().at(4, {})[0] != batches().at(9, {})[0]


def test_a_pass_has_every_pair_once() -> None:
    one_pass = batches(size=20)
    assert one_pass.steps_a_pass == 4
    assert sorted(pair for step in range(4) for pair in one_pass.at(step, {}).pairs) == sorted(PAIRS)


def test_what_nothing_led_to_is_no_random_negative() -> None:
    pairs = [Pair(TextKind.PRODUCT, ("socks",), "boots", "ada", 0), searched("camping", "tent")]
    steps = Batches(pairs, Seen(pairs), size=1, bag=1, random_negatives=8, balance=0.0, seed=1)
    assert {product for step in range(4) for product in steps.at(step, {}).products} == {"boots", "tent"}


def test_what_is_on_the_left_is_no_negative() -> None:
    pairs = [Pair(TextKind.PRODUCT, ("socks",), "boots", "ada", 0), searched("camping", "socks")]
    seen = Seen(pairs)
    batch = Batches(pairs, seen, size=2, bag=1, random_negatives=0, balance=0.0, seed=1).at(0, {"camping": ["tent"]})
    assert sorted(batch.products) == ["boots", "socks", "tent"]  # the tent is near what was searched for
    hidden = [
        (pair.right, batch.products[row])
        for pair, of_one in zip(batch.pairs, batch.masked, strict=True)
        for row in np.flatnonzero(of_one)
    ]
    assert hidden == [("boots", "socks")]


def test_the_head_is_what_half_of_the_pairs_lead_to() -> None:
    pairs = [searched("boots", product_id) for product_id in ("walking", "walking", "winter", "ski")]
    assert Seen(pairs).head == {"walking"}


VECTORS = {
    "walking boots": (1.0, 0.0, 0.0),
    "winter boots": (0.9, math.sqrt(1 - 0.81), 0.0),
    "tent": (0.0, 0.0, 1.0),
    "boots": (0.99, math.sqrt(1 - 0.9801), 0.0),
    "camping": (0.0, math.sqrt(1 - 0.64), 0.8),
}


def encode(texts: object, kind: TextKind) -> np.ndarray:
    return np.array([VECTORS[text] for text in texts], np.float32)  # type: ignore[attr-defined]


def test_a_measure_by_hand() -> None:
    ids = ["tent", "walking boots", "winter boots"]
    catalogue = Catalogue(ids, encode(ids, TextKind.PRODUCT), frozenset(ids))
    seen = Seen([searched("boots", "walking boots")])
    probes = [
        Probe(TextKind.QUERY, ("boots",), (1.0,), frozenset({"winter boots"}), frozenset(), "ada", 1),
        Probe(TextKind.QUERY, ("camping",), (1.0,), frozenset({"tent"}), frozenset(), "bob", 1),
        Probe(
            TextKind.PRODUCT,
            ("walking boots",),
            (1.0,),
            frozenset({"tent"}),
            frozenset({"walking boots"}),
            "eve",
            1,
        ),
    ]
    measured = measure(catalogue, encode, probes, seen)
    assert measured.queries == {
        "all": Score(2, 1.0, 0.75),  # the winter boots are second, the tent is first
        "tail": Score(2, 1.0, 0.75),
        "unseen_products": Score(2, 1.0, 0.75),
        "unseen_queries": Score(1, 1.0, 1.0),
    }
    assert measured.purchases["all"] == Score(1, 1.0, 0.5)  # what was bought is not listed
    judged = judge(catalogue, encode, probes, seen)
    assert judged.measured() == measured
    assert {group: list(found.probes) for group, found in judged.queries.items()} == {
        "all": [0, 1],
        "tail": [0, 1],
        "unseen_products": [0, 1],
        "unseen_queries": [1],
    }
    assert [list(figure.values) for figure in judged.figures()] == [[0.5, 1.0]] * 3 + [[1.0]] + [[1.0]] * 3


def test_what_may_not_be_listed_is_not_found() -> None:
    ids = ["tent", "walking boots"]
    catalogue = Catalogue(ids, encode(ids, TextKind.PRODUCT), frozenset({"walking boots"}))
    probe = Probe(TextKind.QUERY, ("camping",), (1.0,), frozenset({"tent"}), frozenset(), "ada", 1)
    assert measure(catalogue, encode, [probe], Seen([])).queries["all"] == Score(1, 0.0, 0.0)


@given(st.text(st.characters(categories=("L", "N"))).map(lambda text: f"{text} boots"), st.integers(0, 2**32))
def test_a_query_typed_otherwise_still_says_something(query: str, seed: int) -> None:
    chance = np.random.default_rng(seed)
    augmentation = Augmentation({"p": ["fell"]}, {})
    others = [augmentation.of(query, "p", chance) for _ in range(10)]
    assert all(other.strip() for other in others)
    words = {*query.split(), "fell"}
    for other in others:
        assert len([word for word in other.split() if word not in words]) <= 1  # one word is misspelt, at most


def test_ways_to_type_a_query() -> None:
    chance = np.random.default_rng(2)
    augmentation = Augmentation({"p": ["fell"]}, {})
    others = {augmentation.of("walking boots", "p", chance) for _ in range(5000)}
    assert {"walking boots", "boots walking", "boots", "walking", "fell walking boots", "walkign boots"} <= others


def test_what_models_put_otherwise_is_a_way_to_say_it() -> None:
    chance = np.random.default_rng(2)
    augmentation = Augmentation(None, {"walking boots": ["hiking shoes"]})
    assert {augmentation.of("walking boots", "p", chance) for _ in range(99)} == {"walking boots", "hiking shoes"}
    assert {augmentation.of("tent", "p", chance) for _ in range(99)} == {"tent"}


def test_of_a_large_catalogue_what_is_asked_for_is_kept_and_some_of_the_rest() -> None:
    products = {f"p{i}": f"product {i}" for i in range(100)}
    wanted = Probe(TextKind.PRODUCT, ("p2",), (1.0,), frozenset({"p3"}), frozenset({"p2"}), "eve", 1)
    examples = Examples(products, [searched("boots", "p1")], [wanted], [], frozenset(products) - {"p4"})
    assert sampled(examples, 100, seed=1) is examples
    some = sampled(examples, 10, seed=1)
    assert len(some.products) == 10
    assert {"p1", "p2", "p3"} < some.products.keys()
    assert some.listed == some.products.keys() - {"p4"}
    assert some == sampled(examples, 10, seed=1) != sampled(examples, 10, seed=2)
