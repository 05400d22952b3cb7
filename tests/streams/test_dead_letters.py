"""Dead letters: their record, and sending them again exactly once."""

from __future__ import annotations

import os

import pytest
from confluent_kafka import Message

from streams.dead_letters import DeadLetter, newest, read_letter, retry, understand, waiting_count
from streams.events import InvalidEvent
from streams.kafka import connect_admin
from streams.producer import EventProducer
from streams.settings import Settings, Topics
from streams.topics import end_offsets, ensure_topics

NOW = 1_700_000_000_000
GOOD = b'{"user_id":"u","query":"boots","ts":1600000000000}'


def letter(offset: int, value: bytes | None, reason: str = "is not JSON", topic: str = "searches") -> DeadLetter:
    return DeadLetter(
        topic=topic, partition=3, offset=offset, timestamp=NOW, field="value", reason=reason, key=b"u", value=value
    )


def test_a_letter_is_a_record_with_six_headers_and_the_original_bytes() -> None:
    original = letter(17, b"\xff\x00", "is not valid UTF-8: byte 0xff")
    assert original.headers() == [
        ("topic", b"searches"),
        ("partition", b"3"),
        ("offset", b"17"),
        ("timestamp", b"1700000000000"),
        ("field", b"value"),
        ("reason", b"is not valid UTF-8: byte 0xff"),
    ]
    assert read_letter(Message(key=b"u", value=b"\xff\x00", headers=original.headers())) == original


def test_a_long_reason_is_cut_and_a_surrogate_in_it_is_borne() -> None:
    headers = dict(letter(0, b"", "\ud800" + "x" * 5000).headers())
    assert headers["reason"] == b"?" + b"x" * 999


def test_a_record_that_is_no_letter_is_read_as_it_is() -> None:
    assert read_letter(Message(key=None, value=b"v", headers=[("offset", b"many"), ("reason", None)])) == DeadLetter(
        topic="", partition=-1, offset=-1, timestamp=-1, field="", reason="", key=None, value=b"v"
    )


@pytest.mark.parametrize(
    ("topic", "key", "value", "told"),
    [
        ("searches", b"u", GOOD, None),
        ("searches", b"v", GOOD, "key is 'v', not the event's user_id; key the record by it"),
        ("purchases", b"u", GOOD, "product_id is missing"),
        ("purchases", b"u", None, "value is null; only a product is deleted by a null value"),
        ("products", b"p", b'{"product_id":"p","title":"t"}', None),
        ("products", b"p", None, None),
        ("products", None, None, "key is missing; key searches and purchases by user_id, products by product_id"),
        ("clicks", b"u", GOOD, "topic is not one of ours: 'clicks'"),
    ],
)
def test_letters_are_judged_as_a_worker_judges_their_topic(
    topic: str, key: bytes | None, value: bytes | None, told: str | None
) -> None:
    judged = DeadLetter(
        topic=topic, partition=0, offset=0, timestamp=NOW, field="value", reason="?", key=key, value=value
    )
    if told is None:
        understand(judged, Topics(), NOW)
    else:
        with pytest.raises(InvalidEvent) as caught:
            understand(judged, Topics(), NOW)
        assert str(caught.value) == told


def send(settings: Settings, letters: list[DeadLetter]) -> None:
    with EventProducer(settings) as producer:
        for one in letters:
            producer.send(settings.topics.dead_letters, one.key, one.value, one.headers())


def searches_in(settings: Settings) -> int:
    admin = connect_admin(settings.kafka)
    searches = {settings.topics.searches: ensure_topics(settings)[settings.topics.searches]}
    return sum(end_offsets(admin, searches).values())


@pytest.mark.end_to_end
def test_the_newest_letters_come_last(settings: Settings) -> None:
    ensure_topics(settings)
    assert newest(settings, 5) == []
    letters = [letter(number, b"%d" % number) for number in range(10)]
    send(settings, letters)
    assert newest(settings, 3) == letters[7:]
    assert newest(settings, 100) == letters
    assert waiting_count(settings) == 10


@pytest.mark.end_to_end
def test_a_second_retry_sends_nothing_again(settings: Settings) -> None:
    ensure_topics(settings)
    topic = settings.topics.searches
    send(
        settings,
        [
            letter(0, GOOD, topic=topic),
            letter(1, b"still nonsense", topic=topic),
            letter(2, GOOD, "looked wrong to an older worker", topic=topic),
            letter(3, os.urandom(8) + b"\xff", topic=topic),
        ],
    )

    first = retry(settings, NOW, only="older worker")
    assert (first.sent, first.kept, first.refusals.count) == (1, 3, 0)
    assert sum(offset + 1 for offset in first.offsets.values()) == 1
    assert searches_in(settings) == 1
    assert waiting_count(settings) == 3

    second = retry(settings, NOW)
    assert (second.sent, second.kept, second.refusals.count) == (1, 0, 2)
    assert {refusal.reason for refusal in second.refusals.listed()} >= {"is not JSON: invalid character (byte 0)"}
    assert searches_in(settings) == 2

    third = retry(settings, NOW)
    assert (third.sent, third.kept, third.refusals.count) == (0, 0, 2)
    assert searches_in(settings) == 2
    waiting = newest(settings, 10)
    assert [(one.offset, one.key) for one in waiting] == [(1, b"u"), (3, b"u")]
    assert waiting[0] == DeadLetter(
        topic=topic,
        partition=3,
        offset=1,
        timestamp=NOW,
        field="value",
        reason="is not JSON: invalid character (byte 0)",
        key=b"u",
        value=b"still nonsense",
    )
