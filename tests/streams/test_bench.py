"""What a row of `afterglow bench` says of its goal."""

from __future__ import annotations

import pytest
from benchmarks.page import with_section
from benchmarks.rows import Bound, Row, side_by_side


@pytest.mark.parametrize(
    ("row", "meets_goal", "below_floor"),
    [
        (Row(name="a", value=1.0, unit="s"), None, None),
        (Row(name="a", value=90.0, unit="us", bound=Bound(90, 150, "lower")), True, False),
        (Row(name="a", value=100.0, unit="us", bound=Bound(90, 150, "lower")), False, False),
        (Row(name="a", value=151.0, unit="us", bound=Bound(90, 150, "lower")), False, True),
        (Row(name="a", value=20.0, unit="KB", bound=Bound(12, None, "lower")), False, None),
        (Row(name="a", value=9000.0, unit="/s", against="b", ratio=3.2, bound=Bound(3.2, 2.5)), True, False),
        (Row(name="a", value=9000.0, unit="/s", against="b", ratio=2.4, bound=Bound(3.2, 2.5)), False, True),
    ],
)
def test_a_ratio_is_held_against_the_goal_where_there_is_one_else_the_value(
    row: Row, meets_goal: bool | None, below_floor: bool | None
) -> None:
    assert (row.meets_goal, row.below_floor) == (meets_goal, below_floor)


def test_the_ratio_is_of_the_medians_and_its_spread_of_the_rounds() -> None:
    assert side_by_side([2.0, 4.0, 30.0], [2.0, 1.0, 3.0]) == (2.0, (1.0, 10.0))


def test_one_line_of_json_a_row() -> None:
    row = Row(
        name="a", value=9.0, unit="/s", against="b", ratio=3.0, spread=(2.0, 4.0), bound=Bound(3.2, 2.5), note="n"
    )
    assert row.as_json("2 cores") == {
        "name": "a",
        "value": 9.0,
        "unit": "/s",
        "spread": (2.0, 4.0),
        "against": "b",
        "ratio": 3.0,
        "goal": 3.2,
        "floor": 2.5,
        "better": "higher",
        "meets_goal": False,
        "below_floor": False,
        "note": "n",
        "machine": "2 cores",
    }


def test_a_part_measured_anew_replaces_its_section_of_the_page_and_nothing_else() -> None:
    row = Row(name="a", value=120.0, unit="us", bound=Bound(90, 150, "lower"), note="of 3 users")
    page = "# Performance\n\nBy hand.\n\n## worker\n\nold\n\n## writes\n\nkept\n"
    first = with_section(page, "worker", "A live worker.", [row, row], 1)
    assert "old" not in first
    assert first.startswith("# Performance\n\nBy hand.\n\n## worker\n\nA live worker. Measured on ")
    assert "| a [1] | 120 us |  |  |  | ≤ 90 | ≤ 150 | not met |" in first
    assert "\n[1] of 3 users." in first
    assert first.endswith("\n\n## writes\n\nkept\n")
    assert with_section(first, "memory", "A worker's memory.", [], 1).index("## memory") > first.index("## writes")
