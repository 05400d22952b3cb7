"""`afterglow train`: the model learns from what the shop's customers searched for and bought."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from streams.commands.moments import Moment
from streams.commands.options import as_json, with_settings
from streams.commands.output import print_json, print_table
from streams.commands.stages import stages
from streams.commands.tuning import Tune, half_precision, use_threads
from streams.settings import Settings

if TYPE_CHECKING:
    from encoders.training.measure import Score
    from encoders.training.pairs import Examples
    from encoders.training.training import Report, TrainingResult
    from streams.evaluation.files import Shop
    from streams.models import Loadable
    from streams.training.labels import Label

_GROUPS: Final = {
    "all": "all",
    "tail": "of the long tail",
    "unseen_products": "of products never seen",
    "unseen_queries": "of queries never seen",
}


@click.command("train")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", required=True, help="The folder to make.")
@click.option(
    "--model", metavar="MODEL", help="What to begin from.  [default: the model in force; with files, encoder.model]"
)
@click.option("--products", metavar="FILE", help="The catalogue.  [default: all three from the topics]")
@click.option("--purchases", metavar="FILE", help="What was bought.")
@click.option("--searches", metavar="FILE", help="What was searched for and clicked.")
@click.option("--labels", metavar="FILE", help='Judgements: {"query", "product_id", "relevance"}, a JSON line each.')
@click.option("--validation-from", type=Moment(), metavar="TIME", help="Learn what was before.  [default: four fifths]")
@click.option("--test-from", type=Moment(), metavar="TIME", help="Where the test begins.  [default: the last tenth]")
@click.option("--until", type=Moment(), metavar="TIME", help="Leave out what was from then on.")
@click.option("--tune", type=Tune(), default="top-3", show_default=True, help="Which weights are trained.")
@click.option("--steps", type=click.IntRange(min=1), default=120, show_default=True, help="At most.")
@click.option("--batch", type=click.IntRange(min=2), default=128, show_default=True, help="Pairs of a step.")
@click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Batches of a step.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="[default: 0.0002; of head and lora 0.002]",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), default=0.01, show_default=True)
@click.option("--dropout", type=click.FloatRange(min=0, max=0.9), default=0.1, show_default=True)
@click.option(
    "--hard-negatives",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="For each search, of the nearest.",
)
@click.option(
    "--balance",
    type=click.FloatRange(min=0, max=1),
    default=0.0,
    show_default=True,
    help="A pair weighs (times its product was seen) to the power of minus this.",
)
@click.option("--augment", is_flag=True, help="Misspell, shorten, reorder and lengthen some of the queries.")
@click.option(
    "--back-translation",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    nargs=2,
    metavar="THERE BACK",
    help="Model folders that translate, by whom some of the queries are put otherwise.",
)
@click.option(
    "--adversarial",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Noise where the loss is greater, as a share of what the trained layers are given.",
)
@click.option(
    "--symmetric",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of the reverse cross-entropy, for pairs that were no choice.",
)
@click.option(
    "--kinds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of a second task: the category of what is clicked or bought next.",
)
@click.option(
    "--soup",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trainings, by seeds from --seed on, whose weights are averaged.",
)
@click.option(
    "--mix/--no-mix",
    default=True,
    show_default=True,
    help="Mix evaluations and the model itself, where that costs nothing, or keep the best as it is.",
)
@click.option(
    "--precision",
    type=click.Choice(("auto", "bfloat16", "float32")),
    default="auto",
    show_default=True,
    help="Of matrix products; auto: bfloat16 where the device has it.",
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="Compute threads on a CPU.  [default: every core]"
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--tensorboard", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help="Write measures."
)
@as_json
@with_settings
def command(
    settings: Settings,
    /,
    out: Path,
    model: str | None,
    products: str | None,
    purchases: str | None,
    searches: str | None,
    labels: str | None,
    validation_from: int | None,
    test_from: int | None,
    until: int | None,
    precision: str,
    threads: int,
    seed: int,
    tensorboard: Path | None,
    back_translation: tuple[Path, Path] | None,
    as_json: bool,
    **given: str | int | float | bool | None,
) -> None:
    """Tune the model on what was clicked and bought after a search, and bought by who had bought what.

    From files (JSON lines, plain, .gz or .zst, as `produce` takes them) or, without --products, from the topics. Learns
    what was before --validation-from; keeps the weights that are best on the validation, and measures them on the test:
    customers that nothing was learned from, later than all that was. Measured is the closeness of vectors alone.

    The result is a model folder with a model card, for `afterglow replay --model FOLDER`. It appears whole or not at
    all; killed, the same command goes on from its last evaluation.
    """
    from transformers.utils.logging import disable_progress_bar

    from encoders.training.training import Options, train
    from streams.training.mining import companions

    _check(products, purchases, searches, labels, tensorboard, given["tune"])
    disable_progress_bar()  # type: ignore[no-untyped-call]  # ours says more
    use_threads(threads)
    with stages() as report:
        report("reading what happened", 0, 1)
        shop, facts = _shop(settings, products, purchases, searches, report)
        report("mining pairs", 0, 1)
        judged = _labels(labels)
        examples = _mined(settings, shop, judged, validation_from, test_from, until, seed, facts)
        options = Options(**given, seed=seed, half=half_precision(precision, settings.encoder.device))  # type: ignore[arg-type]
        parent = _parent(settings, model, from_topics=products is None)
        rewritten = _rewritten(back_translation, examples, settings.encoder.device, report)
        result = train(
            examples,
            parent.source,
            out,
            options,
            report,
            device=settings.encoder.device,
            query_prefix=parent.query_prefix,
            product_prefix=parent.product_prefix,
            companions=companions(shop.products),
            rewritten=rewritten,
            tensorboard=tensorboard,
        )
    if as_json:
        print_json(result)
    else:
        _print(result)


def _check(
    products: str | None,
    purchases: str | None,
    searches: str | None,
    labels: str | None,
    tensorboard: Path | None,
    tune: object,
) -> None:
    if products is None and (purchases or searches or labels):
        raise click.UsageError("give --products FILE as well: what the products are called")
    if products is not None and not (purchases or searches or labels):
        raise click.UsageError("give --purchases FILE, --searches FILE, --labels FILE, or some of them")
    needed = {"tensorboard": ("--tensorboard", tensorboard is not None), "peft": ("--tune lora", tune == "lora")}
    for library, (option, given) in needed.items():
        if given and find_spec(library) is None:
            raise click.ClickException(
                f"{library} is not installed, which {option} needs: pip install '.[train]' in Afterglow's folder "
                "(`make install` does)"
            )


def _shop(
    settings: Settings, products: str | None, purchases: str | None, searches: str | None, report: Report
) -> tuple[Shop, dict[str, dict[str, str]]]:
    """What happened, and, where it is from the topics, which these were."""
    if products is not None:
        from streams.evaluation.files import read_shop

        return read_shop(products, purchases, searches), {}
    from streams.training.topics import extent_now, read_history

    extent = extent_now(settings)
    return read_history(settings, extent, report).shop, {"topics": extent.topics}


def _labels(name: str | None) -> list[Label]:
    from streams.training.labels import read_labels

    return [] if name is None else read_labels(name)


def _mined(
    settings: Settings,
    shop: Shop,
    labels: list[Label],
    validation_from: int | None,
    test_from: int | None,
    until: int | None,
    seed: int,
    facts: dict[str, dict[str, str]],
) -> Examples:
    import dataclasses

    from streams.training.mining import Splits, mine, splits_of

    if shop.purchases or shop.searches or not labels:
        splits = splits_of(
            shop.purchases, shop.searches, validation_from=validation_from, test_from=test_from, until=until
        )
    else:
        splits = Splits(0, 0, 0)  # labels have no time
    half_life_ms = settings.profiles.half_life_long.milliseconds
    examples = mine(
        shop.products, shop.purchases, shop.searches, splits, half_life_ms=half_life_ms, seed=seed, labels=labels
    )
    return dataclasses.replace(examples, facts={**examples.facts, **facts})


def _rewritten(
    models: tuple[Path, Path] | None, examples: Examples, device: str, report: Report
) -> dict[str, list[str]]:
    if models is None:
        return {}
    from encoders.training.pairs import Seen
    from encoders.training.translation import there_and_back

    return there_and_back(sorted(Seen(examples.pairs).queries), *models, device=device, report=report)


def _parent(settings: Settings, model: str | None, *, from_topics: bool) -> Loadable:
    from streams.models import Loadable, model_as_set, model_in_force

    if model is not None:
        return Loadable(model, settings.encoder.query_prefix or None, settings.encoder.product_prefix or None)
    return model_in_force(settings) if from_topics else model_as_set(settings)


def _print(result: TrainingResult) -> None:
    for split in ("validation", "test"):
        before, after = getattr(result.before, split), getattr(result.after, split)
        rows = [
            *_rows("query → product, MRR", "mrr", before.queries, after.queries),
            *_rows("bought → bought next, recall@20", "recall", before.purchases, after.purchases),
        ]
        click.secho(f"\n{split}", bold=True)
        print_table(("", "", "asked", "before", "after", "change"), rows)
    if not result.steps:
        click.secho(
            f"\nNo step was better on the validation than {result.parent.name}, beyond chance: {result.folder} has its "
            "weights"
        )
        return
    of_what = f"the mean of {result.steps} steps" if result.averaged else f"step {result.steps}"
    kept = "" if result.share == 1 else f", mixed with {1 - result.share:.0%} of {result.parent.name}"
    click.secho(f"\n{result.folder} ({result.identity}), the weights of {of_what}{kept}", fg="green", bold=True)
    click.echo(f"from {result.parent.name} ({result.parent.identity}) in {result.seconds:,.0f} s; roll it out:")
    click.echo(f"  afterglow replay --model {result.folder}")


def _rows(
    what: str, metric: str, before: dict[str, Score], after: dict[str, Score]
) -> list[tuple[str, str, int, str, str, str]]:
    rows = []
    for group, score in before.items():
        old, new = getattr(score, metric), getattr(after[group], metric)
        change = f"{100 * (new / old - 1):+.0f}%" if old else ""
        rows.append((what, _GROUPS[group], score.probes, f"{old:.4f}", f"{new:.4f}", change))
    return rows
