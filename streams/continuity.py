"""Guards that what is read is a contiguous part of the very topics that the ledgers are of.

Drivers don't tell. A topic deleted and made anew under a consumer is read on by its name, from wherever the old
position leads; where retention was faster than the group, the consumer goes on at the first record there is; and a
driver may have a bug (Faust has dropped what it had fetched while partitions moved). Events would be missing, and
nobody would know.

What Kafka 4.4 does when a topic is deleted, as tried:

- the committed offsets of every group go with the topic, also those of a group that is live, and a commit is refused;
- once the topic is made anew, a consumer that is still live can commit the offset it had reached in the old one, which
  then counts for the new one.

So a committed offset that is there may be of a topic before, and only the topic's id tells.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Final, TypeAlias, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from streams.kafka import KafkaRefused, KafkaUnreachable, answered
from streams.partition_reader import PartitionReader
from streams.settings import Kafka
from streams.topics import (
    CommittedOffsets,
    Topic,
    TopicPartition,
    committed_offsets,
    describe,
    end_offsets,
    first_offsets,
)

logger = logging.getLogger("afterglow.continuity")

_R = TypeVar("_R")
_AGAIN_SECONDS: Final = 0.5
_SAY_EVERY_SECONDS: Final = 30.0
_PATIENCE_SECONDS: Final = 10.0

Gap: TypeAlias = tuple[int, int]
"""The first offset that never came, and the next one that did."""


class Discontinuity(RuntimeError):
    """Records are missing, or are of another topic than they seem; the text says which, and what to do."""


class TopicChanged(Discontinuity):
    """A topic was deleted, made anew, cut short, or given more partitions."""


class Overtaken(Discontinuity):
    """Kafka has deleted records that the group had not read yet."""


class LeftOut(Discontinuity):
    """The consumer has not delivered records that Kafka has."""


class Continuity:
    """What one consumer reads, record by record, against what Kafka has.

    The argument: ids never come back, so topics that have their ids after a batch was taken had them when its records
    were read (a broker that lags behind with its metadata may be late by that). What was left out, from the group's
    committed offset on, is read by a plain consumer: it may hold marks of transactions and what compaction took away,
    but no record. An offset that goes back is legitimate once for each assignment.

    Not covered: a log cut short and grown beyond the old end again between two checks, which takes an unclean leader
    election; what Kafka itself does not deliver to either consumer.
    """

    def __init__(
        self,
        kafka: Kafka,
        admin: AdminClient,
        group: str,
        topics: Mapping[str, Topic],
        starts: Mapping[TopicPartition, int],
    ) -> None:
        """`topics` as they were when the group's offsets were looked at first: before anything was read.

        `starts` are the first offsets to be read of partitions that the group has committed nothing of yet.
        """
        self._kafka = kafka
        self._admin = admin
        self._group = group
        self._topics = topics
        self._starts = starts
        self._next: dict[TopicPartition, int] = {}
        self._gaps: defaultdict[TopicPartition, list[Gap]] = defaultdict(list)  # not explained yet
        self._returns: dict[TopicPartition, int] = {}
        self._went_back: tuple[TopicPartition, int, int] | None = None
        self._assignments = 0
        self._checked_assignments = 0
        self._checking = asyncio.Lock()

    def assigned(self) -> None:
        """Partitions have moved: the next check compares the committed offsets with what Kafka still has."""
        self._assignments += 1

    def note(self, topic: str, partition: int, offset: int) -> None:
        """To be called for every record, in the order in which they came."""
        at = (topic, partition)
        expected = self._next.get(at, 0)
        self._next[at] = offset + 1
        if offset > expected:
            self._gaps[at].append((expected, offset))
        elif offset < expected:
            self._returns[at] = self._returns.get(at, 0) + 1
            if self._returns[at] > self._assignments:
                self._went_back = (at, expected, offset)

    async def check(self) -> None:
        """Returns when everything noted until now is known to be contiguous. Waits for a Kafka that is away.

        One round trip where nothing was left out and no partitions moved. Safe to call from several tasks. Where it
        raises, nothing that was noted since the last check may be acknowledged.

        Raises:
            TopicChanged: a topic is gone, made anew, cut short, or has more partitions.
            Overtaken: records were deleted before they were read.
            LeftOut: records are there, and were not delivered.
            KafkaRefused: Kafka doesn't let us in.
            KafkaException: Kafka refuses the question for good.
        """
        async with self._checking:
            assignments = self._assignments
            gaps = {at: tuple(found) for at, found in self._gaps.items()}
            await self._until_answered(gaps, moved=assignments > self._checked_assignments)
            for at, explained in gaps.items():
                del self._gaps[at][: len(explained)]
            self._checked_assignments = assignments

    async def _until_answered(self, gaps: Mapping[TopicPartition, Sequence[Gap]], *, moved: bool) -> None:
        told = time.monotonic()
        while True:
            try:
                await asyncio.to_thread(self._ask, gaps, dict(self._next), moved)
            except KafkaRefused:
                raise
            except KafkaUnreachable as error:
                if time.monotonic() - told >= _SAY_EVERY_SECONDS:
                    told = time.monotonic()
                    logger.warning("event=waiting_for_kafka reason=%r", str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def _ask(
        self, gaps: Mapping[TopicPartition, Sequence[Gap]], reached: Mapping[TopicPartition, int], moved: bool
    ) -> None:
        self._compare_topics()
        if self._went_back is not None:
            (topic, partition), expected, offset = self._went_back
            raise TopicChanged(
                f"topic {topic} went back from offset {expected:,} to {offset:,} in partition {partition}, without "
                f"having been assigned anew: it was cut short. {_CUT_SHORT}"
            )
        try:
            if moved:
                _once(self._check_committed, self._kafka)
                ends = _once(lambda: end_offsets(self._admin, self._topics), self._kafka)
                _refuse_beyond(reached, ends, "was read up to")
            if any(gaps.values()):
                self._explain(gaps)
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._AUTO_OFFSET_RESET):
                raise
            raise KafkaUnreachable(str(error)) from error  # deleted meanwhile: the next look says so

    def _compare_topics(self) -> None:
        found = _once(lambda: describe(self._admin, self._topics), self._kafka)
        for name, topic in self._topics.items():
            if name not in found:
                raise TopicChanged(f"topic {name} is gone (it had id {topic.id}); start again when it is back")
            if found[name].id != topic.id:
                raise TopicChanged(
                    f"topic {name} was made anew (id {topic.id} became {found[name].id}); "
                    "start again to read the new one from its beginning"
                )
            if found[name].partitions != topic.partitions:
                raise TopicChanged(
                    f"topic {name} went from {topic.partitions} to {found[name].partitions} partitions: users' "
                    'events moved. Copy the records into a new topic and replay that: docs/guarantees.md, "Partitions '
                    'were added"'
                )

    def _check_committed(self) -> None:
        check_committed(self._kafka, self._admin, self._group, self._topics, self._starts)

    def _explain(self, gaps: Mapping[TopicPartition, Sequence[Gap]]) -> None:
        """Returns where no record is in a gap that the group had to read."""
        topics = {name: self._topics[name] for name, _ in gaps}
        # What was committed before it came, by us in an earlier life or by another member, is folded in.
        committed = _once(lambda: self._committed.of(topics), self._kafka)
        unread = {at: _beyond(committed.get(at, self._starts.get(at, 0)), found) for at, found in gaps.items()}
        unread = {at: found for at, found in unread.items() if found}
        if not unread:
            return
        first = _once(lambda: first_offsets(self._admin, topics), self._kafka)
        if gone := {at: (found[0][0], first[at]) for at, found in unread.items() if found[0][0] < first[at]}:
            raise _overtaken(self._group, gone)
        if left_out := {at: there for at, found in unread.items() if (there := self._records_in(at, found))}:
            raise _left_out(self._group, left_out)

    def _records_in(self, at: TopicPartition, gaps: Sequence[Gap]) -> list[int]:
        """The offsets of the records that Kafka has there."""
        offsets = array("q")

        def take(message: Message) -> None:
            offsets.append(message.offset() or 0)

        self._reader.begin(*at, gaps[0][0])
        until = max(end for _, end in gaps)
        _once(lambda: self._reader.read(until, take, patience_seconds=_PATIENCE_SECONDS), self._kafka)
        return sorted(
            {
                offset
                for begin, end in gaps
                for offset in offsets[bisect_left(offsets, begin) : bisect_left(offsets, end)]
            }
        )

    @cached_property
    def _committed(self) -> CommittedOffsets:
        return CommittedOffsets(self._kafka, self._group)

    @cached_property
    def _reader(self) -> PartitionReader:
        return PartitionReader(self._kafka)


def _beyond(offset: int, gaps: Sequence[Gap]) -> list[Gap]:
    """What of these gaps lies at that offset or after it, the lowest first."""
    return sorted((max(begin, offset), end) for begin, end in gaps if end > offset)


def check_committed(
    kafka: Kafka,
    admin: AdminClient,
    group: str,
    topics: Mapping[str, Topic],
    starts: Mapping[TopicPartition, int] | None = None,
) -> None:
    """Makes sure that Kafka still has every record that the group is to read next; asks once.

    `starts` are the first offsets to be read of partitions that the group has committed nothing of yet.

    A committed offset within a topic doesn't tell that it is of this topic: see the module. Where the id of a topic has
    changed, set the group's offsets (`streams.groups.set_offsets`) before anything is read.

    Raises:
        Overtaken: records were deleted that the group had not read.
        TopicChanged: an offset lies beyond the end: the topic was made anew, or cut short.
        KafkaException: Kafka doesn't answer or refuses.
    """
    positions = {**(starts or {}), **committed_offsets(kafka, group, topics)}
    compare_committed(group, positions, first_offsets(admin, topics), end_offsets(admin, topics))


def compare_committed(
    group: str,
    positions: Mapping[TopicPartition, int],
    first: Mapping[TopicPartition, int],
    end: Mapping[TopicPartition, int],
) -> None:
    """`check_committed`, of what was asked already: where the group goes on, and what Kafka has of these partitions."""
    if missing := {at: (offset, first[at]) for at, offset in positions.items() if offset < first[at]}:
        raise _overtaken(group, missing)
    _refuse_beyond(positions, end, f"is committed by group {group} at")


def _refuse_beyond(positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], verb: str) -> None:
    for (topic, partition), offset in sorted(positions.items()):
        end = ends[topic, partition]
        if offset > end:
            raise TopicChanged(
                f"topic {topic} {verb} offset {offset:,} in partition {partition}, and ends at {end:,}: it was cut "
                f"short. {_CUT_SHORT}"
            )


def _overtaken(group: str, missing: Mapping[TopicPartition, tuple[int, int]]) -> Overtaken:
    gone = ", ".join(
        f"{topic} partition {partition} offsets {start:,} to {first - 1:,}"
        for (topic, partition), (start, first) in sorted(missing.items())
    )
    resets = " ".join(f"--topic {topic}:{partition}" for topic, partition in sorted(missing))
    return Overtaken(
        f"Kafka has deleted records that group {group} had not read: {gone} (retention, or somebody's deletion). "
        "`afterglow replay` makes a new generation of what the topics still have. To accept the loss instead, stop the "
        f"workers, then: kafka-consumer-groups --bootstrap-server ... --group {group} {resets} --reset-offsets "
        "--to-earliest --execute. And raise retention.ms of these topics"
    )


def _left_out(group: str, there: Mapping[TopicPartition, Sequence[int]]) -> LeftOut:
    told = ", ".join(
        f"{topic} partition {partition} offsets {offsets[0]:,} to {offsets[-1]:,} ({len(offsets):,} records)"
        for (topic, partition), offsets in sorted(there.items())
    )
    return LeftOut(
        f"the consumer of group {group} left out records that Kafka has: {told}. Nothing after them was acknowledged: "
        "start again, and they are read. Please report it"
    )


_CUT_SHORT: Final = (
    "New events would get offsets that profiles have counted already, and would be skipped: replay into a new "
    "generation (`afterglow replay`)"
)


def _once(ask: Callable[[], _R], kafka: Kafka) -> _R:
    """Raises KafkaUnreachable where another try may help."""
    return answered(ask, kafka, timeout_seconds=0)
