"""What the catalogue says goes together, and what follows from it for products that nobody bought yet."""

from __future__ import annotations

from collections.abc import Iterable

from sinks.derivation import Taste
from sinks.ledgers import Ledger, ProfileState
from sinks.prospects import Found
from sinks.ranking import Candidate, RankingRules, rank
from sinks.scoring import NEW_TO_THE_PERSON, PRIOR
from sinks.statistics import Statistics
from streams.batches import fold_event
from streams.events import Purchase
from streams.profiles import fold, stable_hash
from streams.rules import fold_rules, weights
from streams.settings import load
from streams.statistics.checkpoint import decode_fold, encode_fold
from streams.statistics.fold import Bounds, StatisticsFold

DAY = 86_400_000
START = 1_700_000_000_000
SETTINGS = load(environment={})


def relate(folding: StatisticsFold, product_id: str, *related: str, announced: int = 0) -> bool:
    return folding.relate(product_id, [stable_hash(one) for one in related], announced)


def bought(*baskets: Iterable[str], bounds: Bounds | None = None) -> StatisticsFold:
    """Each basket by another user, a day apart."""
    folding = StatisticsFold(bounds=bounds)
    for number, basket in enumerate(baskets):
        for product_id in basket:
            folding.purchase(stable_hash(f"user-{number}"), product_id, number, START + number * DAY)
    folding.close_orders()
    return folding


def related(statistics: Statistics) -> dict[tuple[str, str], float]:
    ids, (rows, similarity) = statistics.product_ids, statistics.related
    return {
        (ids[row], ids[other]): round(worth, 3)
        for row in range(len(ids))
        for other, worth in zip(rows[row].tolist(), similarity[row].tolist(), strict=True)
        if worth
    }


def shown(statistics: Statistics, *history: str, at: int = START + 9 * DAY) -> list[Candidate]:
    """To somebody who bought these, a day before."""
    state = ProfileState(Ledger(), Ledger())
    events = [
        fold_event(Purchase("ann", one, 1, at - DAY, order_id="o"), offset, "", None, {}, weights(SETTINGS))
        for offset, one in enumerate(history)
    ]
    fold(state.purchases, "purchases", 0, events, fold_rules(SETTINGS).purchases)
    everything = set(statistics.product_ids)
    rules = RankingRules(limit=20, exclude_bought=True)
    return rank(state, Taste(at, None, None, ()), Found(()), {}, everything, rules, statistics)


def test_a_relation_goes_both_ways_and_unknown_products_may_be_named():
    folding = bought(["tent"], ["mug"])
    assert relate(folding, "pegs", "tent", "unheard-of")
    assert related(folding.statistics()) == {("pegs", "tent"): 1.0, ("tent", "pegs"): 1.0}


def test_a_product_that_is_named_and_becomes_known_later_is_related_from_then_on():
    folding = bought(["mug"])
    assert relate(folding, "pegs", "tent")
    assert related(folding.statistics()) == {}
    folding.purchase(1, "tent", 1, START)
    assert related(folding.statistics()) == {("pegs", "tent"): 1.0, ("tent", "pegs"): 1.0}


def test_what_goes_with_everything_goes_with_nothing_in_particular():
    folding = bought(["a", "b", "c", "d"])
    relate(folding, "gift wrap", "a", "b", "c", "d")
    statistics = folding.statistics()
    assert related(statistics)["a", "gift wrap"] == 0.5  # 1 / √(1 · 4)


def test_what_a_product_goes_with_is_replaced_and_nothing_is_done_where_it_is_the_same():
    folding = bought(["tent"], ["mug"])
    assert relate(folding, "pegs", "tent")
    assert not relate(folding, "pegs", "tent")
    assert relate(folding, "pegs", "mug")
    assert related(folding.statistics()) == {("pegs", "mug"): 1.0, ("mug", "pegs"): 1.0}
    assert relate(folding, "pegs")
    assert related(folding.statistics()) == {}
    assert not relate(folding, "never related")
    assert "never related" not in folding.statistics().product_ids


def test_a_new_product_is_shown_to_those_who_bought_what_it_goes_with_and_says_so():
    folding = bought(*[["tent", "mug"]] * 20, *[["kettle"]] * 30)
    relate(folding, "pegs", "tent", announced=START + 8 * DAY)
    first, *_ = shown(folding.statistics(), "tent")
    assert first.product_id == "pegs"
    assert {reason.kind: reason.texts for reason in first.because} == {"related": ("tent",), "new": ()}
    assert [one.product_id for one in shown(folding.statistics(), "kettle")] == ["mug", "tent", "pegs"]


def test_a_product_that_nobody_bought_sits_where_its_kind_sits():
    folding = bought(*[["tent", "stove"]] * 20, *[["mug", "kettle"]] * 20)
    relate(folding, "gas", "stove")
    relate(folding, "tea", "kettle")
    # Who bought a tent buys a stove, and gas goes with stoves.
    assert ("tent", "gas") in related(folding.statistics())
    assert ("mug", "gas") not in related(folding.statistics())
    for bought_before, kin, other in (("tent", "gas", "tea"), ("mug", "tea", "gas")):
        scores = {one.product_id: one.score for one in shown(folding.statistics(), bought_before)}
        assert scores[kin] > scores[other] + 1.0


def learned(*, follows: bool) -> float:
    """The weight of relations in a shop whose customers buy what goes with their last order, or anything but that."""
    folding = StatisticsFold()
    for number in range(10):
        relate(folding, f"part-{number}", f"machine-{number}")
    for number in range(400):
        user, kind = stable_hash(f"user-{number}"), number % 10
        folding.purchase(user, f"machine-{kind}", 1, START + number * DAY // 20)
        then = kind if follows else (kind + 1 + number % 8) % 10
        folding.purchase(user, f"part-{then}", 2, START + number * DAY // 20 + 2 * DAY)
    folding.close_orders()
    return float(folding.statistics().weights.new[NEW_TO_THE_PERSON.index("related")])


def test_how_much_a_relation_counts_is_learned():
    prior = PRIOR.new[NEW_TO_THE_PERSON.index("related")]
    assert learned(follows=False) < prior < learned(follows=True)


def test_relations_survive_a_restart():
    folding = bought(["tent", "mug"], ["tent"])
    relate(folding, "pegs", "tent", announced=START)
    folding.refresh()
    before = folding.statistics()
    again = decode_fold(encode_fold(folding), Bounds())
    assert again is not None
    again.refresh()
    after = again.statistics()
    assert related(after) == related(before)
    assert after.announced.tolist() == before.announced.tolist() == [0, 0, START]


def test_products_that_are_related_and_not_bought_leave_first():
    folding = StatisticsFold(bounds=Bounds(products=10))
    for number in range(30):
        relate(folding, f"part-{number}", "machine")
    for number in range(8):
        folding.purchase(number, f"sold-{number}", 1, START)
    folding.purchase(9, "machine", 1, START)
    folding.close_orders()
    folding.refresh()
    statistics = folding.statistics()
    assert {f"sold-{number}" for number in range(8)} <= {*statistics.product_ids}
    assert len(statistics) == 9
    assert related(statistics) == {}


def test_without_relations_they_take_no_room():
    assert bought(["tent", "mug"]).statistics().related.rows.shape == (2, 0)
