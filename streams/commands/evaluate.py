"""`afterglow evaluate`: what recommendations are worth on a shop's own history, beside what others would recommend."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar

import click

from streams.commands.moments import Moment, shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.commands.stages import stages
from streams.settings import Settings

if TYPE_CHECKING:
    from encoders.client import EncoderClient
    from streams.evaluation.comparison import Compared
    from streams.evaluation.evaluation import Options, Report
    from streams.evaluation.files import Shop
    from streams.evaluation.results import RoundResult
    from streams.evaluation.rounds import Round

T = TypeVar("T")

_LIBRARIES: Final = {"implicit": "implicit", "scikit-learn": "sklearn"}
_WIDTH: Final = 180  # of tables, where nobody's terminal sets one


@click.command("evaluate")
@click.option("--products", metavar="FILE", required=True, help="The catalogue.")
@click.option("--purchases", metavar="FILE", help="What was bought: the next order is predicted.")
@click.option("--searches", metavar="FILE", help="What was searched for and clicked: the next click is predicted.")
@click.option("--cut", type=Moment(), metavar="TIME", required=True, help="What happened before is history.")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=20, show_default=True, help="Length of a list.")
@click.option("--prequential", is_flag=True, help="After the cut predict each order, then learn it, and go on.")
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Add meaningless searches: so many for each event before.",
)
@click.option(
    "--dump", type=click.File("wb", lazy=False), metavar="FILE", help="Write the recommendations, a JSON line a task."
)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help="Write PNG plots.")
@click.option(
    "--model",
    "models",
    metavar="MODEL",
    multiple=True,
    help='Encode texts by it: a folder, a hub name, or "" for the packaged one. Twice or more: compare them.',
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of intervals, and of baselines that draw.")
@as_json
@with_settings
def command(
    settings: Settings,
    products: str,
    purchases: str | None,
    searches: str | None,
    cut: int,
    limit: int,
    prequential: bool,
    noise: float,
    dump: IO[bytes] | None,
    plots: Path | None,
    models: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Score recommendations by what customers did next, beside baselines on the same tasks.

    Streams the history up to TIME through the fold, and asks the retrieval for each customer, in this process, without
    Kafka and Qdrant, by the settings in force. Files are JSON lines, plain, .gz or .zst, as `produce` takes them.

    The tasks: the next order of each customer of whom anything is known; with --searches also the next click of those
    who searched before, without the query, and the clicked product, given the query. Without --prequential everything
    is frozen at TIME, and each customer's first order and click after it count; with it, all of them, each predicted
    as of just before it.

    recall@k is hits / min(k, size of the order). "New" is what the customer never bought before: looked for in the
    list of everything, and in a list without what was bought before.

    With several --model, models are compared instead of baselines: the same tasks by each, as it is served and by
    closeness of its texts alone, and what each has more than the first. The long tail are the products of the lower
    eight tenths by what sold before TIME; an unseen query is one that nobody had typed by then.

    --noise .3 adds searches without a meaning to everybody's history before TIME, three for ten of their events:
    misspelt, random letters, codes and product numbers, somebody else's.

    --dump writes Afterglow's lists: {"task", "user_id", "ts", "items": [{"product_id"}], "new_only_items"}, where ts is
    of the order, click or search that was predicted.
    """
    from streams.evaluation.evaluation import Options
    from streams.evaluation.files import read_shop

    if purchases is None and searches is None:
        raise click.UsageError("give --purchases FILE, --searches FILE, or both")
    names = _names(models)
    comparing = len(models) > 1
    if comparing and dump is not None:
        raise click.UsageError("--dump writes the lists of one model: leave it out, or all but one --model")
    _require({**({} if comparing else _LIBRARIES), **({"matplotlib": "matplotlib"} if plots else {})})
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    options = Options(cut, limit, prequential, seed)
    with stages() as report:
        report("reading files", 0, 1)
        shop = read_shop(products, purchases, searches)
        if noise:
            from streams.evaluation.noise import with_noise

            shop = with_noise(shop, noise, cut, seed)
        rounds: list[Round]
        results: Sequence[Sequence[RoundResult | Compared]]
        if comparing:
            rounds, results = _compared(settings, shop, dict(zip(names, models, strict=True)), options, report)
        else:
            rounds, results = _beside_baselines(settings, shop, models, options, report)
    if dump is not None:
        from streams.evaluation.dump import dumped

        dump.writelines(dumped(rounds))
        dump.flush()
    if plots is not None:
        from streams.evaluation.plots import draw

        draw([of_all for of_all, *_ in results], rounds, plots)
    reported = [result for of_one in results for result in of_one]
    if as_json:
        print_json({"cut": cut, "prequential": prequential, "seed": seed, "rounds": reported})
    else:
        _print(reported, options)


def _require(libraries: dict[str, str]) -> None:
    missing = [name for name, module in libraries.items() if find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which this needs for "
            "baselines and plots: pip install '.[evaluate]' in Afterglow's folder (`make install` does)"
        )


def _beside_baselines(
    settings: Settings, shop: Shop, models: Sequence[str], options: Options, report: Report
) -> tuple[list[Round], list[list[RoundResult]]]:
    """By the given model; by the encoding worker that is set or runs; by one of its own where there is none."""
    from streams.evaluation.evaluation import evaluate
    from streams.evaluation.fitted import left_out
    from streams.evaluation.results import results_of

    for told in left_out(len(shop.products)):
        click.echo(told, err=True)
    model = models[0] if models else None
    rounds = _encoding(settings, model, report, lambda encoder: evaluate(shop, encoder, settings, options, report))
    report("drawing intervals", 0, 1)
    return rounds, [results_of(round_, limit=options.limit, seed=options.seed) for round_ in rounds]


def _compared(
    settings: Settings, shop: Shop, models: Mapping[str, str], options: Options, report: Report
) -> tuple[list[Round], list[list[Compared]]]:
    """One model after the other encodes the texts; then all of them are asked the same."""
    from encoders.text import normalise
    from streams.evaluation.comparison import compared
    from streams.evaluation.evaluation import compare
    from streams.evaluation.texts import encode_shop

    encoded = {}
    for name, model in models.items():
        report(f"encoding texts by {name}", 0, 1)
        encoded[name] = _encoding(settings, model, report, lambda encoder: encode_shop(shop, encoder))
    rounds = asyncio.run(compare(shop, encoded, settings, options, report))
    report("drawing intervals", 0, 1)
    seen = {normalise(search.query) for search in shop.searches if search.ts < options.cut}
    results = compared(rounds, [*encoded], seen, limit=options.limit, seed=options.seed)
    return rounds, [[one for one in results if one.kind == round_.kind] for round_ in rounds]


def _names(models: Sequence[str]) -> list[str]:
    """What models are called in tables: the last part of each, or where that is not its own, all of it."""
    if len(set(models)) < len(models):
        raise click.UsageError("the same --model is given twice: there is nothing to compare")
    short = [Path(model).name or "packaged" for model in models]
    return [one if short.count(one) == 1 else model for one, model in zip(short, models, strict=True)]


def _encoding(
    settings: Settings, model: str | None, report: Report, work: Callable[[EncoderClient], Awaitable[T]]
) -> T:
    """What `work` makes with an encoding worker: one of its own of the given model; else that which is set or runs."""
    from encoders.client import EncoderClient
    from streams.commands.own_encoder import encoding_with
    from streams.reading import ENCODER_SECONDS

    async def run(address: str) -> T:
        encoder = EncoderClient(address)
        try:
            async with asyncio.timeout(ENCODER_SECONDS):
                await encoder.describe()
            return await work(encoder)
        except TimeoutError:
            raise click.ClickException(
                f"the encoding worker at {address} did not answer in {ENCODER_SECONDS:.0f} s: start `afterglow "
                "encoder`, or leave out encoder.address, and this command has its own"
            ) from None
        finally:
            await encoder.close()

    if model is None and settings.encoder.address:
        return asyncio.run(run(settings.encoder_address))
    report("loading the model", 0, 1)
    with encoding_with(settings, settings.encoder.model if model is None else model) as served:
        return asyncio.run(run(served.encoder_address))


def _print(results: Sequence[RoundResult | Compared], options: Options) -> None:
    from rich.console import Console

    from streams.evaluation.comparison import Compared
    from streams.evaluation.table import tables, tables_of_models

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    running = "each predicted, then learned" if options.prequential else "frozen at the cut"
    console.print(f"cut {shown(options.cut)} UTC; {running}; lists of {options.limit}")
    for result in results:
        for title, table in tables_of_models(result) if isinstance(result, Compared) else tables(result):
            console.print(f"\n[bold]{title}")
            console.print(table)
