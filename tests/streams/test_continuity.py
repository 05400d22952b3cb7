"""What is read is a contiguous part of the topics it is thought to be of, or the reader stops and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from streams import continuity
from streams.continuity import Continuity, LeftOut, Overtaken, TopicChanged, check_committed
from streams.groups import set_offsets
from streams.kafka import answered, connect_admin
from streams.settings import Settings
from streams.topics import Topic, committed_offsets, describe, end_offsets

pytestmark = pytest.mark.end_to_end


class Stream:
    """A topic with two partitions, a group that reads it, and the guard of that group."""

    def __init__(self, settings: Settings) -> None:
        self.kafka = settings.kafka
        self.admin: AdminClient = connect_admin(settings.kafka)
        self.name = settings.topics.searches
        self.group = f"afterglow-{settings.generation}"
        self.create()
        answered(lambda: committed_offsets(self.kafka, self.group, self.topics), self.kafka)  # now it has a coordinator
        starts = {(self.name, partition): 0 for partition in range(2)}
        self.continuity = Continuity(self.kafka, self.admin, self.group, self.topics, starts)

    def create(self) -> None:
        self.admin.create_topics([NewTopic(self.name, 2, 1)])[self.name].result()
        while not describe(self.admin, [self.name]):
            pass
        answered(lambda: end_offsets(self.admin, self.topics), self.kafka)  # now each partition has a leader

    @property
    def topics(self) -> dict[str, Topic]:
        return describe(self.admin, [self.name])

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result()
        while describe(self.admin, [self.name]):
            pass

    def produce(self, number: int, *, transactions: int = 0) -> None:
        """Into partition 0: `number` records, or as many in each of several transactions."""
        config = {"bootstrap.servers": self.kafka.bootstrap_servers}
        if transactions:
            config["transactional.id"] = self.name
        producer = Producer(config)
        if transactions:
            producer.init_transactions()
        for _ in range(max(transactions, 1)):
            if transactions:
                producer.begin_transaction()
            for _ in range(number):
                producer.produce(self.name, b"x", partition=0)
            producer.flush()
            if transactions:
                producer.commit_transaction()

    def commit(self, offset: int) -> None:
        set_offsets(self.kafka, self.group, {(self.name, 0): offset})

    def delete_records(self, below: int) -> None:
        at = KafkaPartition(self.name, 0, below)
        self.admin.delete_records([at])[at].result()

    def note(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self.continuity.note(self.name, 0, offset)

    def read(self, number: int) -> list[int]:
        """The offsets of the next records from the beginning of partition 0, as a consumer gets them."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": f"{self.group}-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.assign([KafkaPartition(self.name, 0, 0)])
        offsets = [message.offset() for message in consumer.consume(number, timeout=30)]
        consumer.close()
        return [offset for offset in offsets if offset is not None]


@pytest.fixture
def stream(settings: Settings) -> Stream:
    return Stream(settings)


async def test_records_without_gaps_pass(stream: Stream) -> None:
    stream.produce(5)
    stream.continuity.assigned()
    stream.note([0, 1, 2])
    await stream.continuity.check()
    stream.note([3, 4])
    await stream.continuity.check()


async def test_a_topic_that_is_gone(stream: Stream) -> None:
    id_ = stream.topics[stream.name].id
    await stream.continuity.check()
    stream.delete()
    with pytest.raises(TopicChanged) as told:
        await stream.continuity.check()
    assert str(told.value) == f"topic {stream.name} is gone (it had id {id_}); start again when it is back"


async def test_a_topic_made_anew(stream: Stream) -> None:
    before = stream.topics[stream.name].id
    stream.delete()
    stream.create()
    with pytest.raises(TopicChanged) as told:
        await stream.continuity.check()
    assert str(told.value) == (
        f"topic {stream.name} was made anew (id {before} became {stream.topics[stream.name].id}); "
        "start again to read the new one from its beginning"
    )


async def test_partitions_added(stream: Stream) -> None:
    stream.admin.create_partitions([NewPartitions(stream.name, 3)])[stream.name].result()
    with pytest.raises(TopicChanged, match=r"went from 2 to 3 partitions: users' events moved\. Copy"):
        await stream.continuity.check()


async def test_records_deleted_while_they_waited_to_be_read(stream: Stream) -> None:
    stream.produce(10)
    stream.note([0, 1, 2])
    stream.delete_records(7)
    await stream.continuity.check()  # what was read is all there was
    stream.note([7, 8])
    for _ in range(2):  # a second task that checks the same records must not be told that they are contiguous
        with pytest.raises(Overtaken) as told:
            await stream.continuity.check()
        assert f"had not read: {stream.name} partition 0 offsets 3 to 6 (retention" in str(told.value)


async def test_records_deleted_before_the_first_was_read(stream: Stream) -> None:
    stream.produce(10)
    stream.commit(4)
    stream.delete_records(6)
    stream.continuity.assigned()
    stream.note([6, 7])
    with pytest.raises(Overtaken, match=f"had not read: {stream.name} partition 0 offsets 4 to 5 "):
        await stream.continuity.check()


async def test_a_transactions_markers_are_no_gap(stream: Stream) -> None:
    stream.produce(2, transactions=3)
    offsets = stream.read(6)
    assert offsets == [0, 1, 3, 4, 6, 7]
    stream.note(offsets)
    await stream.continuity.check()


@pytest.mark.parametrize(
    ("committed", "delivered", "left_out"),
    [
        (0, [2, 3], "offsets 0 to 1 (2 records)"),  # nothing is committed yet
        (3, [5, 6], "offsets 3 to 4 (2 records)"),
        (3, [3, 4, 8], "offsets 5 to 7 (3 records)"),
        (3, [1, 2, 3, 6, 8], "offsets 4 to 7 (3 records)"),  # what is between is no gap
    ],
)
async def test_records_that_were_left_out(committed: int, delivered: list[int], left_out: str, stream: Stream) -> None:
    stream.produce(10)
    if committed:
        stream.commit(committed)
    stream.continuity.assigned()
    stream.note(delivered)
    for _ in range(2):
        with pytest.raises(LeftOut) as told:
            await stream.continuity.check()
        assert str(told.value) == (
            f"the consumer of group {stream.group} left out records that Kafka has: {stream.name} partition 0 "
            f"{left_out}. Nothing after them was acknowledged: start again, and they are read. Please report it"
        )


async def test_a_gap_in_a_partition_that_was_somebody_elses_meanwhile(stream: Stream) -> None:
    stream.produce(10)
    stream.note([0, 1])
    stream.continuity.assigned()
    stream.commit(5)
    stream.continuity.assigned()
    stream.note([7])
    with pytest.raises(LeftOut, match=r"offsets 5 to 6 \(2 records\)"):
        await stream.continuity.check()


async def test_what_others_committed_meanwhile_is_no_gap(stream: Stream) -> None:
    stream.produce(10)
    stream.note([0, 1])
    stream.commit(7)  # by the member that had the partition in between
    stream.delete_records(5)
    stream.note([7])
    await stream.continuity.check()


async def test_records_come_again_once_after_each_assignment(stream: Stream) -> None:
    stream.produce(10)
    stream.continuity.assigned()
    stream.note([0, 1, 2, 3])
    await stream.continuity.check()
    stream.continuity.assigned()
    stream.note([4, 5])  # still on their way from before
    stream.note([2, 3])
    await stream.continuity.check()
    stream.continuity.assigned()
    stream.note([2, 3])
    await stream.continuity.check()


async def test_records_that_go_back_by_themselves(stream: Stream) -> None:
    stream.produce(10)
    stream.commit(5)
    stream.note([5, 6])
    stream.note([0])
    with pytest.raises(TopicChanged, match=r"went back from offset 7 to 0 in partition 0, .* it was cut short\. New"):
        await stream.continuity.check()


async def test_more_was_read_than_there_is(stream: Stream) -> None:
    stream.produce(3)
    stream.continuity.assigned()
    stream.note([0, 1, 2, 3, 4, 5])
    with pytest.raises(TopicChanged, match="was read up to offset 6 in partition 0, and ends at 3: it was cut short"):
        await stream.continuity.check()


async def test_a_kafka_that_is_away_is_waited_for(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [KafkaException(KafkaError(KafkaError._TRANSPORT)) for _ in range(2)]

    def away_at_first(admin: AdminClient, names: Iterable[str]) -> dict[str, Topic]:
        if answers:
            raise answers.pop()
        return describe(admin, names)

    monkeypatch.setattr(continuity, "describe", away_at_first)
    await stream.continuity.check()
    assert answers == []


async def test_two_tasks_may_check_at_once(stream: Stream) -> None:
    stream.produce(2, transactions=2)
    stream.note([0, 1, 3])
    await asyncio.gather(*(stream.continuity.check() for _ in range(4)))


def test_a_committed_offset_that_retention_has_overtaken(stream: Stream) -> None:
    stream.produce(10)
    stream.commit(4)
    check_committed(stream.kafka, stream.admin, stream.group, stream.topics)
    stream.delete_records(4)
    check_committed(stream.kafka, stream.admin, stream.group, stream.topics)
    stream.delete_records(6)
    with pytest.raises(Overtaken) as told:
        check_committed(stream.kafka, stream.admin, stream.group, stream.topics)
    assert str(told.value) == (
        f"Kafka has deleted records that group {stream.group} had not read: {stream.name} partition 0 offsets 4 to 5 "
        "(retention, or somebody's deletion). `afterglow replay` makes a new generation of what the topics still have. "
        "To accept the loss instead, stop the workers, then: kafka-consumer-groups --bootstrap-server ... "
        f"--group {stream.group} --topic {stream.name}:0 --reset-offsets --to-earliest --execute. And raise "
        "retention.ms of these topics"
    )


def test_a_group_that_has_read_nothing_yet(stream: Stream) -> None:
    stream.produce(10)
    stream.delete_records(6)
    check_committed(stream.kafka, stream.admin, stream.group, stream.topics)
    check_committed(stream.kafka, stream.admin, stream.group, stream.topics, {(stream.name, 0): 6})
    with pytest.raises(Overtaken, match="offsets 2 to 5"):
        check_committed(stream.kafka, stream.admin, stream.group, stream.topics, {(stream.name, 0): 2})


def test_a_committed_offset_beyond_the_end(stream: Stream) -> None:
    stream.produce(3)
    stream.commit(5)
    with pytest.raises(TopicChanged, match=f"committed by group {stream.group} at offset 5 in partition 0, and ends"):
        check_committed(stream.kafka, stream.admin, stream.group, stream.topics)


def test_kafka_forgets_offsets_with_their_topic_but_takes_old_ones_for_the_new(stream: Stream) -> None:
    """Why a topic made anew is told by its id, and its group's offsets are set before anything is read."""
    live = Consumer(
        {
            "bootstrap.servers": stream.kafka.bootstrap_servers,
            "group.id": stream.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        live.subscribe([stream.name])
        stream.produce(8)
        assert len(live.consume(8, timeout=60)) == 8
        live.commit(offsets=[KafkaPartition(stream.name, 0, 8)], asynchronous=False)
        stream.delete()
        stream.create()
        assert committed_offsets(stream.kafka, stream.group, stream.topics) == {}
        live.commit(offsets=[KafkaPartition(stream.name, 0, 8)], asynchronous=False)
        assert committed_offsets(stream.kafka, stream.group, stream.topics) == {(stream.name, 0): 8}
    finally:
        live.close()
