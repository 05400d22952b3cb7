"""Batches form by themselves, are applied one at a time, and acknowledged in order, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from streams.pipeline import Intake, Pipeline, first_failure


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


def pipeline_of(
    intake: Intake[int], recorder: Recorder, batch_events: int = 3, at_once: int = 2
) -> Pipeline[int, list[int]]:
    return Pipeline(
        lambda: intake.take(batch_events, lambda: 0.001),
        prepare=recorder.prepare,
        apply=recorder.apply,
        acknowledge=recorder.acknowledge,
        at_once=at_once,
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


async def test_as_many_batches_are_at_work_as_it_was_told_and_no_more_are_taken():
    intake, recorder = Intake[int](100), Recorder()
    recorder.may_apply.clear()
    running = asyncio.create_task(pipeline_of(intake, recorder).run())
    for event in range(12):
        await intake.put(event)
    await until(lambda: len(recorder.of("prepare")) >= 6)
    await asyncio.sleep(0.05)
    assert len(recorder.of("prepare")) == 6
    assert recorder.of("acknowledge") == []
    running.cancel()


async def test_a_batch_that_is_done_before_an_earlier_one_is_acknowledged_after_it():
    first, log = asyncio.Event(), list[tuple[str, int]]()
    batches = [[1], [2], [3]]

    async def take() -> list[int]:
        return batches.pop(0) if batches else []

    async def prepare(events: list[int]) -> list[int]:
        return events

    async def apply(events: list[int]) -> None:
        if events == [1]:
            await first.wait()
        log.append(("applied", events[0]))

    async def acknowledge(events: list[int]) -> None:
        log.append(("acknowledged", events[0]))

    pipeline = Pipeline(take, prepare=prepare, apply=apply, acknowledge=acknowledge, at_once=2)
    running = asyncio.create_task(pipeline.run())
    await until(lambda: log)
    await asyncio.sleep(0.01)
    assert (log, batches) == ([("applied", 2)], [[3]])
    first.set()
    await running
    assert [event for what, event in log if what == "acknowledged"] == [1, 2, 3]


async def test_nothing_that_was_done_after_a_batch_that_fails_is_acknowledged():
    recorder, failing = Recorder(), asyncio.Event()
    batches = [[1], [2]]

    async def take() -> list[int]:
        return batches.pop(0) if batches else []

    async def apply(events: list[int]) -> None:
        if events == [1]:
            await failing.wait()
            raise RuntimeError("refused for good")
        await recorder.apply(events)
        failing.set()

    pipeline = Pipeline(take, prepare=recorder.prepare, apply=apply, acknowledge=recorder.acknowledge, at_once=3)
    with pytest.raises(ExceptionGroup) as failure:
        await pipeline.run()
    assert isinstance(first_failure(failure.value), RuntimeError)
    assert (recorder.of("apply"), recorder.of("acknowledge")) == ([2], [])


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

    pipeline = Pipeline(
        take, prepare=recorder.prepare, apply=recorder.apply, acknowledge=recorder.acknowledge, at_once=2
    )
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
    assert await intake.take(1, lambda: 0.0) == [1]
    await third
    assert await intake.take(10, lambda: 0.0) == [2, 3]


async def test_how_long_to_wait_for_company_is_asked_when_the_first_event_is_there():
    intake = Intake[int](10)
    waits = [5.0]
    taking = asyncio.create_task(intake.take(10, lambda: waits[-1]))
    await asyncio.sleep(0.01)
    waits.append(0.0)
    await intake.put(1)
    assert await asyncio.wait_for(taking, 4.0) == [1]
