"""Guards that what is read is a contiguous part of the very topics that the ledgers are of.

Drivers don't tell. A topic deleted and made anew under a consumer is read on by its name, from wherever the old
position leads; where retention was faster than the group, the consumer goes on at the first record there is. Either
way events would be missing, and nobody would know.

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
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.kafka import KafkaRefused, KafkaUnreachable, answered
from streams.settings import Kafka
from streams.topics import Topic, TopicPartition, committed_offsets, describe, end_offsets, first_offsets

logger = logging.getLogger("afterglow.continuity")

_R = TypeVar("_R")
_AGAIN_SECONDS: Final = 0.5
_SAY_EVERY_SECONDS: Final = 30.0


class Discontinuity(RuntimeError):
    """Records are missing, or are of another topic than they seem; the text says which, and what to do."""


class TopicChanged(Discontinuity):
    """A topic was deleted, made anew, cut short, or given more partitions."""


class Overtaken(Discontinuity):
    """Kafka has deleted records that the group had not read yet."""


class Continuity:
    """What one consumer reads, record by record, against what Kafka has.

    The argument: ids never come back, so topics that have their ids after a batch was taken had them when its records
    were read (a broker that lags behind with its metadata may be late by that). An offset left out is legitimate where
    Kafka still has what comes before it: transactions have markers, and compaction leaves holes. One that goes back is
    legitimate once for each assignment.

    Not covered: records that Kafka still has and the consumer left out by itself: a gap is not read to see whether any
    are in it (`streams.app` cures the one case known, and `afterglow verify` finds the loss); a log cut short and grown
    beyond the old end again between two checks, which takes an unclean leader
    election.
    """

    def __init__(self, kafka: Kafka, admin: AdminClient, group: str, topics: Mapping[str, Topic]) -> None:
        """`topics` as they were when the group's offsets were looked at first: before anything was read."""
        self._kafka = kafka
        self._admin = admin
        self._group = group
        self._topics = topics
        self._next: dict[TopicPartition, int] = {}
        self._left_out: dict[TopicPartition, int] = {}  # the lowest offset that never came, until it is explained
        self._returns: dict[TopicPartition, int] = {}
        self._went_back: tuple[TopicPartition, int, int] | None = None
        self._assignments = 0
        self._checked_assignments = 0
        self._checking = asyncio.Lock()

    def assigned(self) -> None:
        """Partitions have moved: the next check compares the committed offsets with what Kafka still has."""
        self._assignments += 1
        self._next.clear()

    def note(self, topic: str, partition: int, offset: int) -> None:
        """To be called for every record, in the order in which they came."""
        at = (topic, partition)
        expected = self._next.get(at, offset)
        self._next[at] = offset + 1
        if offset > expected:
            self._left_out[at] = min(expected, self._left_out.get(at, expected))
        elif offset < expected:
            self._returns[at] = self._returns.get(at, 0) + 1
            if self._returns[at] > self._assignments:
                self._went_back = (at, expected, offset)

    async def check(self) -> None:
        """Returns when everything noted until now is known to be contiguous. Waits for a Kafka that is away.

        One round trip where nothing was left out and no partitions moved. Safe to call from several tasks.

        Raises:
            TopicChanged: a topic is gone, made anew, cut short, or has more partitions.
            Overtaken: records were deleted before they were read.
            KafkaRefused: Kafka doesn't let us in.
            KafkaException: Kafka refuses the question for good.
        """
        async with self._checking:
            assignments, left_out = self._assignments, self._left_out
            self._left_out = {}
            try:
                await self._until_answered(left_out, moved=assignments > self._checked_assignments)
            except BaseException:
                self._left_out = {**self._left_out, **left_out}
                raise
            self._checked_assignments = assignments

    async def _until_answered(self, left_out: Mapping[TopicPartition, int], *, moved: bool) -> None:
        told = time.monotonic()
        while True:
            try:
                await asyncio.to_thread(self._ask, left_out, dict(self._next), moved)
            except KafkaRefused:
                raise
            except KafkaUnreachable as error:
                if time.monotonic() - told >= _SAY_EVERY_SECONDS:
                    told = time.monotonic()
                    logger.warning("event=waiting_for_kafka reason=%r", str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def _ask(self, left_out: Mapping[TopicPartition, int], reached: Mapping[TopicPartition, int], moved: bool) -> None:
        self._compare_topics()
        if self._went_back is not None:
            (topic, partition), expected, offset = self._went_back
            raise TopicChanged(
                f"topic {topic} went back from offset {expected:,} to {offset:,} in partition {partition}, without "
                f"having been assigned anew: it was cut short. {_CUT_SHORT}"
            )
        try:
            if moved:
                _once(lambda: check_committed(self._kafka, self._admin, self._group, self._topics), self._kafka)
                ends = _once(lambda: end_offsets(self._admin, self._topics), self._kafka)
                _refuse_beyond(reached, ends, "was read up to")
            if left_out:
                self._explain(left_out)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            raise KafkaUnreachable(str(error)) from error  # deleted meanwhile: the next description says so

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

    def _explain(self, left_out: Mapping[TopicPartition, int]) -> None:
        first = _once(lambda: first_offsets(self._admin, self._topics), self._kafka)
        if all(first[at] <= offset for at, offset in left_out.items()):
            return
        # Records from before partitions moved may have come late: what others have committed meanwhile isn't missing.
        committed = _once(lambda: committed_offsets(self._kafka, self._group, self._topics), self._kafka)
        missing = {
            at: (reached, first[at])
            for at, offset in left_out.items()
            if (reached := max(offset, committed.get(at, 0))) < first[at]
        }
        if missing:
            raise _overtaken(self._group, missing)


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


_CUT_SHORT: Final = (
    "New events would get offsets that profiles have counted already, and would be skipped: replay into a new "
    "generation (`afterglow replay`)"
)


def _once(ask: Callable[[], _R], kafka: Kafka) -> _R:
    """Raises KafkaUnreachable where another try may help."""
    return answered(ask, kafka, timeout_seconds=0)
