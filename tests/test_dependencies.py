"""Dependencies point one way, and what is called pure imports nothing that is not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports(file: Path) -> set[str]:
    """The modules that a file imports, lazily or not, as written."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("encoders", {"streams", "sinks", "deploy", "faust", "confluent_kafka", "qdrant_client"}),
        ("sinks", {"streams", "encoders", "deploy", "faust", "confluent_kafka", "torch", "transformers"}),
        ("deploy", {"streams", "encoders", "sinks", "faust"}),
    ],
)
def test_a_package_imports_nothing_above_or_beside_it(package: str, forbidden: set[str]):
    for file in (ROOT / package).rglob("*.py"):
        crossing = {name for name in imports(file) if name.partition(".")[0] in forbidden}
        assert not crossing, f"{file.relative_to(ROOT)} imports {sorted(crossing)}"


@pytest.mark.parametrize(
    "module",
    [
        "streams/profiles.py",
        "streams/statistics/columns.py",
        "streams/statistics/coverage.py",
        "streams/statistics/fold.py",
        "streams/statistics/kin.py",
        "streams/statistics/learning.py",
        "streams/statistics/likeness.py",
        "streams/statistics/merging.py",
        "streams/statistics/offering.py",
        "streams/statistics/pairs.py",
        "streams/statistics/relations.py",
        "streams/statistics/searching.py",
        "streams/statistics/shoppers.py",
        "sinks/clicks.py",
        "sinks/ledgers.py",
        "sinks/derivation.py",
        "sinks/prospects.py",
        "sinks/ranking.py",
        "sinks/reasons.py",
        "sinks/scoring.py",
        "sinks/support.py",
    ],
)
def test_the_fold_and_what_is_derived_are_pure(module: str):
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "numpy",
        "struct",
    }
    allowed |= {"typing", "scipy", "sinks.ledgers", "sinks.derivation", "sinks.scoring", "sinks.statistics"}
    allowed |= {"sinks.clicks", "sinks.prospects", "sinks.reasons", "sinks.support"}
    allowed |= {"streams.profiles", "streams.statistics.relations"}
    allowed |= {
        "streams.statistics.fold",
        "streams.statistics.shoppers",
        "streams.statistics.columns",
        "streams.statistics.kin",
        "streams.statistics.learning",
        "streams.statistics.offering",
        "streams.statistics.pairs",
        "streams.statistics.searching",
    }
    impure = {name for name in imports(ROOT / module) if name not in allowed and name.partition(".")[0] not in allowed}
    assert not impure, f"{module} imports {sorted(impure)}"


def test_only_commands_start_services():
    for file in (ROOT / "streams").rglob("*.py"):
        if "commands" not in file.parts:
            assert not {name for name in imports(file) if name.partition(".")[0] == "deploy"}, file
