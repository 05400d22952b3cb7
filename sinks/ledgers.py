"""The state of a profile, as Qdrant stores it: two ledgers that never mix, one for each topic of a user's events.

A ledger is a pure function of a prefix of its own topic. Nothing here computes that function (`streams.profiles` does);
this module only says what a ledger holds and how it becomes bytes, so that whoever reads profiles needs nothing of
what writes them.

Every decayed sum of weights Σ a_i · 2^((t - t_i) / h) is kept as a *log-weight*

    L = log2 Σ a_i · 2^(t_i / h)

a constant that needs no clock: the sum at time t is 2^(L - t/h). It never underflows, and ranks keys the same at any
time. Times are milliseconds since the epoch (UTC), or whole seconds where a field says so.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDER_DECAY: Final = 0.8
"""What a key's recency keeps at each later order of its user (chosen by validation on online-retail)."""

NOTHING: Final = -math.inf
"""The log-weight of no weight at all."""

FAINTEST: Final = -1e9
"""What stands for `NOTHING` where JSON is written, which has no infinity. No event's weight comes near it."""

KEY_ROW: Final = np.dtype(
    [
        ("weight", "<f8"),  # log-weight L by the long half-life
        ("first", "<u4"),  # time of the earliest event of this key, seconds since the epoch
        ("last", "<u4"),  # time of the latest
        ("count", "<u4"),  # orders that contain it (of a query: searches)
        ("recency", "<f4"),  # the same count decayed by ORDER_DECAY an order of this user, as it was at `last_order`
        ("first_order", "<u4"),  # index of the first order that contains it
        ("last_order", "<u4"),  # index of the last
    ]
)

_FORMAT: Final = 1
_HEADER: Final = struct.Struct("<qiqqdddHHHddIIIIQIHHB")  # a `_Header`
_LENGTH: Final = struct.Struct("<I")


class StateError(ValueError):
    """Stored bytes that this version can't read. Says what was found."""


class Applied(NamedTuple):
    """How far a topic has been folded in: everything at or below `offset` of `partition`, and nothing beyond it."""

    topic_id: str
    partition: int
    offset: int


class Debt(NamedTuple):
    """Weight that W counts already but S does not yet, because the product's vector isn't known: two log-weights."""

    long: float
    short: float


NEVER: Final = Applied("", -1, -1)
NO_DEBT: Final = Debt(NOTHING, NOTHING)


def product_key(product_id: str) -> str:
    """The history key of a product. The leading letter keeps it apart from a query of the same characters."""
    return "p" + product_id


def query_key(query: str) -> str:
    """The history key of a normalised query."""
    return "q" + query


def is_query(key: str) -> bool:
    return key.startswith("q")


class QueryVector(NamedTuple):
    """A query's unit vector, kept small: `scale * values` is within 0.4% of each component's range."""

    scale: float
    values: NDArray[np.int8]

    @classmethod
    def of(cls, vector: NDArray[np.float32]) -> QueryVector:
        scale = float(np.float32(np.abs(vector).max() / 127.0)) or 1.0
        return cls(scale, np.rint(vector / scale).astype(np.int8))

    def restored(self) -> NDArray[np.float32]:
        """The vector, float32 [d], of norm 1 within 1%."""
        return self.values.astype(np.float32) * np.float32(self.scale)


@dataclass(slots=True)
class Ledger:
    """What is remembered of one user's events of one topic. The field comments are the specification.

    `long` and `short` are the sums S of the two folds at `newest_ts`, float64 [d] in memory and float32 at rest; None
    stands for zero (nothing folded yet, only unknown products so far, or faded below what float32 holds).
    """

    applied: Applied = NEVER
    events: int = 0  # events folded in, duplicates left out
    newest_ts: int = 0  # the newest event's time, ms; it never moves back
    long: NDArray[np.float64] | None = None
    short: NDArray[np.float64] | None = None
    weight_long: float = NOTHING  # log-weight of all events
    weight_short: float = NOTHING
    keys: list[str] = field(default_factory=list)  # the history, row by row
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, KEY_ROW))  # may be longer than `keys`
    query_vectors: dict[str, QueryVector] = field(default_factory=dict)
    evicted: float = NOTHING  # log-weight of what left the history
    pending: dict[str, Debt] = field(default_factory=dict)  # by product id
    lost: Debt = NO_DEBT  # debts that left a full `pending`: they will never reach S
    n_lost: int = 0
    orders: int = 0  # an order is an order id, else an equal ts; a search is an order of its own
    repeats: int = 0  # lines (a product in an order) of products that an earlier order had
    later_lines: int = 0  # lines after the first order
    distinct: int = 0  # keys ever taken into the history
    open_order: int = 0  # 64-bit hash of the newest order; 0: none yet
    event_ids: list[int] = field(default_factory=list)  # 64-bit hashes of the newest, oldest first
    noise: dict[str, int] = field(default_factory=dict)  # events that weighed less, by reason; stored beside the bytes

    @property
    def history(self) -> NDArray[np.void]:
        """The rows in use, parallel to `keys`."""
        return self.rows[: len(self.keys)]

    def reserve(self, more: int) -> None:
        """Makes room for `more` keys, so that adding one is a plain store."""
        if len(self.keys) + more > len(self.rows):
            grown = np.zeros(len(self.keys) + more, KEY_ROW)
            grown[: len(self.keys)] = self.history
            self.rows = grown


class ProfileState(NamedTuple):
    """Both ledgers of a user: the whole of what is remembered."""

    searches: Ledger
    purchases: Ledger

    @property
    def newest_ts(self) -> int:
        return max(self.searches.newest_ts, self.purchases.newest_ts)

    @property
    def pending(self) -> set[str]:
        """Ids of the products that either ledger waits for."""
        return self.searches.pending.keys() | self.purchases.pending.keys()


def add_log_weights(a: float, b: float) -> float:
    """log2(2^a + 2^b), exact to float64 whatever their magnitudes."""
    if a < b:
        a, b = b, a
    return a if b == NOTHING else a + math.log1p(2.0 ** (b - a)) / math.log(2.0)


def total_log_weight(weights: Iterable[float]) -> float:
    """log2 Σ 2^w."""
    total = NOTHING
    for weight in weights:
        total = add_log_weights(total, weight)
    return total


def encode_state(state: ProfileState) -> bytes:
    """The compact binary form of a state. `decode_state` gives an equal state back, sums rounded to float32.

    Without `noise`: few profiles have any, and the payload has it, where `status` can add it up.
    """
    parts: list[bytes] = [bytes([_FORMAT])]
    for ledger in state:
        _encode_ledger(ledger, parts)
    return b"".join(parts)


def decode_state(data: bytes) -> ProfileState:
    """Raises StateError for bytes of another format, or cut off."""
    if not data or data[0] != _FORMAT:
        found = f"format {data[0]}" if data else "no bytes"
        raise StateError(
            f"a stored profile has {found}, this version reads format {_FORMAT}: run the version that wrote it, "
            "or replay into a new generation"
        )
    try:
        searches, at = _decode_ledger(data, 1)
        purchases, at = _decode_ledger(data, at)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise StateError(f"a stored profile of {len(data)} bytes is cut off or damaged: {error}") from error
    if at != len(data):
        raise StateError(f"a stored profile has {len(data) - at} bytes too many")
    return ProfileState(searches, purchases)


class _Header(NamedTuple):
    """What comes first of a ledger: `_HEADER` packs the fields in this order."""

    offset: int
    partition: int
    events: int
    newest_ts: int
    weight_long: float
    weight_short: float
    evicted: float
    dimension: int
    n_keys: int
    n_pending: int
    lost_long: float
    lost_short: float
    n_lost: int
    orders: int
    repeats: int
    later_lines: int
    open_order: int
    distinct: int
    n_ids: int
    n_topic: int
    present: int  # bits: 1 `long`, 2 `short`, 4 vectors of queries


def _encode_ledger(ledger: Ledger, parts: list[bytes]) -> None:
    long, short = _at_rest(ledger.long), _at_rest(ledger.short)
    topic = ledger.applied.topic_id.encode()
    dimension = max(len(long), len(short)) // 4 or next(
        (len(vector.values) for vector in ledger.query_vectors.values()), 0
    )
    head = _Header(
        offset=ledger.applied.offset,
        partition=ledger.applied.partition,
        events=ledger.events,
        newest_ts=ledger.newest_ts,
        weight_long=ledger.weight_long,
        weight_short=ledger.weight_short,
        evicted=ledger.evicted,
        dimension=dimension,
        n_keys=len(ledger.keys),
        n_pending=len(ledger.pending),
        lost_long=ledger.lost.long,
        lost_short=ledger.lost.short,
        n_lost=ledger.n_lost,
        orders=ledger.orders,
        repeats=ledger.repeats,
        later_lines=ledger.later_lines,
        open_order=ledger.open_order,
        distinct=ledger.distinct,
        n_ids=len(ledger.event_ids),
        n_topic=len(topic),
        present=bool(long) | bool(short) << 1 | bool(ledger.query_vectors) << 2,
    )
    parts += [_HEADER.pack(*head), topic, long, short]
    _encode_names(ledger.keys, parts)
    parts.append(ledger.history.tobytes())
    for key in filter(is_query, ledger.keys) if ledger.query_vectors else ():
        vector = ledger.query_vectors[key]
        parts += [struct.pack("<f", vector.scale), vector.values.tobytes()]
    _encode_names(ledger.pending, parts)
    if ledger.pending:
        parts.append(np.array([*ledger.pending.values()], "<f8").tobytes())
    if ledger.event_ids:
        parts.append(np.array(ledger.event_ids, "<u8").tobytes())


def _decode_ledger(data: bytes, at: int) -> tuple[Ledger, int]:
    head = _Header(*_HEADER.unpack_from(data, at))
    at += _HEADER.size
    topic_id = data[at : at + head.n_topic].decode()
    at += head.n_topic
    long = short = None
    if head.present & 1:
        long = np.frombuffer(data, "<f4", head.dimension, at).astype(np.float64)
        at += 4 * head.dimension
    if head.present & 2:
        short = np.frombuffer(data, "<f4", head.dimension, at).astype(np.float64)
        at += 4 * head.dimension
    keys, at = _decode_names(data, at, head.n_keys)
    rows = np.frombuffer(data, KEY_ROW, head.n_keys, at).copy()
    at += rows.nbytes
    query_vectors = {}
    for key in filter(is_query, keys) if head.present & 4 else ():
        (scale,) = struct.unpack_from("<f", data, at)
        query_vectors[key] = QueryVector(scale, np.frombuffer(data, np.int8, head.dimension, at + 4))
        at += 4 + head.dimension
    waiting, at = _decode_names(data, at, head.n_pending)
    pending: dict[str, Debt] = {}
    if waiting:
        debts = np.frombuffer(data, "<f8", 2 * head.n_pending, at).reshape(head.n_pending, 2)
        at += debts.nbytes
        pending = {product_id: Debt(*debt) for product_id, debt in zip(waiting, debts.tolist(), strict=True)}
    event_ids: list[int] = np.frombuffer(data, "<u8", head.n_ids, at).tolist() if head.n_ids else []
    at += 8 * head.n_ids
    ledger = Ledger(
        applied=Applied(topic_id, head.partition, head.offset),
        events=head.events,
        newest_ts=head.newest_ts,
        long=long,
        short=short,
        weight_long=head.weight_long,
        weight_short=head.weight_short,
        keys=keys,
        rows=rows,
        query_vectors=query_vectors,
        evicted=head.evicted,
        pending=pending,
        lost=Debt(head.lost_long, head.lost_short),
        n_lost=head.n_lost,
        orders=head.orders,
        repeats=head.repeats,
        later_lines=head.later_lines,
        distinct=head.distinct,
        open_order=head.open_order,
        event_ids=event_ids,
    )
    return ledger, at


_NO_NAMES: Final = _LENGTH.pack(0)


def _encode_names(names: Collection[str], parts: list[bytes]) -> None:
    """Lengths in characters, then all names as one text: far quicker to take apart than name by name."""
    if not names:
        parts.append(_NO_NAMES)
        return
    text = "".join(names).encode()
    parts += [_LENGTH.pack(len(text)), np.array([*map(len, names)], "<u2").tobytes(), text]


def _decode_names(data: bytes, at: int, n: int) -> tuple[list[str], int]:
    (size,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if n == 0:
        return [], at
    bounds = [0, *accumulate(np.frombuffer(data, "<u2", n, at).tolist())]
    at += 2 * n
    text = data[at : at + size].decode()
    if len(text) != bounds[-1]:
        raise ValueError(f"names of {len(text)} characters, where {bounds[-1]} were written")
    return [text[start:end] for start, end in pairwise(bounds)], at + size


def _at_rest(sum_: NDArray[np.float64] | None) -> bytes:
    """The float32 bytes of a sum; none where every component is below what float32 holds, so that zero is absent."""
    if sum_ is None:
        return b""
    stored = sum_.astype("<f4").tobytes()
    return b"" if stored.count(0) == len(stored) else stored
