"""Batches at work at once wait for each other where they share somebody, and nowhere else."""

from __future__ import annotations

import asyncio

import pytest

from streams.turns import BatchFailed, Turns


async def test_what_nobody_has_is_free_and_what_an_earlier_batch_has_is_to_be_waited_for():
    turns = Turns()
    with turns.take(["ada", "bob"]) as first, turns.take(["bob", "cy"]) as second, turns.take(["bob", "ada"]) as third:
        assert first.parts == {None: ["ada", "bob"]}
        assert second.parts == {first: ["bob"], None: ["cy"]}
        assert third.parts == {second: ["bob"], first: ["ada"]}
    with turns.take(["ada", "bob", "cy"]) as later:
        assert later.parts == {None: ["ada", "bob", "cy"]}


async def test_a_turn_is_over_when_its_batch_is_done():
    turns = Turns()
    with turns.take(["ada"]) as turn:
        waiting = asyncio.create_task(turn.over())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting


async def test_whoever_waits_for_a_batch_that_fails_fails_too():
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.take(["ada"]) as turn:
        raise ZeroDivisionError
    with pytest.raises(BatchFailed):
        await turn.over()
