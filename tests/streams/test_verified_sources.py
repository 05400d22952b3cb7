"""Which records a generation is judged by: from its first offsets on, of its own topics."""

from __future__ import annotations

import msgspec
import pytest
from confluent_kafka import TopicPartition

from sinks.collections import Generation, Model, Source
from streams.groups import set_offsets
from streams.kafka import connect_admin
from streams.producer import EventProducer
from streams.settings import Settings
from streams.topics import Topic, ensure_topics
from streams.verification.log import Reader
from streams.verification.sources import Unverifiable, users_topics

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def one_partition(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, topics=msgspec.structs.replace(settings.topics, partitions=1))


def generation(settings: Settings, made: dict[str, Topic], start: int, **purchases: object) -> Generation:
    topics = settings.topics
    sources = {
        "searches": Source(topics.searches, made[topics.searches].id, [0]),
        "purchases": Source(topics.purchases, made[topics.purchases].id, [start]),
    }
    sources["purchases"] = msgspec.structs.replace(sources["purchases"], **purchases)
    return Generation(settings.generation, Model("m", "m", 8), "secret", {}, 0, sources)


def five_purchases(settings: Settings) -> dict[str, Topic]:
    made = ensure_topics(settings)
    with EventProducer(settings) as events:
        for n in range(5):
            events.purchase("ada", f"p{n}", quantity=1)
    return made


def test_records_before_the_generation_begins_are_not_read(one_partition: Settings) -> None:
    made = five_purchases(one_partition)
    _, purchases = users_topics(one_partition, generation(one_partition, made, 2))
    assert (purchases.start, purchases.committed) == ((2,), (2,)), "before its start, nothing is to be in it"
    offsets = []
    with Reader(one_partition.kafka, purchases.name, 0, purchases.start[0]) as reader:
        reader.read(5, lambda message: offsets.append(message.offset()))
    assert offsets == [2, 3, 4]


def test_what_is_committed_by_the_generation_s_own_group_has_to_be_in_it(one_partition: Settings) -> None:
    made = five_purchases(one_partition)
    set_offsets(one_partition.kafka, f"afterglow-{one_partition.generation}", {(one_partition.topics.purchases, 0): 4})
    _, purchases = users_topics(one_partition, generation(one_partition, made, 2))
    assert purchases.committed == (4,)


def test_a_log_without_its_beginning_judges_only_what_begins_later(one_partition: Settings) -> None:
    made = five_purchases(one_partition)
    cut = TopicPartition(one_partition.topics.purchases, 0, 3)
    admin = connect_admin(one_partition.kafka)  # kept, or it never answers
    admin.delete_records([cut])[cut].result()
    with pytest.raises(Unverifiable, match=f"{one_partition.topics.purchases} 0 from 2 to 3"):
        users_topics(one_partition, generation(one_partition, made, 2))
    _, purchases = users_topics(one_partition, generation(one_partition, made, 3))
    assert purchases.start == (3,)


def test_a_topic_made_anew_is_known_with_those_before_it(one_partition: Settings) -> None:
    made = five_purchases(one_partition)
    _, purchases = users_topics(one_partition, generation(one_partition, made, 0, id="the last one", earlier=["first"]))
    assert purchases.id == made[one_partition.topics.purchases].id
    assert (purchases.start, purchases.committed) == ((0,), (0,)), "what is committed is of the topic before"
    assert [purchases.may_have_preceded(id_) for id_ in ("first", "the last one", "a stranger", purchases.id)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_topic_that_is_gone_can_judge_nobody(settings: Settings) -> None:
    with pytest.raises(Unverifiable, match=f"no topic {settings.topics.searches} and no {settings.topics.purchases}"):
        users_topics(settings, Generation(settings.generation, Model("m", "m", 8), "secret", {}, 0))
