"""Who is asked in an evaluation: Afterglow beside baselines, or beside itself with other models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streams.evaluation.baselines import DAY_MS, OwnMost, Popular, Ranked, Scorer
from streams.evaluation.fitted import fitted_baselines
from streams.evaluation.history import History
from streams.evaluation.methods import DecayedAverage, Method, Nearest, Recommended, RecommendedForQuery, Searched
from streams.evaluation.past import Past
from streams.evaluation.rounds import AFTERGLOW, Asked, Counted
from streams.evaluation.texts import EncodedShop
from streams.settings import Settings

_LEXICAL: Final = "TF-IDF for the transformer"
_POPULAR_DAYS: Final = 30  # of orders
_POPULAR_CLICKS_DAYS: Final = 14


def beside_baselines(
    shop: EncodedShop, lexical: EncodedShop, counted: Counted, settings: Settings, *, seed: int
) -> Asked:
    """Afterglow as it is, what is left of it without a part, and what one would use instead.

    `lexical` is the same shop, its texts in the vector space that stands in for the transformer's.
    """
    history, words = History(shop, settings), History(lexical, settings)
    hides_bought = settings.derivation.exclude_bought
    ours: list[Method] = [
        Recommended(AFTERGLOW, history, exclude_bought=hides_bought),
        Recommended(_LEXICAL, words, exclude_bought=hides_bought),
        DecayedAverage("one decayed average", history),
    ]
    orders = _baselines(counted, counted.orders, "most bought by the customer", _POPULAR_DAYS, seed)
    clicks = _baselines(counted, counted.clicks, "most clicked by the user", _POPULAR_CLICKS_DAYS, seed)
    queries: list[Method] = [RecommendedForQuery(AFTERGLOW, history)]
    queries += [Searched("without the person", history), Searched(_LEXICAL, words), clicks[0]]
    return Asked((history, words), [*ours, *orders], [*ours, *clicks], queries)


def of_models(shops: Mapping[str, EncodedShop], settings: Settings) -> Asked:
    """Afterglow with each model, by the model's name, and what its texts alone find: the same shop, encoded by each."""
    histories = {name: History(shop, settings) for name, shop in shops.items()}
    hides_bought = settings.derivation.exclude_bought
    listing: list[Method] = []
    searching: list[Method] = []
    for name, history in histories.items():
        listing.append(Recommended(name, history, exclude_bought=hides_bought))
        listing.append(DecayedAverage(by_texts_alone(name), history))
        searching.append(RecommendedForQuery(name, history))
        searching.append(Nearest(by_texts_alone(name), history.shop))
    return Asked([*histories.values()], listing, listing, searching)


def by_texts_alone(model: str) -> str:
    """The name of the method that ranks by closeness of this model's texts and nothing else."""
    return f"{model}, texts alone"


def _baselines(counted: Counted, past: Past, own: str, popular_days: int, seed: int) -> list[Method]:
    """What is popular comes first."""
    scorers: list[Scorer] = [Popular(f"popular, {popular_days} days", past), OwnMost(own, past)]
    scorers += fitted_baselines(past, seed=seed)
    return [Ranked(scorer, past, counted.available, popular_ms=popular_days * DAY_MS) for scorer in scorers]
