"""`afterglow evaluate`: what recommendations are worth on a shop's own history, beside what others would recommend."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from streams.commands.moments import Moment, shown
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.evaluation.evaluation import Options
    from streams.evaluation.files import Shop
    from streams.evaluation.results import RoundResult
    from streams.evaluation.rounds import Round

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

    --noise .3 adds searches without a meaning to everybody's history before TIME, three for ten of their events:
    misspelt, random letters, codes and product numbers, somebody else's.

    --dump writes Afterglow's lists: {"task", "user_id", "ts", "items": [{"product_id"}], "new_only_items"}, where ts is
    of the order, click or search that was predicted.
    """
    from streams.evaluation.evaluation import Options
    from streams.evaluation.files import read_shop
    from streams.evaluation.fitted import left_out
    from streams.evaluation.results import results_of

    if purchases is None and searches is None:
        raise click.UsageError("give --purchases FILE, --searches FILE, or both")
    _require({**_LIBRARIES, "matplotlib": "matplotlib"} if plots else _LIBRARIES)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    options = Options(cut, limit, prequential, seed)
    with _progress() as report:
        report("reading files", 0, 1)
        shop = read_shop(products, purchases, searches)
        if noise:
            from streams.evaluation.noise import with_noise

            shop = with_noise(shop, noise, cut, seed)
        for told in left_out(len(shop.products)):
            click.echo(told, err=True)
        rounds = _evaluated(settings, shop, options, report)
        report("drawing intervals", 0, 1)
        results = [results_of(round_, limit=limit, seed=seed) for round_ in rounds]
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


def _evaluated(
    settings: Settings, shop: Shop, options: Options, report: Callable[[str, int, int], None]
) -> list[Round]:
    """By the encoding worker that is set or runs; by one of its own where there is none."""
    from encoders.client import EncoderClient
    from streams.commands.own_encoder import encoding_with
    from streams.evaluation.evaluation import evaluate
    from streams.reading import ENCODER_SECONDS

    async def run(address: str) -> list[Round]:
        encoder = EncoderClient(address)
        try:
            async with asyncio.timeout(ENCODER_SECONDS):
                await encoder.describe()
            return await evaluate(shop, encoder, settings, options, report)
        except TimeoutError:
            raise click.ClickException(
                f"the encoding worker at {address} did not answer in {ENCODER_SECONDS:.0f} s: start `afterglow "
                "encoder`, or leave out encoder.address, and this command has its own"
            ) from None
        finally:
            await encoder.close()

    report("loading the model", 0, 1)
    theirs = nullcontext(settings) if settings.encoder.address else encoding_with(settings, settings.encoder.model)
    with theirs as served:
        return asyncio.run(run(served.encoder_address))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal's standard error; elsewhere a line for each thing that begins."""
    if not sys.stderr.isatty():
        told = ""

        def tell(what: str, _: int, __: int) -> None:
            nonlocal told
            if what != told:
                told = what
                click.echo(what, err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=max(of, 1))


def _print(results: list[RoundResult], options: Options) -> None:
    from rich.console import Console

    from streams.evaluation.table import tables

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    running = "each predicted, then learned" if options.prequential else "frozen at the cut"
    console.print(f"cut {shown(options.cut)} UTC; {running}; lists of {options.limit}")
    for result in results:
        for title, table in tables(result):
            console.print(f"\n[bold]{title}")
            console.print(table)
