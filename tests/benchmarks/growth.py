"""What an event costs a worker as users, products and histories become many.

The worker's CPU for its steps between Kafka and Kafka (understood, state read, folded, derived, written, read back),
in batches of `BATCH` events of as many users, each of whom buys again what they bought before: their histories stay as
they are. Candidates are put off, as they are under load; the part `candidates` has what they cost. Vectors are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from benchmarks.generation import Cost, KeptGeneration, OwnQdrant, now_ms, own_qdrant
from benchmarks.rows import Bound, Options, Row, side_by_side
from benchmarks.vectors import made

from streams.settings import Worker

BATCH: Final = 256
EVENTS: Final = 2048  # a round
FLAT: Final = Bound(1.5, 3, "lower")
WORKER: Final = Worker()

_STRIDE: Final = 7  # between the products of a user: another kind each
_DAY_MS: Final = 86_400_000


class Size(NamedTuple):
    users: int = 2000
    products: int = 1000
    history: int = 4  # products in each user's

    def scaled(self, options: Options) -> Size:
        return Size(max(BATCH, options.scaled(self.users)), max(BATCH, options.scaled(self.products)), self.history)


class Growth(NamedTuple):
    field: str  # of `Size`, which grows
    what: str
    sizes: Sequence[Size]
    reason: str  # why it isn't flat, where it isn't


GROWTHS: Final = (
    Growth(
        "users",
        "users",
        [Size(users=1000), Size(users=10_000), Size(users=100_000)],
        "profiles beyond worker.profile_cache are read from Qdrant again",
    ),
    Growth(
        "products",
        "products",
        [Size(products=1000), Size(products=48_000), Size(products=500_000)],
        "more products are asked for that aren't in memory (worker.cached_products, a minute)",
    ),
    Growth(
        "history",
        "keys of history",
        [Size(history=1), Size(history=16), Size(history=64), Size(history=256)],
        "the state has a row a key, and interests compare each key with every other",
    ),
)


def measure(options: Options) -> Iterator[Row]:
    for growth in GROWTHS:
        sizes = [size.scaled(options) for size in growth.sizes]
        with own_qdrant() as own:
            shops = [own.run(_Shop.of(own, size)) for size in sizes]
            rounds = [[own.run(shop.measure_round()) for shop in shops] for _ in range(options.rounds)]
            yield from _rows(own, growth, sizes, list(zip(*rounds, strict=True)))
            for shop in shops:
                own.run(shop.generation.close())


class _Shop:
    def __init__(self, own: OwnQdrant, size: Size) -> None:
        self._own = own
        self._size = size
        self._chance = np.random.default_rng(11)
        self._titles = [f"product {number}" for number in range(size.products)]
        # Of every user the first product, by Zipf's law: the logarithm of its rank is uniform.
        self._first = (size.products ** self._chance.random(size.users)).astype(int) - 1
        name = "-".join(map(str, size))
        self.generation = KeptGeneration(own, name, made(self._titles))

    @classmethod
    async def of(cls, own: OwnQdrant, size: Size) -> _Shop:
        shop = cls(own, size)
        await shop.generation.open()
        await shop.generation.stock(
            {"product_id": f"p{number}", "title": title} for number, title in enumerate(shop._titles)
        )
        newest = now_ms() - 60_000
        await shop.generation.fold_history(
            shop._purchase(user, nth, newest - (size.history - 1 - nth) * _DAY_MS)
            for user in range(size.users)
            for nth in range(size.history)
        )
        await shop.measure_round()  # warm
        return shop

    async def measure_round(self) -> Cost:
        """Microseconds an event."""
        users = [user for _ in range(EVENTS // BATCH) for user in self._chance.choice(self._size.users, BATCH, False)]
        nth = self._chance.integers(self._size.history, size=EVENTS)
        now = now_ms()
        events = [self._purchase(user, which, now) for user, which in zip(users, nth.tolist(), strict=True)]
        records = self.generation.records("purchases", events)
        return (await self._own.cost(self.generation.fold(records, batch=BATCH))).of_each(EVENTS)

    def _purchase(self, user: int, nth: int, ts: int) -> dict[str, Any]:
        product = (int(self._first[user]) + _STRIDE * nth) % self._size.products
        return {"user_id": f"u{user}", "product_id": f"p{product}", "quantity": 1, "ts": ts}


def _rows(own: OwnQdrant, growth: Growth, sizes: Sequence[Size], costs: Sequence[Sequence[Cost]]) -> Iterator[Row]:
    """`costs` are the rounds of each size."""
    numbers = [getattr(size, growth.field) for size in sizes]
    cpu = [[cost.worker for cost in of_size] for of_size in costs]
    for size, number, worker, of_size in zip(sizes, numbers, cpu, costs, strict=True):
        _, there, elapsed = (median(each) for each in zip(*of_size, strict=True))
        yield Row(
            name=f"an event, {number:,} {growth.what}",
            value=median(worker),
            unit="us CPU",
            spread=(min(worker), max(worker)),
            note=(
                f"{size.users:,} users, {size.products:,} products, {size.history} of them a user; one event a user "
                f"and batch of {BATCH}; {own.kind} Qdrant, its CPU {there:,.0f}, elapsed {elapsed:,.0f}; "
                f"writes in flight: {BATCH // WORKER.chunk_users}"
            ),
        )
    ratio, spread = side_by_side(cpu[-1], cpu[0])
    steps = [
        math.log(median(after) / median(before)) / math.log(more / fewer)
        for (before, after), (fewer, more) in zip(pairwise(cpu), pairwise(numbers), strict=True)
    ]
    law = ", ".join(f"n^{step:.2f} from {fewer:,}" for step, fewer in zip(steps, numbers, strict=False))
    yield Row(
        name=f"an event, growth of {growth.field}",
        value=median(cpu[-1]),
        unit="us CPU",
        against=f"{numbers[0]:,} {growth.what}: {median(cpu[0]):,.0f}",
        ratio=ratio,
        spread=spread,
        bound=FLAT,
        note=f"{numbers[-1] / numbers[0]:,.0f} times as many: {law}; {growth.reason}",
    )
