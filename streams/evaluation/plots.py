"""An evaluation as PNG plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from streams.evaluation.comparison import Compared
from streams.evaluation.results import RoundResult, values_of
from streams.evaluation.rounds import Round
from streams.evaluation.table import TITLES, headings

_WEEK_MS: Final = 7 * 86_400_000
_OURS: Final = "#d1495b"
_THEIRS: Final = "#8d99ae"
_COLOURS: Final = 32
_PANELS: Final = 4  # side by side
_TASKS_OF_A_POINT: Final = 20  # a mean of fewer is noise


def draw(results: Sequence[RoundResult | Compared], rounds: Sequence[Round], folder: Path) -> list[Path]:
    """Three files for each kind of task: every method's figures, recall by popularity, and recall week by week."""
    drawn = []
    for result, round_ in zip(results, rounds, strict=True):
        for name, figure in (
            ("methods", _methods(result)),
            ("long-tail", _long_tail(result)),
            ("weeks", _weeks(result, round_)),
        ):
            figure.suptitle(f"{TITLES[result.kind]}: {result.tasks:,} tasks of {result.users:,} users")
            path = folder / f"{result.kind.replace('_', '-')}-{name}.png"
            _save(figure, path)
            drawn.append(path)
    return drawn


def _save(figure: Figure, path: Path) -> None:
    """In 32 colours, which is a third of the bytes: they are kept beside a page."""
    whole = BytesIO()
    figure.savefig(whole, format="png")
    with Image.open(whole) as image:
        image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _methods(result: RoundResult | Compared) -> Figure:
    """Bars with 95% intervals, the first method on top. What is of the catalogue as a whole has no interval."""
    methods = result.methods[::-1]
    names = [method.method for method in methods]
    colours = [*[_THEIRS] * (len(names) - 1), _OURS]
    shown = {name: heading for name, heading in headings(result.limit).items() if name in methods[0].metrics}
    rows = math.ceil((len(shown) + 1) / _PANELS)
    figure = Figure(figsize=(3.2 * _PANELS + 2, rows * (0.35 * len(methods) + 0.8)), layout="constrained")
    panels = figure.subplots(rows, _PANELS, sharey=True).ravel()
    for axes, (name, heading) in zip(panels, shown.items(), strict=False):
        found = [method.metrics[name] for method in methods]
        means = np.array([interval.mean for interval in found])
        errors = np.array([(interval.mean - interval.low, interval.high - interval.mean) for interval in found]).T
        axes.barh(names, means, xerr=np.maximum(errors, 0.0), color=colours)
        axes.set_title(heading.replace("\n", " "), fontsize=10)
    coverage = panels[len(shown)]
    coverage.barh(names, [method.coverage_mixed_list for method in methods], color=colours)
    coverage.set_title("coverage, mixed list", fontsize=10)
    for unused in panels[len(shown) + 1 :]:
        unused.set_axis_off()
    return figure


def _long_tail(result: RoundResult | Compared) -> Figure:
    figure, axes = _lines("products by popularity before the cut, in tenths (10: the best sellers)", "recall")
    for method in result.methods:
        found = [(one.decile, one.recall) for one in method.deciles if one.recall is not None]
        line = [decile for decile, _ in found], [recall for _, recall in found]
        _line(axes, method.method, *line, ours=method is result.methods[0])
    axes.legend(fontsize=8)
    return figure


def _weeks(result: RoundResult | Compared, round_: Round) -> Figure:
    """Of weeks with a few tasks at least: each begins a whole number of weeks after the first task."""
    figure, axes = _lines("week of the task", f"recall@{result.limit}")
    times = np.array([task.ts for task in round_.tasks])
    weeks = (times - times.min()) // _WEEK_MS
    told = [week for week in range(int(weeks.max()) + 1) if (weeks == week).sum() >= _TASKS_OF_A_POINT]
    starts = [datetime.fromtimestamp((times.min() + week * _WEEK_MS) / 1000, UTC).strftime("%d %b") for week in told]
    for name, lists in round_.lists.items():
        recalls = values_of(round_.tasks, lists, result.limit)["recall"]
        means = [float(recalls[weeks == week].mean()) for week in told]
        _line(axes, name, starts, means, ours=name == result.methods[0].method)
    axes.legend(fontsize=8)
    return figure


def _lines(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    return figure, axes


def _line(axes: Axes, method: str, across: Sequence[int] | Sequence[str], up: Sequence[float], *, ours: bool) -> None:
    axes.plot(across, up, marker="o", label=method, linewidth=3 if ours else 1.3, color=_OURS if ours else None)
