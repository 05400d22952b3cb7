"""How well what is searched for could be found at all, beside how well it is: by how often its query was clicked.

    PYTHONPATH=tests python -m benchmarks.clicks --data ../shared/data/game-searches --model models/games \
        --validation-from 2011-09-13 --test-from 2011-09-15

People who type the same click different products, so that no ranking has an MRR of 1. Beside the models, two rankings
that know what none of them can:

- *others' clicks*: a query's products by all clicks that followed it but the one that is asked for, later ones among
  them. Of queries that hundreds typed, no ranking that is the same for everybody does better but by chance.
- *at best*: by the clicks that are asked for themselves, which no such ranking can beat. It is right about whatever was
  typed once, so that it says little of rare queries.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import click
import numpy as np
from benchmarks.retraining import InProcess, ms
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.text import normalise
from encoders.training.measure import catalogue_of, judge
from encoders.training.pairs import Examples, Probe, Seen
from streams.evaluation.files import Shop, read_shop
from streams.settings import load
from streams.training.mining import mine, splits_of

Clicks: TypeAlias = Mapping[str, Counter[str]]  # by query, of each product

GROUPS: Final = (
    ("all", 1, np.inf),
    ("clicked once", 1, 2),
    ("2 to 9 times", 2, 10),
    ("10 to 99 times", 10, 100),
    ("100 times and more", 100, np.inf),
)


def clicks_of(shop: Shop) -> Clicks:
    """All there are."""
    return _counted(
        (normalise(search.query), search.clicked_product_id)
        for search in shop.searches
        if search.clicked_product_id is not None
    )


def wanted_of(probes: Iterable[Probe]) -> Clicks:
    """Those that are asked for."""
    return _counted((probe.lefts[0], product_id) for probe in probes for product_id in probe.wanted)


def _counted(clicks: Iterable[tuple[str, str]]) -> Clicks:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for query, product_id in clicks:
        counts[query][product_id] += 1
    return counts


def by_clicks(probe: Probe, clicks: Clicks, *, but: int = 0) -> float:
    """The reciprocal rank of what was clicked, of a tie the mean over its places; 0 where nothing knows it.

    Left out are so many clicks of it.
    """
    (wanted,) = probe.wanted
    of_query = clicks[probe.lefts[0]]
    times = of_query[wanted] - but
    others = [count for product_id, count in of_query.items() if product_id != wanted]
    above, tied = sum(count > times for count in others), sum(count == times for count in others)
    return float(np.mean([1.0 / (above + place) for place in range(1, tied + 2)])) if times else 0.0


def by_model(model: str, examples: Examples, probes: Sequence[Probe], seen: Seen) -> NDArray[np.float64]:
    """The reciprocal rank of what was clicked, of each probe."""
    served = InProcess(model)

    def encode(texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        return asyncio.run(served.encode(texts, kind))

    return judge(catalogue_of(examples, encode), encode, probes, seen).queries["all"].mrr


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--model", "models", multiple=True, required=True, help="Beside the packaged one.")
@click.option("--validation-from", required=True, help="A day.")
@click.option("--test-from", required=True, help="A day.")
@click.option("--seed", default=1, show_default=True, help="That of the training: it says who is asked about.")
def main(data: Path, models: Sequence[str], validation_from: str, test_from: str, seed: int) -> None:
    """Prints the mean reciprocal rank of what was clicked, for the validation and the test of such a training."""
    shop = read_shop(str(data / "products.jsonl.gz"), None, str(data / "searches.jsonl.gz"))
    clicks = clicks_of(shop)
    splits = splits_of([], shop.searches, validation_from=ms(validation_from), test_from=ms(test_from))
    half_life_ms = load(environment={}).profiles.half_life_long.milliseconds
    examples = mine(shop.products, [], shop.searches, splits, half_life_ms=half_life_ms, seed=seed)
    seen = Seen(examples.pairs)
    for split, probes in (("validation", examples.validation), ("test", examples.test)):
        wanted = wanted_of(probes)
        ranks = {name or "packaged": by_model(name, examples, probes, seen) for name in ("", *models)}
        ranks["others' clicks"] = np.array([by_clicks(probe, clicks, but=1) for probe in probes])
        ranks["at best"] = np.array([by_clicks(probe, wanted) for probe in probes])
        click.echo(_line(split, "asked", ranks))
        times = np.array([clicks[probe.lefts[0]].total() for probe in probes])
        for label, least, most in GROUPS:
            of = (times >= least) & (times < most)
            click.echo(_line(label, f"{of.sum():,}", [f"{rank[of].mean():.3f}" for rank in ranks.values()]))


def _line(label: str, asked: str, values: Iterable[str]) -> str:
    return f"{label:>20} {asked:>7} " + " ".join(f"{value[-20:]:>20}" for value in values)


if __name__ == "__main__":
    main()
