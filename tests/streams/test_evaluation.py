"""What an evaluation predicts, and of what, in shops of a few products."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from encoders.testing import WordHashEncoder
from streams.evaluation.baselines import DAY_MS, OwnMost, Popular, Ranked
from streams.evaluation.dump import dumped
from streams.evaluation.evaluation import NothingToPredict, Options, evaluate
from streams.evaluation.files import Shop, UnfitFile
from streams.evaluation.fitted import Ease, EaseAndOwn, ItemNeighbours
from streams.evaluation.past import Past
from streams.evaluation.results import Decile, deciles_of, results_of, values_of
from streams.evaluation.rounds import AFTERGLOW, Lists, Round
from streams.evaluation.tasks import Task
from streams.evaluation.timeline import Order, timeline
from streams.events import Product, Purchase, Search
from streams.settings import Settings, load

CUT = 1_600_000_000_000
TITLES = {
    "tent": "two-person tent",
    "boots": "walking boots",
    "mug": "blue mug",
    "kite": "red kite",
    "lamp": "desk lamp",
}


def bought(user: str, ts: int, *products: str, order: str | None = None) -> list[Purchase]:
    return [Purchase(user_id=user, product_id=one, quantity=1, ts=CUT + ts, order_id=order) for one in products]


def searched(user: str, ts: int, query: str, clicked: str | None = None) -> Search:
    return Search(user_id=user, query=query, ts=CUT + ts, clicked_product_id=clicked)


def shop(purchases: Iterable[Purchase] = (), searches: Iterable[Search] = ()) -> Shop:
    products = [Product(product_id=product_id, title=title) for product_id, title in TITLES.items()]
    return Shop(products, list(purchases), list(searches))


def rounds_of(
    shop: Shop, *, limit: int = 2, prequential: bool = False, settings: Settings | None = None
) -> dict[str, Round]:
    options = Options(CUT, limit, prequential, seed=1)
    settings = settings or load(environment={})
    return {one.kind: one for one in asyncio.run(evaluate(shop, WordHashEncoder(), settings, options))}


def test_an_order_is_its_id_or_else_its_moment_and_is_of_its_first_line() -> None:
    purchases = [
        *bought("ada", 5, "kite"),
        *bought("ada", 3, "tent", order="o1"),
        *bought("ada", 4, "boots", order="o1"),
        *bought("bob", 3, "mug", order="o1"),
        *bought("ada", 5, "mug"),
    ]
    steps = timeline(purchases, [searched("ada", 5, "lamps"), searched("ada", 1, "tents")])
    assert [(step.user_id, step.ts - CUT, isinstance(step, Order) and sorted(step.products)) for step in steps] == [
        ("ada", 1, False),
        ("ada", 3, ["boots", "tent"]),
        ("bob", 3, ["mug"]),
        ("ada", 5, False),
        ("ada", 5, ["kite", "mug"]),
    ]


HISTORY = [
    *bought("ada", -3 * DAY_MS, "tent", "mug", order="a1"),
    *bought("ada", -2 * DAY_MS, "tent", order="a2"),
    *bought("bob", -1 * DAY_MS, "boots", "mug", order="b1"),
]
AFTER = [
    *bought("ada", 1 * DAY_MS, "tent", "boots", order="a3"),
    *bought("cleo", 2 * DAY_MS, "kite", order="c1"),
    *bought("cleo", 3 * DAY_MS, "kite", order="c2"),
    *bought("ada", 4 * DAY_MS, "lamp", order="a4"),
    *bought("bob", 5 * DAY_MS, "mug", order="b2"),
]


def test_frozen_at_the_cut_the_first_order_of_everyone_known_by_then_is_predicted() -> None:
    (found,) = rounds_of(shop([*HISTORY, *AFTER])).values()
    assert found.tasks == [
        Task("ada", CUT + 1 * DAY_MS, CUT, frozenset({"tent", "boots"}), frozenset({"tent", "mug"}), first=True),
        Task("bob", CUT + 5 * DAY_MS, CUT, frozenset({"mug"}), frozenset({"boots", "mug"}), first=True),
    ]


def test_prequentially_every_order_is_predicted_from_all_that_came_before_it() -> None:
    (found,) = rounds_of(shop([*HISTORY, *AFTER]), prequential=True).values()
    assert [(task.user_id, task.at - CUT, sorted(task.wanted), sorted(task.known)) for task in found.tasks] == [
        ("ada", 1 * DAY_MS, ["boots", "tent"], ["mug", "tent"]),
        ("cleo", 3 * DAY_MS, ["kite"], ["kite"]),
        ("ada", 4 * DAY_MS, ["lamp"], ["boots", "mug", "tent"]),
        ("bob", 5 * DAY_MS, ["mug"], ["boots", "mug"]),
    ]
    assert found.lists[AFTERGLOW][1].mixed[0] == "kite"  # cleo's, who was unknown at the cut
    of_all, of_first = results_of(found, limit=2, seed=1)
    assert (of_all.only_first, of_all.tasks, of_all.users) == (False, 4, 3)
    assert (of_first.only_first, of_first.tasks, of_first.users) == (True, 2, 2)  # ada's and bob's, as if frozen


def test_every_method_is_asked_the_same_tasks() -> None:
    (found,) = rounds_of(shop([*HISTORY, *AFTER])).values()
    assert [*found.lists] == [
        "Afterglow",
        "TF-IDF for the transformer",
        "one decayed average",
        "popular, 30 days",
        "most bought by the customer",
        "EASE",
        "EASE + own orders",
        "ALS (implicit)",
        "item-kNN (implicit)",
    ]
    for lists in found.lists.values():
        assert len(lists) == 2
        for task, (mixed, new_only) in zip(found.tasks, lists, strict=True):
            assert len(mixed) == len(set(mixed)) == 2
            assert len(new_only) == 2
            assert task.known.isdisjoint(new_only)


def test_afterglow_shows_what_was_bought_most_and_near_it_unless_only_new_products_are_asked_for() -> None:
    (found,) = rounds_of(shop([*HISTORY, *AFTER])).values()
    ada, _ = found.lists[AFTERGLOW]
    assert ada.mixed == ["tent", "mug"]
    excluding = load(environment={"AFTERGLOW_DERIVATION_EXCLUDE_BOUGHT": "true"})
    (found,) = rounds_of(shop([*HISTORY, *AFTER]), settings=excluding).values()
    assert found.lists[AFTERGLOW][0].mixed == found.lists[AFTERGLOW][0].new_only == ada.new_only


def test_a_product_that_is_not_available_is_recommended_by_nobody() -> None:
    sold = shop([*HISTORY, *AFTER])
    gone = Product(product_id="tent", title="two-person tent", available=False)
    (found,) = rounds_of(sold._replace(products=[*sold.products, gone]), limit=4).values()
    for lists in found.lists.values():
        assert all("tent" not in one.mixed for one in lists)
    assert "tent" not in found.popularity


def test_a_product_that_only_a_purchase_knows_counts_by_its_title() -> None:
    purchases = [
        Purchase(user_id="ada", product_id="old", quantity=1, ts=CUT - DAY_MS, title="a red kite of old"),
        *AFTER,
    ]
    (found,) = rounds_of(shop(purchases), limit=1).values()
    assert found.lists[AFTERGLOW][0].mixed == ["kite"]


SEARCHES = [
    searched("ada", -2 * DAY_MS, "red kite", "kite"),
    searched("bob", -2 * DAY_MS, "boots for walking", "boots"),
    searched("bob", 1 * DAY_MS, "desk lamp", "lamp"),
    searched("cleo", 1 * DAY_MS, "blue mug", "mug"),
    searched("ada", 2 * DAY_MS, "tent"),
    searched("ada", 3 * DAY_MS, "walking", "boots"),
    searched("ada", 3 * DAY_MS, "<b>", "lamp"),
]


def test_the_next_click_is_asked_of_those_who_searched_before_and_every_query_that_says_something() -> None:
    found = rounds_of(shop(searches=SEARCHES), limit=1)
    assert [*found] == ["next_click", "query"]
    clicks, queries = found["next_click"], found["query"]
    assert [(task.user_id, *task.wanted, *task.known) for task in clicks.tasks] == [
        ("bob", "lamp", "boots"),
        ("ada", "boots", "kite"),
    ]
    assert [(task.query, *task.wanted) for task in queries.tasks] == [
        ("desk lamp", "lamp"),
        ("blue mug", "mug"),
        ("walking", "boots"),
    ]
    assert [one.mixed for one in queries.lists[AFTERGLOW]] == [["lamp"], ["mug"], ["boots"]]
    assert [*queries.lists] == [
        "Afterglow",
        "without the person",
        "TF-IDF for the transformer",
        "popular, 14 days",
    ]


def test_an_order_of_somebody_who_only_searched_is_predicted_from_that() -> None:
    found = rounds_of(shop(bought("ada", 2 * DAY_MS, "kite"), SEARCHES[:1]), limit=1)
    assert found["next_order"].lists[AFTERGLOW][0].mixed == ["kite"]


def test_without_anything_to_predict_it_says_so() -> None:
    with pytest.raises(NothingToPredict, match="choose an earlier --cut"):
        rounds_of(shop(HISTORY))
    with pytest.raises(UnfitFile, match="no product is available"):
        rounds_of(Shop([], HISTORY, []))


def test_figures_of_a_shop_by_hand() -> None:
    (found,) = rounds_of(shop([*HISTORY, *AFTER])).values()
    (result,) = results_of(found, limit=2, seed=1)
    assert (result.kind, result.tasks, result.users, result.limit) == ("next_order", 2, 2, 2)
    own = next(method for method in result.methods if method.method == "most bought by the customer")
    # ada: tent, mug (wanted tent and boots); bob: boots and mug are his and tie, and mug is more popular.
    assert own.metrics["recall"].mean == (1 / 2 + 1) / 2
    assert own.metrics["recall_at_2"].mean == (1 / 2 + 1) / 2
    assert own.metrics["mrr"].mean == 1.0
    assert own.metrics["precision"].mean == (1 / 2 + 1 / 2) / 2
    assert own.metrics["ndcg"].mean == pytest.approx((1 / (1 + 1 / math.log2(3)) + 1) / 2)
    assert own.metrics["recall_new_in_mixed_list"].mean == 0.0  # ada's boots; bob wants nothing new
    assert own.metrics["recall_new_in_new_only_list"].mean == 1.0  # boots are the most popular that she never had
    assert own.coverage_mixed_list == 3 / 5
    ours = result.methods[0]
    assert ours.afterglow_minus_this == {}
    assert own.afterglow_minus_this["recall"].mean == pytest.approx(
        ours.metrics["recall"].mean - own.metrics["recall"].mean
    )


def test_recall_by_how_popular_a_product_was() -> None:
    popularity = {f"p{n}": float(n) for n in range(20)}
    tasks = [
        Task("ada", CUT, CUT, frozenset({"p19", "p0", "unknown"}), frozenset()),
        Task("bob", CUT, CUT, frozenset({"p18"}), frozenset()),
    ]
    deciles = deciles_of(tasks, [Lists(["p19", "p0"], []), Lists(["p5", "p17"], [])], popularity)
    assert deciles[0] == Decile(1, wanted=1, found=1, recall=1.0, shown=1 / 4)
    assert deciles[2] == Decile(3, wanted=0, found=0, recall=None, shown=1 / 4)
    assert deciles[9] == Decile(10, wanted=2, found=1, recall=1 / 2, shown=1 / 4)


def test_a_list_is_dumped_as_recommend_prints_it() -> None:
    task = Task("ada", CUT + 1, CUT, frozenset({"tent"}), frozenset())
    asked = Task("ada", CUT + 2, CUT, frozenset({"tent"}), frozenset(), "tents")
    rounds = [
        Round("next_order", [], [task], {AFTERGLOW: [Lists(["tent", "mug"], ["mug"])]}),
        Round("query", [], [asked], {AFTERGLOW: [Lists(["tent"], [])]}),
    ]
    assert [json.loads(line) for line in dumped(rounds)] == [
        {
            "task": "next_order",
            "user_id": "ada",
            "ts": CUT + 1,
            "items": [{"product_id": "tent"}, {"product_id": "mug"}],
            "new_only_items": [{"product_id": "mug"}],
        },
        {"task": "query", "user_id": "ada", "ts": CUT + 2, "query": "tents", "items": [{"product_id": "tent"}]},
    ]


def test_nothing_new_is_wanted_where_all_was_bought_before() -> None:
    task = Task("ada", CUT, CUT, frozenset({"tent"}), frozenset({"tent"}))
    values = values_of([task], [Lists(["tent"], ["mug"])], limit=1)
    assert values["recall"].tolist() == [1.0]
    assert math.isnan(values["recall_new_in_mixed_list"][0])
    assert math.isnan(values["recall_new_in_new_only_list"][0])


def past_of(orders: Sequence[tuple[str, int, Sequence[str]]]) -> Past:
    past = Past(["a", "b", "c", "d"], Order)
    for user, ts, products in orders:
        past.learn(Order(user, CUT + ts, tuple(bought(user, ts, *products))))
    return past


ORDERS = [
    ("u1", -40 * DAY_MS, ["a", "b"]),
    ("u1", -39 * DAY_MS, ["a"]),
    ("u2", -5 * DAY_MS, ["b", "c", "unknown"]),
    ("u3", -4 * DAY_MS, ["c"]),
]


def test_the_past_counts_orders() -> None:
    past = past_of(ORDERS)
    assert past.times("u1") == {"a": 2, "b": 1}
    assert past.times("u2") == {"b": 1, "c": 1, "unknown": 1}
    assert past.totals.tolist() == [2, 2, 2, 0]
    assert past.recent(CUT, 30 * DAY_MS).tolist() == [0, 1, 2, 0]
    assert past.recent(CUT - 38 * DAY_MS, 30 * DAY_MS).tolist() == [2, 1, 0, 0]
    assert past.matrix().toarray().tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def ranked(
    scorer: Popular | OwnMost | Ease | ItemNeighbours, past: Past, user: str, *, new_only: bool = False
) -> list[str]:
    method = Ranked(scorer, past, np.array([True, True, True, True]), popular_ms=30 * DAY_MS)
    task = Task(user, CUT, CUT, frozenset({"a"}), frozenset())
    return asyncio.run(method.lists([task], 4, new_only=new_only))[0]


def test_ties_are_ranked_by_what_is_popular_now() -> None:
    past = past_of(ORDERS)
    assert ranked(Popular("popular", past), past, "u1") == ["c", "b", "a", "d"]
    assert ranked(OwnMost("own", past), past, "u1") == ["a", "b", "c", "d"]
    assert ranked(OwnMost("own", past), past, "u1", new_only=True) == ["c", "d"]
    assert ranked(OwnMost("own", past), past, "nobody") == ["c", "b", "a", "d"]


def test_ease_solves_its_equation() -> None:
    past = past_of(ORDERS)
    ease = Ease(past)
    ease.prepare(CUT)
    bought_at_all = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], float)
    inverse = np.linalg.inv(bought_at_all.T @ bought_at_all + 300 * np.eye(4))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    assert ease.scores("u1") == pytest.approx(weights[0] + weights[1])
    assert ease.scores("nobody").tolist() == [0.0] * 4


def test_own_orders_are_added_to_ease() -> None:
    past = past_of(ORDERS)
    ease = Ease(past)
    both = EaseAndOwn(ease, past)
    both.prepare(CUT)
    assert both.scores("u1") == pytest.approx(ease.scores("u1") + np.array([0.6, 0.3, 0.0, 0.0]))


def test_neighbours_were_bought_by_the_same_customers() -> None:
    past = past_of([("u1", -3, ["a", "b"]), ("u2", -2, ["b", "c"]), ("u3", -1, ["a"])])
    neighbours = ItemNeighbours(past)
    neighbours.prepare(CUT)
    itself, together, never, unsold = neighbours.scores("u3")
    assert itself > together > 0.0
    assert never == unsold == 0.0


def test_a_batch_method_knows_a_new_product_from_its_next_fit_on_and_a_user_at_once() -> None:
    past = past_of([("u1", -3, ["a", "b"]), ("u3", -1, ["a"])])
    neighbours = ItemNeighbours(past)
    neighbours.prepare(CUT)
    past.learn(Order("u2", CUT, tuple(bought("u2", 0, "a", "d"))))
    neighbours.prepare(CUT + 6 * DAY_MS)
    of_a, of_b, _, of_d = neighbours.scores("u2")
    assert of_a > of_b > of_d == 0.0
    neighbours.prepare(CUT + 7 * DAY_MS)
    assert neighbours.scores("u2")[3] > 0.0
