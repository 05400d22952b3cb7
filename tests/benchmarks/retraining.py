"""A model retrained each month beside one that never was, on the months of a real shop; a plot and JSON.

    PYTHONPATH=tests python -m benchmarks.retraining --data ../shared/data/online-retail --out months

As `afterglow retrain` does it: at the beginning of each month the model in service is trained on what came before (the
newest tenth tells when to stop), both predict the month, and the new one takes over unless it is worse or no better.
Reported is what the month's lists were worth with the model that was in service during it, beside the packaged model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from encoders import model as serving
from encoders.protocol import TextKind
from encoders.text import clean
from encoders.training.training import Options, train
from streams.evaluation import evaluation
from streams.evaluation.comparison import Measure, compared, measures
from streams.evaluation.evaluation import compare
from streams.evaluation.files import Shop, read_shop
from streams.evaluation.rounds import Round
from streams.evaluation.texts import EncodedShop, encode_shop
from streams.rollout.judgement import in_words, moments
from streams.settings import load
from streams.training.mining import Splits, mine

MONTHS: Final = ["2011-04-01", "2011-05-01", "2011-06-01", "2011-07-01", "2011-08-01", "2011-09-01", "2011-10-01"]
VALIDATION: Final = 0.1
LIMIT: Final = 20


class InProcess:
    """The API of `EncoderClient`, by a model in this process."""

    def __init__(self, model: str) -> None:
        self._model = serving.load(model)

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        tokens = self._model.tokenise([self._model.input_text(clean(text), kind) for text in texts])
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        vectors = np.empty((len(tokens), self._model.description.dimension), np.float32)
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            vectors[rows] = self._model.launch([tokens[row] for row in rows]).vectors()
        return vectors


def ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def until(shop: Shop, end: int) -> Shop:
    """What had happened by then."""
    return shop._replace(
        purchases=[one for one in shop.purchases if one.ts < end],
        searches=[one for one in shop.searches if one.ts < end],
    )


def trained(shop: Shop, parent: str, start: int, end: int, out: Path, options: Options) -> None:
    """From what came before `start`; the month from there to `end` is the test."""
    before = [ts for ts in moments(shop) if ts < start]
    splits = Splits(before[-round(VALIDATION * len(before))], start, end)
    half_life_ms = load(environment={}).profiles.half_life_long.milliseconds
    examples = mine(shop.products, shop.purchases, shop.searches, splits, half_life_ms=half_life_ms, seed=options.seed)
    train(
        examples,
        parent,
        out,
        options,
        lambda what, done, of: click.echo(f"{out.name}: {what} ({done} of {of})", err=True),
    )


def encoded(model: str, shop: Shop) -> EncodedShop:
    return asyncio.run(encode_shop(shop, InProcess(model)))


def months(shop: Shop, folder: Path, options: Options) -> Iterator[dict[str, Any]]:
    in_service = ""
    for month, following in pairwise(MONTHS):
        start, end = ms(month), ms(following)
        known = until(shop, end)
        out = folder / month
        if not out.exists():
            trained(known, in_service, start, end, out, options)
        texts = {model: encoded(model, known) for model in dict.fromkeys(["", in_service, str(out)])}
        asked = evaluation.Options(start, LIMIT, prequential=False, seed=options.seed)
        rounds = asyncio.run(compare(known, texts, load(environment={}), asked))

        def beside(first: str, second: str, rounds: Sequence[Round] = rounds) -> list[Measure]:
            return measures(compared(rounds, [first, second], (), limit=LIMIT, seed=options.seed), second)

        judged = beside(in_service, str(out))
        gain = sum(one.difference.mean / one.before for one in judged)
        rolled_out = gain > 0 and not any(one.worse for one in judged)
        if rolled_out:
            in_service = str(out)
        yield {
            "month": month,
            "rolled_out": rolled_out,
            "why": [in_words(one) for one in judged],
            "measures": [
                {"metric": one.metric, "texts_alone": one.texts_alone, "never": one.before, "retrained": one.after,
                 "low": one.difference.low, "high": one.difference.high}
                for one in (beside("", in_service) if in_service else [])
            ],
        }  # fmt: skip


def draw(found: Sequence[dict[str, Any]], file: Path) -> None:
    from matplotlib.figure import Figure

    found = [month for month in found if month["measures"]]  # before the first one took over, both are one
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, alone, title in zip(panels, (True, False), ("by texts alone", "as served"), strict=True):
        rows = [
            one
            for month in found
            for one in month["measures"]
            if (one["metric"], one["texts_alone"]) == ("recall_new_in_new_only_list", alone)
        ]
        names = [datetime.fromisoformat(month["month"]).strftime("%b") for month in found]
        axes.plot(names, [one["never"] for one in rows], marker="o", color="#8d99ae", label="never trained")
        axes.errorbar(
            names,
            [one["retrained"] for one in rows],
            yerr=[(one["high"] - one["low"]) / 2 for one in rows],
            marker="o",
            color="#d1495b",
            label="retrained each month (95% of the difference)",
        )
        axes.set_title(f"recall@20 of products new to the customer, {title}", fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(file, dpi=80)


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--steps", default=40, show_default=True)
@click.option("--tune", default="top-3", show_default=True)
@click.option("--half", is_flag=True, help="Matrix products in bfloat16.")
@click.option("--seed", default=1, show_default=True)
def main(data: Path, out: Path, steps: int, tune: str, half: bool, seed: int) -> None:
    """Trains each month, and prints a JSON line a month; killed, it goes on with the month it was at."""
    out.mkdir(parents=True, exist_ok=True)
    shop = read_shop(str(data / "products.jsonl.gz"), str(data / "purchases.jsonl.gz"), None)
    found = []
    for month in months(shop, out, Options(steps=steps, tune=tune, half=half, seed=seed)):
        found.append(month)
        click.echo(json.dumps(month, ensure_ascii=False))
        draw(found, out / "retraining.png")


if __name__ == "__main__":
    main()
