"""A product that nobody bought yet is near what its brand or category is bought with. No title says anything here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sinks.derivation import Taste
from sinks.ledgers import Ledger, ProfileState
from sinks.prospects import Found
from sinks.ranking import Candidate, RankingRules, rank
from sinks.scoring import NEW_TO_THE_PERSON, PRIOR
from sinks.statistics import Statistics
from streams.events import Product, Purchase
from streams.products import kinds_of
from streams.profiles import fold, stable_hash
from streams.rules import fold_rules, weights
from streams.settings import load
from streams.statistics.checkpoint import decode_fold, encode_fold
from streams.statistics.fold import Bounds, StatisticsFold
from streams.updater import fold_event

DAY = 86_400_000
START = 1_700_000_000_000
SETTINGS = load(environment={})
CAMPING, TEA = ("tent", "stove", "mat", "lamp"), ("pot", "cup", "sieve", "tin")


def tell(folding: StatisticsFold, product: Product) -> bool:
    """As the topic of products does."""
    kinds = [stable_hash(kind) for kind in kinds_of(product)]
    return folding.relate(product.product_id, (), product.ts or 0, kinds)


def a_shop(*, together: bool = True) -> StatisticsFold:
    """Two categories, whose members are bought `together`, or each by other people."""
    folding = StatisticsFold()
    for category, products in (("Camping", CAMPING), ("Tea", TEA)):
        for product_id in products:
            tell(folding, Product(product_id, "x", category=category))
    for number in range(60):
        kind = (CAMPING, TEA)[number % 2]
        bought = [one for place, one in enumerate(kind) if place != number // 2 % 4] if together else [kind[number % 4]]
        for product_id in bought:
            folding.purchase(stable_hash(f"user-{number}"), product_id, number, START + number * DAY // 10)
    folding.close_orders()
    folding.refresh()
    return folding


def kin(statistics: Statistics) -> dict[str, set[str]]:
    """By new product, what it is near to."""
    ids, (rows, similarity) = statistics.product_ids, statistics.kin
    found: dict[str, set[str]] = {}
    for row in range(len(ids)):
        for other, worth in zip(rows[row].tolist(), similarity[row].tolist(), strict=True):
            if worth:
                found.setdefault(ids[other], set()).add(ids[row])
    return found


def shown(statistics: Statistics, history: Iterable[str]) -> list[Candidate]:
    """What is new to somebody who bought these the day before."""
    at = START + 7 * DAY
    state = ProfileState(Ledger(), Ledger())
    events = [
        fold_event(Purchase("ann", one, 1, at - DAY, order_id="o"), offset, "", None, {}, weights(SETTINGS))
        for offset, one in enumerate(history)
    ]
    fold(state.purchases, "purchases", 0, events, fold_rules(SETTINGS).purchases)
    rules = RankingRules(limit=20, exclude_bought=True)
    return rank(state, Taste(at, None, None, ()), Found(()), {}, set(statistics.product_ids), rules, statistics)


def test_a_brand_new_product_is_shown_to_those_who_buy_its_category_and_says_so() -> None:
    folding = a_shop()
    assert tell(folding, Product("XK-100", "XK-100", category="camping ", ts=START + 5 * DAY))
    statistics = folding.statistics()
    assert kin(statistics) == {"XK-100": set(CAMPING)}
    camper, drinker = ([one.product_id for one in shown(statistics, kind)] for kind in (CAMPING, TEA))
    assert camper[0] == "XK-100"
    assert drinker[-1] == "XK-100"
    (because,) = [one.because for one in shown(statistics, CAMPING[:2]) if one.product_id == "XK-100"]
    assert {reason.kind for reason in because} == {"kin", "new"}
    assert set(next(reason.texts for reason in because if reason.kind == "kin")) == set(CAMPING[:2])


def test_a_kind_whose_members_are_not_bought_together_lends_nothing() -> None:
    folding = a_shop(together=False)
    tell(folding, Product("XK-100", "XK-100", category="Camping", ts=START + 5 * DAY))
    assert kin(folding.statistics()) == {}


def test_a_brand_lends_as_a_category_does() -> None:
    folding = a_shop()
    tell(folding, Product("pot", "x", brand="Fell", category="Tea"))
    tell(folding, Product("XK-100", "XK-100", brand="Fell", ts=START + 5 * DAY))
    assert kin(folding.statistics()) == {"XK-100": {"cup", "sieve", "tin"}}, "as the brand's product is"


@pytest.mark.parametrize(
    "product",
    [
        Product("XK-100", "XK-100", category="Camping"),
        Product("XK-100", "XK-100", category="Camping", ts=START - 40 * DAY),
        Product("XK-100", "XK-100", category="Camping", ts=START + 5 * DAY, available=False),
        Product("XK-100", "XK-100", ts=START + 5 * DAY),
        Product("XK-100", "XK-100", category="Boats", ts=START + 5 * DAY),
        Product("tent", "x", category="Camping", ts=START + 5 * DAY),
    ],
    ids=["not announced", "long ago", "not available", "of no kind", "of a kind that nothing is of", "bought already"],
)
def test_only_what_is_new_and_of_a_kind_is_lent_to(product: Product) -> None:
    folding = a_shop()
    tell(folding, product)
    assert kin(folding.statistics()) == {}


def test_what_is_gone_is_lent_nothing_any_more() -> None:
    folding = a_shop()
    new = Product("XK-100", "XK-100", category="Camping", ts=START + 5 * DAY)
    assert tell(folding, new)
    assert not tell(folding, new), "said before"
    assert folding.relate("XK-100", (), 0)
    assert kin(folding.statistics()) == {}


def test_a_product_that_sells_or_is_old_changes_nothing_by_being_told_again() -> None:
    folding = a_shop()
    assert not tell(folding, Product("tent", "x", category="Camping", price=3.0, ts=START + 6 * DAY))
    assert not tell(folding, Product("old", "x", category="Camping"))
    assert not tell(folding, Product("old", "x", category="Tea", ts=START - 40 * DAY))


def test_of_a_kind_the_eight_newest_are_lent_to() -> None:
    folding = a_shop()
    for number in range(20):
        tell(folding, Product(f"XK-{number}", "x", category="Tea", ts=START + 5 * DAY + number))
    assert set(kin(folding.statistics())) == {f"XK-{number}" for number in range(12, 20)}


def learned(*, follows: bool) -> float:
    """The weight of kinds where customers buy what is new of the kind that they bought, or things of no kind at all."""
    folding = a_shop()
    for number in range(200):
        at, kind = START + 7 * DAY + number * DAY // 4, number % 2
        for which, category in enumerate(("Camping", "Tea")):
            tell(folding, Product(f"new-{which}-{number // 2}", "x", category=category, ts=at))
        bought = f"new-{kind}-{number // 2}" if follows else f"tool-{number // 2}"
        folding.purchase(stable_hash(f"user-{number % 60}"), bought, 500 + number, at)
        if number % 4 == 0:
            folding.statistics()
    folding.close_orders()
    return float(folding.statistics().weights.new[NEW_TO_THE_PERSON.index("kin")])


def test_how_much_a_kind_counts_is_learned() -> None:
    prior = PRIOR.new[NEW_TO_THE_PERSON.index("kin")]
    assert learned(follows=False) < prior < learned(follows=True)


def test_kinds_survive_a_restart() -> None:
    folding = a_shop()
    tell(folding, Product("XK-100", "XK-100", category="Camping", ts=START + 5 * DAY))
    again = decode_fold(encode_fold(folding), Bounds())
    assert again is not None
    again.refresh()
    assert kin(again.statistics()) == kin(folding.statistics()) == {"XK-100": set(CAMPING)}


def test_beyond_the_bound_the_kinds_told_first_are_forgotten() -> None:
    folding = StatisticsFold(bounds=Bounds(products=10))
    for number in range(50):
        tell(folding, Product(f"p{number}", "x", category="Tea"))
    assert set(folding.kin.kinds) == {stable_hash(f"p{number}") for number in range(30, 50)}


def test_without_kinds_they_take_no_room() -> None:
    folding = StatisticsFold()
    folding.purchase(1, "tent", 1, START)
    folding.close_orders()
    assert folding.statistics().kin.rows.shape == (1, 0)
