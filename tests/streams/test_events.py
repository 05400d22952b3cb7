"""Events: what is understood, and in which words the rest is refused."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import (
    InvalidEvent,
    Product,
    Purchase,
    Search,
    check_key,
    decode_key,
    decode_product,
    decode_purchase,
    decode_search,
    encode,
)

NOW = 1_700_000_000_000
DAY = 86_400_000
DATA = Path(os.environ.get("AFTERGLOW_DATA", Path(__file__).parents[3] / "shared" / "data"))

REQUIRED = '"user_id":"u","product_id":"p","quantity":1,"ts":1600000000000'


def refusal(decode: Callable[[bytes | None, int], object], value: bytes | str | None) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        decode(value.encode() if isinstance(value, str) else value, NOW)
    return caught.value.field, caught.value.reason


def test_a_whole_event_of_each_kind() -> None:
    assert decode_search(
        b'{"event_id":"e","user_id":"u","query":"boots","ts":1600000000000,"session_id":"s","locale":"en",'
        b'"clicked_product_id":"p","a later field":[1,{"x":null}]}',
        NOW,
    ) == Search("u", "boots", 1_600_000_000_000, event_id="e", session_id="s", locale="en", clicked_product_id="p")
    assert decode_purchase(
        b'{"user_id":"u","product_id":"p","quantity":6,"price":2,"order_id":"o","title":"Lamp","ts":1600000000000}', NOW
    ) == Purchase("u", "p", 6, 1_600_000_000_000, price=2.0, order_id="o", title="Lamp")
    assert decode_product(b'{"product_id":"p","title":"Lamp","brand":"","price":null}', NOW) == Product(
        "p", "Lamp", brand="", category=None, price=None, kind="product", available=True, ts=None
    )


def test_a_null_value_deletes_a_product_and_nothing_else() -> None:
    assert decode_product(None, NOW) is None
    assert refusal(decode_search, None) == ("value", "is null; only a product is deleted by a null value")
    assert refusal(decode_purchase, None) == ("value", "is null; only a product is deleted by a null value")


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (b"", "value", "is not JSON: it ends too early"),
        (b'{"user_id":', "value", "is not JSON: it ends too early"),
        (b"yes", "value", "is not JSON: invalid character (byte 0)"),
        (b"null", "value", "must be an object, got null"),
        (b"[]", "value", "must be an object, got an array"),
        (b"{}", "user_id", "is missing"),
        (b'{"user_id":17850}', "user_id", "must be a string, got an integer; write it in quotes"),
        (b'{"user_id":""}', "user_id", "is empty"),
        (b'{"user_id":null}', "user_id", "must be a string, got null"),
        (b'{"user_id":"' + b"u" * 257 + b'"}', "user_id", "is longer than 256 characters"),
        (b'{"quantity":0}', "quantity", "must be 1 or more"),
        (b'{"quantity":1.5}', "quantity", "must be an integer, got a fraction"),
        (b'{"quantity":true}', "quantity", "must be an integer, got a boolean"),
        (b'{"quantity":1000000001}', "quantity", "must be 1000000000 or less"),
        (b'{"price":-0.01}', "price", "must be 0 or more"),
        (b'{"price":1e999}', "price", "is too large a number"),
        (b'{"price":"2.50"}', "price", "must be a number, got a string"),
        (b'{"price":NaN}', "value", "is not JSON: invalid character (byte 9)"),
        (b'{"title":""}', "title", "is empty"),
        (b'{"title":"' + b"t" * 4097 + b'"}', "title", "is longer than 4096 characters"),
        (b'{"title":"\xff"}', "value", "is not valid UTF-8: byte 0xff"),
        (b'{"a later field":"\xff"}', "value", "is not valid UTF-8: byte 0xff"),
        (b'{"a later field":' + b"[" * 100_000, "value", "is nested too deeply"),
        (
            b'{"ts":"2011-09-30"}',
            "ts",
            "must be an integer, got a string; give milliseconds since 1970-01-01 UTC, without quotes or fraction",
        ),
        (b'{"ts":' + b"9" * 5000 + b"}", "ts", "is too large a number"),
    ],
)
def test_what_is_refused_and_why(value: bytes, field: str, reason: str) -> None:
    assert refusal(decode_purchase, value) == (field, reason)


def test_a_product_names_those_it_goes_with() -> None:
    assert decode_product(b'{"product_id":"p","title":"Lamp","related":["bulb","p-9"]}', NOW) == Product(
        "p", "Lamp", related=("bulb", "p-9")
    )
    assert decode_product(b'{"product_id":"p","title":"Lamp","related":null}', NOW) == Product("p", "Lamp")
    for related, reason in (
        ('"bulb"', "must be an array, got a string"),
        ("[17]", "has an entry that must be a string, got an integer; write it in quotes"),
        ('["bulb",""]', "has an entry that is empty"),
        ('["' + "b" * 257 + '"]', "has an entry that is longer than 256 characters"),
        ("[" + ",".join(['"bulb"'] * 33) + "]", "has more than 32 entries"),
    ):
        value = f'{{"product_id":"p","title":"t","related":{related}}}'
        assert refusal(decode_product, value) == ("related", reason)


def test_kind_and_availability() -> None:
    assert refusal(decode_product, '{"product_id":"p","title":"t","kind":"service"}') == (
        "kind",
        "must be product, content or ad, got 'service'",
    )
    assert refusal(decode_product, '{"product_id":"p","title":"t","available":"yes"}') == (
        "available",
        "must be true or false, got a string",
    )


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        (1291191960, "looks like seconds: 1291191960; give milliseconds"),
        (1291191960000000, "looks like microseconds: 1291191960000000; give milliseconds"),
        (1291191960000000000, "looks like nanoseconds: 1291191960000000000; give milliseconds"),
        (0, "is not a time after 1973: 0; give milliseconds since 1970-01-01 UTC"),
        (-1600000000000, "is not a time after 1973: -1600000000000; give milliseconds since 1970-01-01 UTC"),
        (
            NOW + DAY + 1,
            "is more than a day in the future: 1700086400001 is 2023-11-15T22:13:20Z, its record is of "
            "2023-11-14T22:13:20Z",
        ),
    ],
)
def test_times_that_are_not_milliseconds_are_named(ts: int, reason: str) -> None:
    assert refusal(decode_search, f'{{"user_id":"u","query":"q","ts":{ts}}}') == ("ts", reason)
    assert refusal(decode_product, f'{{"product_id":"p","title":"t","ts":{ts}}}') == ("ts", reason)


def test_a_day_of_a_producers_clock_running_ahead_is_borne() -> None:
    value = f'{{"user_id":"u","query":"q","ts":{NOW + DAY}}}'.encode()
    assert decode_search(value, NOW).ts == NOW + DAY
    with pytest.raises(InvalidEvent):
        decode_search(value, NOW - 1)  # judged by the record's time alone


@given(st.integers(min_value=10**8, max_value=10**11 - 1))
def test_every_time_from_1973_to_5138_shows_its_unit(seconds: int) -> None:
    far = 10**18
    for factor, unit in ((1, "seconds"), (1_000_000, "microseconds"), (1_000_000_000, "nanoseconds")):
        with pytest.raises(InvalidEvent, match=f"looks like {unit}"):
            decode_search(b'{"user_id":"u","query":"q","ts":%d}' % (seconds * factor), far)
    assert decode_search(b'{"user_id":"u","query":"q","ts":%d}' % (seconds * 1000), far).ts == seconds * 1000


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_invalid_event(value: bytes) -> None:
    for decode in (decode_search, decode_purchase, decode_product):
        for bytes_ in (value, b"{%s" % value, b'{"user_id":"%s"}' % value):
            with contextlib.suppress(InvalidEvent):
                decode(bytes_, NOW)


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=256)
TIMES = st.integers(min_value=10**11, max_value=NOW + DAY)


@given(
    st.builds(Search, TEXTS, TEXTS, TIMES, event_id=st.none() | TEXTS, clicked_product_id=st.none() | TEXTS)
    | st.builds(
        Purchase,
        TEXTS,
        TEXTS,
        st.integers(1, 10**9),
        TIMES,
        price=st.none() | st.floats(min_value=0, allow_infinity=False),
        title=st.none() | TEXTS,
    )
    | st.builds(Product, TEXTS, TEXTS, kind=st.sampled_from(["product", "content", "ad"]), available=st.booleans())
)
def test_what_is_written_is_read_as_it_was(event: Search | Purchase | Product) -> None:
    value = encode(event, NOW)
    if isinstance(event, Search):
        assert decode_search(value, NOW) == event
        check_key(event.user_id.encode(), event)
    elif isinstance(event, Purchase):
        assert decode_purchase(value, NOW) == event
        check_key(event.user_id.encode(), event)
    else:
        assert decode_product(value, NOW) == event
        check_key(event.product_id.encode(), event)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Search("", "q", NOW), "user_id is empty"),
        (Search("u", "q", NOW // 1000), "ts looks like seconds: 1700000000; give milliseconds"),
        (Search(17, "q", NOW), "user_id must be a string, got an integer; write it in quotes"),  # type: ignore[arg-type]
        (Purchase("u", "p", 0, NOW), "quantity must be 1 or more"),
        (Purchase("u", "p", 1, NOW, price=float("nan")), "price must be a finite number, got nan"),
        (Product("p", "t", price=float("inf")), "price must be a finite number, got inf"),
    ],
)
def test_a_producer_is_told_what_a_worker_would_refuse(event: Search | Purchase | Product, told: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        encode(event, NOW)
    assert str(caught.value) == told


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(InvalidEvent, match="can't be written as JSON"):
        encode(Search("\ud800", "q", NOW), NOW)


def test_the_key_must_be_the_events_own() -> None:
    purchase, product = Purchase("u", "p", 1, NOW), Product("p", "t")
    check_key(b"u", purchase)
    check_key(b"p", product)
    for key, event, told in (
        (b"p", purchase, "key is 'p', not the event's user_id; key the record by it"),
        (b"u", product, "key is 'u', not the event's product_id; key the record by it"),
        (None, purchase, "key is missing; key searches and purchases by user_id, products by product_id"),
        (b"\xff", purchase, "key is not valid UTF-8"),
    ):
        with pytest.raises(InvalidEvent) as caught:
            check_key(key, event)
        assert str(caught.value) == told


def test_the_key_of_a_deletion() -> None:
    assert decode_key("prøduct".encode()) == "prøduct"
    with pytest.raises(InvalidEvent, match="key is longer than 256 characters"):
        decode_key(b"k" * 257)


@pytest.mark.parametrize(
    ("file", "decode", "lines"),
    [
        ("online-retail/purchases", decode_purchase, 265_427),
        ("online-retail/products", decode_product, 3_502),
        ("game-searches/searches", decode_search, 21_592),
        ("game-searches/products", decode_product, 438),
        ("shop-searches/searches", decode_search, 999),
    ],
)
def test_every_line_of_real_files_is_understood(
    file: str, decode: Callable[[bytes | None, int], object], lines: int
) -> None:
    path = DATA / f"{file}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs the real data: {path} (AFTERGLOW_DATA says where)")
    with gzip.open(path) as content:
        assert sum(decode(line, NOW) is not None for line in content) == lines
