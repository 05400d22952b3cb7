"""Batches form by themselves, are applied one at a time, and acknowledged in order, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from streams.pipeline import Intake, Pipeline


class Recorder:
    """What a pipeline did, in the order in which it did it. Applying takes as long as the test wants."""

    def __init__(self) -> None:
        self.log: list[tuple[str, list[int]]] = []
        self.may_apply = asyncio.Event()
        self.may_apply.set()
        self.failing: set[int] = set()

    async def prepare(self, events: list[int]) -> list[int]:
        self.log.append(("prepare", events))
        return events

    async def apply(self, events: list[int]) -> None:
        await self.may_apply.wait()
        if self.failing & set(events):
            raise RuntimeError("refused for good")
        self.log.append(("apply", events))

    async def acknowledge(self, events: list[int]) -> None:
        self.log.append(("acknowledge", events))

    def of(self, what: str) -> list[int]:
        return [event for step, events in self.log if step == what for event in events]


def pipeline_of(intake: Intake[int], recorder: Recorder, batch_events: int = 3) -> Pipeline[int, list[int]]:
    return Pipeline(
        lambda: intake.take(batch_events, 0.001),
        prepare=recorder.prepare,
        apply=recorder.apply,
        acknowledge=recorder.acknowledge,
    )


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a condition of the code under test, which has no event for it
            await asyncio.sleep(0.001)


async def test_every_event_is_prepared_applied_and_acknowledged_once_in_order():
    intake, recorder = Intake[int](100), Recorder()
    pipeline = pipeline_of(intake, recorder)
    running = asyncio.create_task(pipeline.run())
    for event in range(20):
        await intake.put(event)
    await until(lambda: not len(intake) and not pipeline.busy)
    assert recorder.of("prepare") == recorder.of("apply") == recorder.of("acknowledge") == list(range(20))
    running.cancel()


async def test_a_batch_is_prepared_while_the_one_before_it_is_applied_and_no_further():
    intake, recorder = Intake[int](100), Recorder()
    recorder.may_apply.clear()
    running = asyncio.create_task(pipeline_of(intake, recorder).run())
    for event in range(12):
        await intake.put(event)
    await until(lambda: len(recorder.of("prepare")) >= 9)
    await asyncio.sleep(0.05)
    assert len(recorder.of("prepare")) == 9  # one applied, one ready, one that waits for its place
    assert recorder.of("acknowledge") == []
    running.cancel()


async def test_a_batch_that_fails_for_good_ends_the_pipeline_and_nothing_from_it_on_is_acknowledged():
    intake, recorder = Intake[int](100), Recorder()
    recorder.failing = {4}
    for event in range(9):
        await intake.put(event)
    with pytest.raises(ExceptionGroup) as failure:
        await pipeline_of(intake, recorder).run()
    assert failure.group_contains(RuntimeError, match="refused for good")
    assert recorder.of("acknowledge") == [0, 1, 2]


async def test_a_pipeline_without_more_events_ends_when_all_are_acknowledged():
    recorder = Recorder()
    batches = [[1, 2], [3], [4, 5]]

    async def take() -> list[int]:
        return batches.pop(0) if batches else []

    pipeline = Pipeline(take, prepare=recorder.prepare, apply=recorder.apply, acknowledge=recorder.acknowledge)
    await pipeline.run()
    assert recorder.of("acknowledge") == [1, 2, 3, 4, 5]
    assert not pipeline.busy


async def test_a_full_intake_makes_its_producer_wait():
    intake = Intake[int](2)
    await intake.put(1)
    await intake.put(2)
    third = asyncio.create_task(intake.put(3))
    await asyncio.sleep(0.01)
    assert not third.done()
    assert await intake.take(1, 0.0) == [1]
    await third
    assert await intake.take(10, 0.0) == [2, 3]
