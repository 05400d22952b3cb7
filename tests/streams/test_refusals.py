"""Refusals are counted by kind, in bounded memory."""

from __future__ import annotations

from streams.events import InvalidEvent
from streams.refusals import Refusal, Refusals


def test_reasons_that_differ_in_particulars_are_one_kind() -> None:
    refusals = Refusals()
    for number, ts in enumerate((1291191960, 1291191961, 1291191962), start=1):
        refusals.add(InvalidEvent("ts", f"looks like seconds: {ts}; give milliseconds"), f"f:{number}")
    refusals.add(InvalidEvent("user_id", "is missing"), "f:4")
    assert refusals.count == 4
    assert refusals.listed() == [
        Refusal(field="ts", reason="looks like seconds: 1291191960; give milliseconds", count=3, example="f:1"),
        Refusal(field="user_id", reason="is missing", count=1, example="f:4"),
    ]


def test_kinds_beyond_the_fiftieth_are_counted_together() -> None:
    refusals = Refusals()
    for number in range(60):
        field = "f" + "x" * number
        refusals.add(InvalidEvent(field, "is missing"), f"line {number}")
    listed = refusals.listed()
    assert len(listed) == 51
    assert listed[0] == Refusal(
        field="", reason=f"other reasons, first: f{'x' * 50} is missing", count=10, example="line 50"
    )
