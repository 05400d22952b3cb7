"""What happened: searches, purchases and products as JSON, understood completely or refused with a reason.

The same decoder judges an event on the producer's side and on the worker's, so that what a producer may send
is exactly what a worker understands. Validation runs in msgspec's C decoder; only a refusal costs Python.
Fields that are not named here are ignored, so that the schema can grow. No function here reads a clock: `ts`
is judged against a time the caller gives (the record's timestamp; on the producer's side, now).
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
import orjson
from msgspec import Meta

MAX_ID: Final = 256
MAX_TEXT: Final = 4096
MAX_RELATED: Final = 32
MAX_QUANTITY: Final = 1_000_000_000
DAY_MS: Final = 86_400_000

# 10^11 is 1973 in milliseconds and 5138 in seconds, and each finer unit is a factor of 1000 away: any time
# between those years shows its unit by its size alone.
_SECONDS_FROM: Final = 10**8
_MILLISECONDS_FROM: Final = 10**11
_MICROSECONDS_FROM: Final = 10**14
_NANOSECONDS_FROM: Final = 10**17
_NANOSECONDS_TO: Final = 10**20

Identifier: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
OptionalText: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Milliseconds: TypeAlias = Annotated[
    int, Meta(description="When it happened: milliseconds since 1970-01-01 UTC.", examples=[1291191960000])
]
Price: TypeAlias = Annotated[float, Meta(ge=0, description="Price of one, in the shop's currency.")]
Kind: TypeAlias = Literal["product", "content", "ad"]


class InvalidEvent(ValueError):
    """An event that can't be understood: its `field` (or "value", "key") and a readable `reason`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class Search(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A user searched, and perhaps clicked a product. Keyed by `user_id`."""

    user_id: Identifier
    query: Text
    ts: Milliseconds
    event_id: Annotated[
        Identifier | None,
        Meta(description="Makes a repeated event recognisable; without it, every event counts."),
    ] = None
    session_id: Identifier | None = None
    locale: Identifier | None = None
    clicked_product_id: Annotated[
        Identifier | None, Meta(description="The product clicked among this search's results.")
    ] = None


class Purchase(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A user bought a product. Keyed by `user_id`."""

    user_id: Identifier
    product_id: Identifier
    quantity: Annotated[int, Meta(ge=1, le=MAX_QUANTITY)]
    ts: Milliseconds
    event_id: Annotated[
        Identifier | None,
        Meta(description="Makes a repeated event recognisable; without it, every event counts."),
    ] = None
    price: Price | None = None
    order_id: Annotated[
        Identifier | None,
        Meta(description="Purchases of one order share it; without it, those of one `ts` do."),
    ] = None
    title: Annotated[
        Text | None,
        Meta(description="The product's title as bought: lets a product count before it is known."),
    ] = None


class Product(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A product, replacing what was known of it. Keyed by `product_id`; a null value deletes it."""

    product_id: Identifier
    title: Text
    brand: OptionalText | None = None
    category: OptionalText | None = None
    price: Price | None = None
    kind: Annotated[Kind, Meta(description="What it is; readers can ask for one kind.")] = "product"
    available: Annotated[bool, Meta(description="Whether it may be recommended.")] = True
    related: Annotated[
        Annotated[tuple[Identifier, ...], Meta(max_length=MAX_RELATED)] | None,
        Meta(description="Products it goes with, known or not; each is then related to it as well."),
    ] = None
    ts: Milliseconds | None = None


Event: TypeAlias = Search | Purchase | Product
_E = TypeVar("_E", Search, Purchase, Product)

_SEARCHES: Final = msgspec.json.Decoder(Search)
_PURCHASES: Final = msgspec.json.Decoder(Purchase)
_PRODUCTS: Final = msgspec.json.Decoder(Product)


def decode_search(value: bytes | None, reference_ms: int) -> Search:
    """Understand a search from its record's value.

    `reference_ms` is the record's timestamp (ms): a `ts` more than a day after it is refused.
    Raises `InvalidEvent`, and nothing else, whatever the bytes.
    """
    return _decode(_SEARCHES, value, reference_ms)


def decode_purchase(value: bytes | None, reference_ms: int) -> Purchase:
    """Understand a purchase from its record's value; like `decode_search`."""
    return _decode(_PURCHASES, value, reference_ms)


def decode_product(value: bytes | None, reference_ms: int) -> Product | None:
    """Understand a product from its record's value; like `decode_search`.

    None is a deletion (a null value): the id is the record's key, see `decode_key`.
    """
    return None if value is None else _decode(_PRODUCTS, value, reference_ms)


def event_key(event: Event) -> str:
    """What the event's record is keyed by: the user, or the product."""
    return event.product_id if isinstance(event, Product) else event.user_id


def check_key(key: bytes | None, event: Event) -> None:
    """Refuse a record whose key is not its event's user (or product): `InvalidEvent` of field "key".

    The key chooses the partition. Under other keys a user's events would be spread over partitions: without
    an order, and folded by two workers at once.
    """
    if key != event_key(event).encode():
        field = "product_id" if isinstance(event, Product) else "user_id"
        raise InvalidEvent("key", f"is {_shown(decode_key(key))}, not the event's {field}; key the record by it")


def decode_key(key: bytes | None) -> str:
    """The id a record is keyed by; raises `InvalidEvent` of field "key"."""
    if not key:
        raise InvalidEvent("key", "is missing; key searches and purchases by user_id, products by product_id")
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise InvalidEvent("key", "is not valid UTF-8") from None
    if len(text) > MAX_ID:
        raise InvalidEvent("key", f"is longer than {MAX_ID} characters")
    return text


def encode(event: Event, reference_ms: int) -> bytes:
    """The event as JSON, after the very checks its reader will make; raises `InvalidEvent`.

    `reference_ms` is now (ms): what the record's timestamp will be.
    """
    price = None if isinstance(event, Search) else event.price
    if isinstance(price, float) and not math.isfinite(price):  # JSON has no such number: it would become null
        raise InvalidEvent("price", f"must be a finite number, got {price}")
    try:
        value = orjson.dumps(msgspec.to_builtins(event))
    except (UnicodeEncodeError, TypeError) as error:
        raise InvalidEvent("value", f"can't be written as JSON: {error}") from None
    if isinstance(event, Search):
        decode_search(value, reference_ms)
    elif isinstance(event, Purchase):
        decode_purchase(value, reference_ms)
    else:
        decode_product(value, reference_ms)
    return value


def check_ts(ts: int, reference_ms: int) -> None:
    """Refuse a `ts` that is not in ms, or more than a day after `reference_ms`; raises `InvalidEvent`."""
    if _MILLISECONDS_FROM <= ts < _MICROSECONDS_FROM and ts <= reference_ms + DAY_MS:
        return
    if not _SECONDS_FROM <= ts < _NANOSECONDS_TO:
        raise InvalidEvent("ts", f"is not a time after 1973: {ts}; give milliseconds since 1970-01-01 UTC")
    if ts < _MILLISECONDS_FROM:
        raise InvalidEvent("ts", f"looks like seconds: {ts}; give milliseconds")
    if ts >= _NANOSECONDS_FROM:
        raise InvalidEvent("ts", f"looks like nanoseconds: {ts}; give milliseconds")
    if ts >= _MICROSECONDS_FROM:
        raise InvalidEvent("ts", f"looks like microseconds: {ts}; give milliseconds")
    raise InvalidEvent(
        "ts", f"is more than a day in the future: {ts} is {_utc(ts)}, its record is of {_utc(reference_ms)}"
    )


def _decode(decoder: msgspec.json.Decoder[_E], value: bytes | None, reference_ms: int) -> _E:
    if value is None:
        raise InvalidEvent("value", "is null; only a product is deleted by a null value")
    try:
        if not value.isascii():
            value.decode()  # the decoder looks only into the fields it keeps
        event = decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _refusal(error) from None
    if event.ts is not None:
        check_ts(event.ts, reference_ms)
    return event


_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.(?P<field>\w+)(?P<inside>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(\w+)`$")
_TYPE: Final = re.compile(r"^Expected `(.+)`, got `(.+)`$")
_LENGTH: Final = re.compile(r"^Expected `str` of length (>=|<=) (\d+)$")
_NUMBER_OF: Final = re.compile(r"^Expected `array` of length <= (\d+)$")
_RANGE: Final = re.compile(r"^Expected `(?:int|float)` (>=|<=) (\S+)$")
_CHOICE: Final = re.compile(r"^Invalid enum value (.*)$")
_NAMES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}


def _refusal(error: Exception) -> InvalidEvent:
    """The decoder's complaint in the words of someone who writes events."""
    if isinstance(error, UnicodeDecodeError):
        return InvalidEvent("value", f"is not valid UTF-8: byte 0x{error.object[error.start]:02x}")
    if isinstance(error, RecursionError):
        return InvalidEvent("value", "is nested too deeply")
    where = _WHERE.match(str(error))
    if not isinstance(error, msgspec.ValidationError) or where is None:
        what = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it ends too early")
        return InvalidEvent("value", f"is not JSON: {what}")
    field, what = where["field"] or "value", where["what"]
    if where["inside"]:
        within = _refusal(type(error)(f"{what} - at `$.{field}`"))
        return InvalidEvent(field, f"has an entry that {within.reason}")
    if missing := _MISSING.match(what):
        return InvalidEvent(missing[1], "is missing")
    if mismatch := _TYPE.match(what):
        wanted, got = mismatch[1].removesuffix(" | null"), mismatch[2]
        advice = ""
        if got in ("int", "float") and wanted == "str":
            advice = "; write it in quotes"
        elif field == "ts":
            advice = "; give milliseconds since 1970-01-01 UTC, without quotes or fraction"
        return InvalidEvent(field, f"must be {_NAMES.get(wanted, wanted)}, got {_kind_of(got)}{advice}")
    if length := _LENGTH.match(what):
        return InvalidEvent(field, "is empty" if length[1] == ">=" else f"is longer than {length[2]} characters")
    if most := _NUMBER_OF.match(what):
        return InvalidEvent(field, f"has more than {most[1]} entries")
    if limit := _RANGE.match(what):
        bound = limit[2].removesuffix(".0")
        return InvalidEvent(field, f"must be {bound} or {'more' if limit[1] == '>=' else 'less'}")
    if choice := _CHOICE.match(what):
        got = _shown(choice[1].strip("'"))
        return InvalidEvent(field, f"must be product, content or ad, got {got}")
    if "out of range" in what:
        return InvalidEvent(field, "is too large a number")
    return InvalidEvent(field, f"is not valid: {what}")


def _kind_of(name: str) -> str:
    return {"bool": "a boolean", "float": "a fraction"}.get(name, _NAMES.get(name, name))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
