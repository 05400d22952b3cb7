"""The arithmetic of docs/capacity.md is right: each result is what its line gives, with the figures of the page.

When these have changed, `PYTHONPATH=.:tests python tests/test_capacity.py` writes the results anew. What the text and
the table of what comes out say of them is to be read over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from documented import ROOT, blocks

PAGE: Final = "docs/capacity.md"
_UNITS: Final = {"µs": 1e-6, "ms": 1e-3, "KB": 1e3}
_LINE: Final = re.compile(r"(?P<code>(?P<name>\w+) = .*?)  # (?P<results>.*?)(?P<words>  .*)?")


def numbers_of(page: str) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The figures by letter, in seconds and bytes, and what is said of each example, by name."""
    figures = {}
    for letter, value, unit in re.findall(r"^\| ([A-Z]) \|[^|]*\| ×?([\d,.]+) ?(\S*)", page, re.MULTILINE):
        figures[letter] = float(value.replace(",", "")) * _UNITS.get(unit, 1.0)
    examples: list[dict[str, float]] = [{}, {}, {}]
    for name, *values in re.findall(r"^\| `(\w+)`[^|]*\| ([\d,.]+) \| ([\d,.]+) \| ([\d,.]+) \|", page, re.MULTILINE):
        for example, value in zip(examples, values, strict=True):
            example[name] = float(value.replace(",", ""))
    return figures, examples


def computed(line: str, figures: Mapping[str, float], examples: list[dict[str, float]]) -> str:
    """The line with its results computed anew, for as many of the last examples as it has results."""
    found = _LINE.fullmatch(line)
    if found is None:
        return line
    results = found["results"].split(" · ")
    shown = []
    for example in examples[-len(results) :]:
        exec(found["code"], dict(figures), example)
        shown.append(_shown(example[found["name"]]))
    return f"{found['code']}  # {' · '.join(shown)}{found['words'] or ''}"


def write_anew() -> None:
    page = (ROOT / PAGE).read_text()
    figures, examples = numbers_of(page)
    lines = [computed(line, figures, examples) for line in page.splitlines()]
    (ROOT / PAGE).write_text("\n".join(lines) + "\n")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"


def test_the_arithmetic_is_right() -> None:
    figures, examples = numbers_of((ROOT / PAGE).read_text())
    lines = [line for block in blocks(PAGE, "arithmetic") for line in block.splitlines()]
    assert [line for line in lines if _LINE.fullmatch(line) is None] == []
    assert lines == [computed(line, figures, examples) for line in lines]


def test_a_result_is_computed_from_letters_and_examples() -> None:
    page = "| A | CPU | 250 µs | a row |\n\n| `users` | 8 | 1,000 | 2,000,000 |\n"
    figures, examples = numbers_of(page)
    assert figures == {"A": 0.00025}
    assert computed("cores = users * A  # 1 · 1  cores", figures, examples) == "cores = users * A  # 0.25 · 500  cores"


if __name__ == "__main__":
    write_anew()
