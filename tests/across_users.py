"""Statistics across users by hand, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sinks.clicks import CLICKED_PRODUCTS, ClickTable, query_hash
from sinks.scoring import PRIOR, Weights
from sinks.statistics import NEIGHBOURS, NEVER, RELATED, Neighbourhood, Statistics, no_neighbours


def neighbours_of(
    product_ids: Sequence[str], similarities: Mapping[tuple[str, str], float], most: int = NEIGHBOURS
) -> Neighbourhood:
    """Of each pair both ways."""
    found = no_neighbours(len(product_ids), most)
    row = {product_id: at for at, product_id in enumerate(product_ids)}
    free = [0] * len(product_ids)
    for pair, similarity in similarities.items():
        for one, other in (pair, pair[::-1]):
            found.rows[row[one], free[row[one]]] = row[other]
            found.similarity[row[one], free[row[one]]] = similarity
            free[row[one]] += 1
    return found


def clicks_of(product_ids: Sequence[str], clicks: Mapping[str, Mapping[str, float]]) -> ClickTable:
    """By query and product."""
    row = {product_id: at for at, product_id in enumerate(product_ids)}
    by_hash = sorted((query_hash(query), clicked) for query, clicked in clicks.items())
    products = np.zeros((len(clicks), CLICKED_PRODUCTS), np.int32)
    counts = np.zeros((len(clicks), CLICKED_PRODUCTS), np.float32)
    for place, (_, clicked) in enumerate(by_hash):
        products[place, : len(clicked)] = [row[product_id] for product_id in clicked]
        counts[place, : len(clicked)] = [*clicked.values()]
    return ClickTable(np.array([query for query, _ in by_hash], np.uint64), products, counts)


def statistics_of(
    product_ids: Sequence[str],
    as_of: int,
    *,
    together: Mapping[tuple[str, str], float] | None = None,
    alike: Mapping[tuple[str, str], float] | None = None,
    related: Mapping[tuple[str, str], float] | None = None,
    viewed: Mapping[tuple[str, str], float] | None = None,
    kin: Mapping[tuple[str, str], float] | None = None,
    first_sold: Mapping[str, int] | None = None,
    announced: Mapping[str, int] | None = None,
    weights: Weights = PRIOR,
    clicks: Mapping[str, Mapping[str, float]] | None = None,
    **counts: Mapping[str, float],
) -> Statistics:
    """`clicks` by query and product, `counts` by column and product, 0 where nothing is said; what wasn't sold first at
    some time was never sold.
    """
    sold = first_sold or {}
    columns = {
        name: np.array([counts.get(name, {}).get(product_id, 0.0) for product_id in product_ids], np.float32)
        for name in ("buyers", "repeats", "sold_5", "sold_20", "clicked", "shown", "surprise")
    }
    return Statistics(
        as_of=as_of,
        product_ids=tuple(product_ids),
        first_sold=np.array([sold.get(product_id, NEVER) for product_id in product_ids], np.int64),
        announced=np.array([(announced or {}).get(product_id, 0) for product_id in product_ids], np.int64),
        together=neighbours_of(product_ids, together or {}),
        alike=neighbours_of(product_ids, alike or {}),
        related=neighbours_of(product_ids, related or {}, RELATED if related else 0),
        viewed=neighbours_of(product_ids, viewed or {}, RELATED if viewed else 0),
        kin=neighbours_of(product_ids, kin or {}, RELATED if kin else 0),
        weights=weights,
        clicks=clicks_of(product_ids, clicks or {}),
        **columns,
    )
