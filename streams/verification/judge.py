"""Every user's profile against the log: one partition of searches and purchases after the other.

It runs on a live system. The offsets that the workers have committed are read first, then a partition's profiles,
then its log from the first offset that belongs to the generation to its end by then; each ledger is judged by the
events up to its own `applied`, and what was committed before has to be in it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

import msgspec
import numpy as np

from encoders.client import EncoderClient, TextKind
from sinks.catalogue import Catalogue
from sinks.derivation import Vector, derive
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState, decode_state
from sinks.profiles import Held, held_of
from sinks.stored import StoredProfile
from sinks.support import Support
from streams.partition_reader import PartitionReader
from streams.profiles import FoldRules
from streams.rules import derivation_rules, fold_rules, refresh_rules, weights
from streams.settings import Settings
from streams.verification.comparison import (
    compare_continued,
    compare_ledger,
    compare_readers_view,
    compare_with_itself,
    has_these_interests,
    is_derived,
)
from streams.verification.findings import Findings, Verdict
from streams.verification.log import EventLog
from streams.verification.recomputation import Event, recompute
from streams.verification.sources import UsersTopic, ends_of
from streams.verification.stored import PAGE, StoredProfiles

SETTLE_SECONDS: Final = 30.0
"""How long a profile may still wait for a product that has just become known."""

_EVERYBODY: Final = "~"  # after every id


class Progress(msgspec.Struct, frozen=True):
    """Records read of those that were there at the start, and users judged."""

    records: int
    of: int
    users: int


class _Task(NamedTuple):
    """One ledger to be judged by these events."""

    point: str
    ledger: Ledger
    events: list[Event]
    side: int  # 0: searches, 1: purchases
    goes_on: bool  # with a topic made anew: it may hold events of the one before
    is_of_another_partition: bool  # than the user's other ledger


class Judge:
    """Judges one generation; `run` once."""

    def __init__(
        self,
        settings: Settings,
        *,
        topics: tuple[UsersTopic, ...],
        stored: StoredProfiles,
        catalogue: Catalogue,
        encoder: EncoderClient,
        ids: PointIds,
        mean: Vector,
        support: Support,
        report: Callable[[Progress], None],
    ) -> None:
        """`settings.profiles` are those of the generation."""
        self._settings = settings
        self._stored = stored
        self._catalogue = catalogue
        self._encoder = encoder
        self._ids = ids
        self._mean = mean.astype(np.float32)
        self._support = support
        self._report = report
        self._topics = topics
        self._rules, self._weights = fold_rules(settings), weights(settings)
        self._derivation, self._refresh = derivation_rules(settings), refresh_rules(settings)
        self._found = Findings()
        self._records = self._of = self._users = self._events = self._not_understood = 0
        # Users whose two ledgers are of different partitions, where producers place keys unlike: (point, topic).
        self._elsewhere: dict[tuple[str, str], int] = {}
        self._judged_there: set[tuple[str, str]] = set()

    async def run(self, sample: int | None) -> Verdict:
        began = time.monotonic()
        partitions = max(len(topic.start) for topic in self._topics)
        ends = await asyncio.gather(*(asyncio.to_thread(self._ends, partition) for partition in range(partitions)))
        self._of = sum(
            end - topic.start[partition]
            for topic in self._topics
            for partition, end in enumerate(at[topic.name] for at in ends[: len(topic.start)])
        )
        last_point = _EVERYBODY
        if sample is not None:
            last_point = await self._stored.point_of_rank(sample) or _EVERYBODY
        for partition in range(partitions):
            await self._judge_partition(partition, last_point)
        for (point, topic), partition in self._elsewhere.items():
            self._found.add(
                point, f"{topic}: the ledger is of partition {partition}, which has none of the user's events"
            )
        await self._look_again_at_waiting()
        await self._explain_sums()
        return self._found.verdict(
            self._settings.generation,
            users=self._users,
            events=self._events,
            not_understood=self._not_understood,
            seconds=time.monotonic() - began,
        )

    async def _judge_partition(self, partition: int, last_point: str) -> None:
        states: dict[str, Held] = {}
        async for page in self._stored.of_partition(partition, last_point):
            await self._judge_readers_view(page)
            states |= {profile.id: held_of(profile) for profile in page}
        with ExitStack() as stack:
            logs, readers = [], []
            for side, topic in enumerate(self._topics):
                if partition >= len(topic.start):
                    continue
                reader = stack.enter_context(PartitionReader(self._settings.kafka))
                reader.begin(topic.name, partition, topic.start[partition])
                readers.append(reader)
                logs.append(
                    EventLog(
                        searches=side == 0,
                        weights=self._weights,
                        user_point=self._ids.user,
                        last_point=last_point,
                    )
                )
            ends = await asyncio.to_thread(self._ends, partition)
            for log, reader in zip(logs, readers, strict=True):
                await asyncio.to_thread(reader.read, ends[reader.topic], log.take, report=self._count)
            of_users = [dict(zip(log.points, range(len(log.points)), strict=True)) for log in logs]
            users = {point for log in logs for point in log.points}
            # Other profiles of these users: in another partition by their other ledger, or newer than the look above.
            others = await self._stored.get(sorted(users - states.keys()))
            for start in range(0, len(others), PAGE):
                page = [profile for profile in others[start : start + PAGE] if profile.partition == partition]
                await self._judge_readers_view(page)
            states |= {profile.id: held_of(profile) for profile in others}
            reached = [decode_state(profile.state) for profile in others]
            for side, (log, reader) in enumerate(zip(logs, readers, strict=True)):
                at = [state[side].applied for state in reached]
                until = max((applied.offset + 1 for applied in at if applied.partition == partition), default=0)
                if until > reader.position:
                    end = (await asyncio.to_thread(self._ends, partition))[reader.topic]
                    await asyncio.to_thread(reader.read, min(until, end), log.take, report=self._count)
        for point in sorted(states.keys() - users):
            self._judge_absent(point, states[point].decoded())
        for log in logs:
            self._not_understood += log.not_understood
        known = sorted(users)
        for start in range(0, len(known), PAGE):
            chunk = known[start : start + PAGE]
            await self._judge_users(partition, chunk, states, logs, of_users)
            self._tell()

    def _ends(self, partition: int) -> dict[str, int]:
        return ends_of(self._settings, self._topics, partition)

    def _judge_absent(self, point: str, state: ProfileState) -> None:
        """A profile of somebody who has no event in the topics as they are now."""
        before = [
            (topic, ledger, rules)
            for topic, ledger, rules in zip(self._topics, state, self._rules, strict=True)
            if ledger.events and topic.may_have_preceded(ledger.applied.topic_id)
        ]
        if len(before) < sum(ledger.events > 0 for ledger in state) or not before:
            self._found.add(point, "a profile that the log knows nothing of")
        for topic, ledger, rules in before:
            self._judge_earlier(point, topic, ledger, rules)

    def _judge_earlier(self, point: str, topic: UsersTopic, ledger: Ledger, rules: FoldRules) -> None:
        self._found.not_comparable[f"{topic.name}: folded from an earlier topic of that name"] += 1
        for what in compare_with_itself(ledger, rules, topic.name):
            self._found.add(point, what)

    async def _judge_users(
        self,
        partition: int,
        points: Sequence[str],
        states: Mapping[str, Held],
        logs: Sequence[EventLog],
        of_users: Sequence[Mapping[str, int]],
    ) -> None:
        tasks: list[_Task] = []
        for point in points:
            state = states[point].decoded() if point in states else ProfileState(Ledger(), Ledger())
            self._users += point in states and _home(state) == partition
            for side, log in enumerate(logs):
                user = of_users[side].get(point)
                if user is not None:
                    self._found.names[point] = log.names[user]
                task = self._task(point, state, log, user, side, partition, missing=point not in states)
                if task is not None:
                    tasks.append(task)
        await self._compare(tasks)
        for point in points:
            if not self._found.is_about(point):
                self._found.names.pop(point, None)

    def _task(
        self,
        point: str,
        state: ProfileState,
        log: EventLog,
        user: int | None,
        side: int,
        partition: int,
        *,
        missing: bool,
    ) -> _Task | None:
        """What the ledger is to be judged by; None where that is for another partition, or shown by offsets alone."""
        topic, ledger = self._topics[side], state[side]
        applied = ledger.applied
        offsets = np.zeros(0, np.int64) if user is None else log.offsets_of(user)
        committed = topic.committed[partition]
        is_here = applied.topic_id == topic.id
        if is_here and applied.partition != partition:
            if user is None:
                self._elsewhere[point, topic.name] = applied.partition
            else:
                self._found.not_comparable[f"{topic.name}: events in another partition than the user's first"] += 1
            return None
        lost = int(((offsets < committed) & (offsets > (applied.offset if is_here else -1))).sum())
        if lost and missing:
            self._found.add(point, f"{topic.name}: no profile, but {lost} events below the committed offset", lost)
        elif lost:
            self._found.add(
                point, f"{topic.name}: {lost} events beyond `applied` are below the committed offset {committed}", lost
            )
        if not is_here:
            if ledger.events and topic.may_have_preceded(applied.topic_id):
                self._judge_earlier(point, topic, ledger, self._rules[side])
            elif ledger.events:
                self._found.add(point, f"{topic.name}: `applied` is of a topic that the generation is not made from")
            return None
        if applied.offset not in offsets:
            self._found.add(
                point, f"{topic.name}: `applied` is offset {applied.offset}, which is no event of the user", 1
            )
        events = [] if user is None else log.events_of(user, applied.offset)
        return _Task(point, ledger, events, side, bool(topic.earlier), _home(state) != partition)

    async def _compare(self, tasks: Sequence[_Task]) -> None:
        expected = [recompute(task.events, self._rules[task.side]) for task in tasks]
        vectors = await self._vectors({name for one in expected for name in one.long})
        for task, wanted in zip(tasks, expected, strict=True):
            self._events += len(task.events)
            name, rules = self._topics[task.side].name, self._rules[task.side]
            if task.is_of_another_partition:
                self._judged_there.add((task.point, name))
            told = compare_ledger(task.ledger, wanted, vectors, rules, name)
            if task.goes_on and (told.differences or told.unexplained):
                told = compare_continued(task.ledger, wanted, rules, name)
                self._found.not_comparable[f"{name}: goes on from an earlier topic of that name"] += 1
            for what in told.differences:
                self._found.add(task.point, what)
            if told.events:
                self._found.events[task.point] += told.events
            if told.unexplained:
                self._found.unexplained[task.point] += told.unexplained

    async def _judge_readers_view(self, profiles: Sequence[StoredProfile]) -> None:
        states = [decode_state(profile.state) for profile in profiles]
        wanted = {key[1:] for state in states for ledger in state for key in ledger.keys if key[0] == "p"}
        for state in states:
            wanted |= state.pending
        products = await self._catalogue.get(wanted)
        vectors = {id_: product.vector for id_, product in products.items() if product.vector is not None}
        now = derive(states, vectors, self._mean, time.time_ns() // 1_000_000, self._derivation, self._support)
        newest = derive(states, vectors, self._mean, 0, self._derivation, self._support)
        for profile, state, taste, first in zip(profiles, states, now, newest, strict=True):
            for what in compare_readers_view(profile, state, taste, first, self._refresh, self._derivation):
                self._found.add(profile.id, what)
            if not is_derived(profile):
                self._found.not_comparable["nothing derived for readers yet"] += 1
            elif not has_these_interests(profile, taste):
                self._found.not_comparable["interests of an earlier catalogue"] += 1
            known = state.pending & vectors.keys()
            if known and profile.due is None:
                self._found.waiting[profile.id] = known

    async def _vectors(self, names: Iterable[str]) -> dict[str, Vector]:
        """Of queries ("q" + text) and titles ("t" + text) from the encoding worker, of products from the catalogue."""
        by_kind: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_kind[name[0]].append(name[1:])
        found: dict[str, Vector] = {}
        for letter, kind in (("q", TextKind.QUERY), ("t", TextKind.PRODUCT)):
            if texts := by_kind[letter]:
                rows = await self._encoder.encode(texts, kind)
                found |= {letter + text: row for text, row in zip(texts, rows, strict=True)}
        for product_id, product in (await self._catalogue.get(by_kind["p"])).items():
            if product.vector is not None:
                found["p" + product_id] = product.vector
        return found

    async def _look_again_at_waiting(self) -> None:
        """Whoever waits for a known product is settled in a moment, or was forgotten."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while waiting := self._found.waiting:
            now = {profile.id: profile for profile in await self._stored.get(list(waiting))}
            still = {
                point: products & set(now[point].pending)
                for point, products in waiting.items()
                if point in now and now[point].due is None
            }
            self._found.waiting = {point: products for point, products in still.items() if products}
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(0.5)
        for point, products in self._found.waiting.items():
            self._found.add(point, f"waits for {min(products)!r}, which is known, and nothing is due")

    async def _explain_sums(self) -> None:
        """A sum holds the vector that a product had when it was bought, and the catalogue the one it has now.

        No product whose text has ever been another is without the mark: it is written with the text, in one write.
        """
        for point, sums in self._found.unexplained.items():
            products = await self._catalogue.read(sorted({id_ for sum_ in sums for id_ in sum_.coefficients}))
            for sum_ in sums:
                room = 2.0 * sum(
                    weight for id_, weight in sum_.coefficients.items() if id_ in products and products[id_].revised
                )
                if sum_.residual <= room * (1.0 + 1e-5):
                    self._found.not_comparable["a sum with a product whose text has changed"] += 1
                else:
                    self._found.add(point, sum_.text)

    def _count(self, records: int) -> None:
        self._records += records
        self._tell()

    def _tell(self) -> None:
        self._report(Progress(self._records, self._of, self._users))


def _home(state: ProfileState) -> int:
    """The partition that a profile is filed under."""
    return max(ledger.applied.partition for ledger in state)
