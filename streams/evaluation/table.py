"""An evaluation as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.table import Table

from streams.evaluation.bootstrap import Interval
from streams.evaluation.comparison import LONG_TAIL, UNSEEN, Compared
from streams.evaluation.results import Figures, RoundResult
from streams.evaluation.tasks import NEXT_CLICK, NEXT_ORDER, QUERY

TITLES: Final = {NEXT_ORDER: "Next order", NEXT_CLICK: "Next click, query not given", QUERY: "Query → clicked product"}
_COVERAGE: Final = "coverage_mixed_list"


def headings(limit: int) -> dict[str, str]:
    """What each figure is called, in the order of columns."""
    short = min(5, limit)
    return {
        "recall": f"recall@{limit}",
        f"recall_at_{short}": f"recall@{short}",
        "ndcg": f"NDCG@{limit}",
        "mrr": f"MRR@{limit}",
        "precision": f"prec.@{limit}",
        "recall_new_in_mixed_list": "new, in the\nmixed list",
        "recall_new_in_new_only_list": "new, in a list\nof new only",
        LONG_TAIL: "of the\nlong tail",
        UNSEEN: f"MRR@{limit} of\nunseen queries",
        _COVERAGE: "coverage,\nmixed list",
        "coverage_new_only_list": "coverage,\nnew only",
    }


def tables(result: RoundResult) -> Iterable[tuple[str, Table]]:
    """Titles and tables: the figures, what Afterglow has more, and recall by how popular a product was."""
    yield _figures(result)
    more = {method.method: method.afterglow_minus_this for method in result.methods[1:]}
    yield "Afterglow minus each, paired; * the interval leaves out 0", _differences(result, more)
    yield _deciles(result)


def tables_of_models(result: Compared) -> Iterable[tuple[str, Table]]:
    """Titles and tables: the figures, what each model has more than the first, and recall by popularity."""
    yield _figures(result)
    more = {method.method: method.minus_first for method in result.methods if method.minus_first}
    first = result.methods[0].method
    yield (
        f"each minus {first} (texts alone: minus its), paired; * the interval leaves out 0",
        _differences(result, more),
    )
    yield _deciles(result)


def _figures(result: RoundResult | Compared) -> tuple[str, Table]:
    which = ", the first after the cut of each user known by then" if result.only_first else ""
    title = f"{TITLES[result.kind]}{which}: {result.tasks:,} tasks of {result.users:,} users"
    shown = _shown(result)
    figures = _table(shown.values())
    for method in result.methods:
        cells = {name: _interval(method.metrics.get(name)) for name in shown}
        cells[_COVERAGE] = f"{method.coverage_mixed_list:.3f}"
        if method.coverage_new_only_list is not None:
            cells["coverage_new_only_list"] = f"{method.coverage_new_only_list:.3f}"
        figures.add_row(method.method, *(cells[name] for name in shown))
    return f"{title}, 95% intervals", figures


def _differences(result: RoundResult | Compared, more: Mapping[str, Mapping[str, Interval]]) -> Table:
    compared = {name: heading for name, heading in _shown(result).items() if not name.startswith("coverage")}
    differences = _table(compared.values())
    for method, intervals in more.items():
        differences.add_row(method, *(_difference(intervals.get(name)) for name in compared))
    return differences


def _deciles(result: RoundResult | Compared) -> tuple[str, Table]:
    deciles = _table(f"{decile.decile}" for decile in result.methods[0].deciles)
    deciles.add_row("(wanted)", *(f"{decile.wanted:,}" for decile in result.methods[0].deciles))
    for method in result.methods:
        deciles.add_row(method.method, *("" if one.recall is None else f"{one.recall:.3f}" for one in method.deciles))
    return "recall by popularity before the cut: tenths of the catalogue, 10 the most popular", deciles


def _shown(result: RoundResult | Compared) -> dict[str, str]:
    return {name: heading for name, heading in headings(result.limit).items() if _has(result.methods[0], name)}


def _has(first: Figures, name: str) -> bool:
    if name == "coverage_new_only_list":
        return first.coverage_new_only_list is not None
    return name == _COVERAGE or name in first.metrics


def _table(columns: Iterable[str]) -> Table:
    table = Table("", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.mean:.3f} ±{(interval.high - interval.low) / 2:.3f}"


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return ""
    certain = "*" if interval.low > 0 or interval.high < 0 else " "
    return f"{interval.mean:+.3f} ±{(interval.high - interval.low) / 2:.3f}{certain}"
