"""A `StatisticsFold` as bytes, and back: what it goes on from after a restart."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

import msgspec
import numpy as np
from scipy import sparse

from sinks.scoring import PRIOR, Weights
from sinks.statistics import NEIGHBOURS, RELATED
from streams.statistics.columns import COUNTED
from streams.statistics.fold import Bounds, Order, StatisticsFold
from streams.statistics.kin import Kin
from streams.statistics.learning import Learner
from streams.statistics.pairs import Pairs
from streams.statistics.relations import Relations
from streams.statistics.searching import Click, Clicks, Searchers
from streams.statistics.shoppers import BOUGHT, Shopper

_FORMAT: Final = 7


_Pairs: TypeAlias = tuple[bytes, bytes, bytes, float]
"""A sparse matrix of weights, and as of when."""


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    format: int
    now: int
    halvings: int
    lines: int
    clicked: int
    product_ids: list[str]
    as_of: int
    lists: float
    first_sold: bytes
    counted: bytes
    users: bytes  # [users, 6]: hash, orders, repeats, later lines, last order, products bought
    bought: bytes
    pairs: _Pairs
    views: _Pairs
    learned: bytes
    open: list[tuple[int, int, int, int, list[int]]]
    clicks: tuple[int, dict[int, dict[int, float]]]  # the epoch, and weights by query and product
    searchers: list[tuple[int, list[Click]]]
    announced: bytes
    related: list[tuple[int, bytes]]  # the row of a product, and the hashes of those that it names
    kinds: dict[int, tuple[int, ...]]  # by the hash of a product
    newest: dict[int, dict[str, int]]  # of each kind, and when they were announced


def encode_fold(fold: StatisticsFold) -> bytes:
    """Some 30 bytes for each product somebody bought, 2.4 KB a product for its pairs."""
    products = len(fold.product_ids)
    columns = fold.columns
    users = fold.users
    return msgspec.msgpack.encode(
        _Wire(
            format=_FORMAT,
            now=fold.now,
            halvings=fold.halvings,
            lines=fold.lines,
            clicked=fold.clicked,
            product_ids=fold.product_ids,
            as_of=columns.as_of,
            lists=columns.lists,
            first_sold=columns.first_sold[:products].tobytes(),
            counted=np.stack([getattr(columns, name)[:products] for name in COUNTED]).tobytes(),
            users=np.array(
                [
                    (hash_, one.orders, one.repeats, one.later_lines, one.last_ts, len(one.bought))
                    for hash_, one in users.items()
                ],
                np.uint64,
            ).tobytes(),
            bought=b"".join(one.bought.tobytes() for one in users.values()),
            pairs=_encoded(fold.pairs),
            views=_encoded(fold.views),
            learned=np.concatenate([*fold.learner.weights, *fold.learner.squares]).tobytes(),
            open=[(user, order.id, order.ts, order.came, list(order.rows)) for user, order in fold.open.items()],
            clicks=(fold.clicks.epoch, fold.clicks.weights),
            searchers=[(user, list(clicks)) for user, clicks in fold.searchers.all().items()],
            announced=columns.announced[:products].tobytes(),
            related=[(row, named.tobytes()) for row, named in fold.relations.named.items()],
            kinds=fold.kin.kinds,
            newest=fold.kin.newest,
        )
    )


def decode_fold(data: bytes, bounds: Bounds) -> StatisticsFold | None:
    """None where another version wrote it: then everything has to be read anew.

    Similarities are not kept. The caller sets `likeness` when it has the vectors of `product_ids`, and calls `refresh`.
    """
    try:
        wire = msgspec.msgpack.decode(data, type=_Wire)
    except msgspec.DecodeError:
        return None
    if wire.format != _FORMAT:
        return None
    learned = np.frombuffer(wire.learned, np.float64)
    new, bought = len(PRIOR.new), len(PRIOR.bought)
    if len(learned) != 2 * (new + bought):
        return None
    fold = StatisticsFold(bounds=bounds)
    fold.know(wire.product_ids)
    fold.now, fold.halvings, fold.lines, fold.clicked = wire.now, wire.halvings, wire.lines, wire.clicked
    products = len(wire.product_ids)
    columns = fold.columns
    columns.as_of, columns.lists = wire.as_of, wire.lists
    columns.first_sold[:products] = np.frombuffer(wire.first_sold, np.int64)
    for name, values in zip(COUNTED, np.frombuffer(wire.counted).reshape(len(COUNTED), products), strict=True):
        getattr(columns, name)[:products] = values
    weights, again, squares, squares_again = np.split(learned.copy(), np.cumsum([new, bought, new]))
    fold.learner = Learner(Weights(weights, again), Weights(squares, squares_again))
    fold.pairs = _decoded(wire.pairs, NEIGHBOURS)
    fold.views = _decoded(wire.views, RELATED)
    lines = np.frombuffer(wire.bought, BOUGHT)
    start = 0
    for hash_, orders, repeats, later, last_ts, count in np.frombuffer(wire.users, np.uint64).reshape(-1, 6).tolist():
        fold.users[hash_] = Shopper(lines[start : start + count].copy(), orders, repeats, later, last_ts)
        start += count
    fold.open = OrderedDict(
        (user, Order(id_, ts, dict.fromkeys(rows), came)) for user, id_, ts, came, rows in wire.open
    )
    epoch, weights_of_queries = wire.clicks
    fold.clicks = Clicks(bounds.queries, epoch, weights_of_queries)
    fold.searchers = Searchers(bounds.users, dict(wire.searchers))
    columns.announced[:products] = np.frombuffer(wire.announced, np.int64)
    fold.relations = Relations({row: np.frombuffer(named, np.uint64) for row, named in wire.related})
    fold.kin = Kin(2 * bounds.products, wire.kinds, wire.newest)
    fold.note_seen()
    return fold


def _encoded(pairs: Pairs) -> _Pairs:
    weights, as_of = pairs.state()
    return (
        weights.indptr.astype(np.int64).tobytes(),
        weights.indices.astype(np.int32).tobytes(),
        weights.data.astype(np.float32).tobytes(),
        as_of,
    )


def _decoded(pairs: _Pairs, most: int) -> Pairs:
    indptr, indices, data, as_of = pairs
    rows = np.frombuffer(indptr, np.int64)
    weights = sparse.csr_matrix(
        (np.frombuffer(data, np.float32).astype(np.float64), np.frombuffer(indices, np.int32).copy(), rows.copy()),
        shape=(len(rows) - 1, len(rows) - 1),
    )
    return Pairs(weights, as_of, most=most)
