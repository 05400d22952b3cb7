"""What it costs to refresh a user's candidates, by the size of the catalogue.

By `Keeper.sweep`, as a worker does it: the state read, candidates found, ranked, written and read back. Where many
users are due it looks in a copy of the catalogue in memory, where few are it asks Qdrant; both are measured. The
shoppers are alike in every catalogue, so only its size differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

import click
from benchmarks import shoppers
from benchmarks.generation import Cost, KeptGeneration, OwnQdrant, now_ms, own_qdrant
from benchmarks.real_data import products, text_of
from benchmarks.rows import Bound, Options, Row, side_by_side
from benchmarks.vectors import KnownTexts, made, real

from sinks.collections import products_collection
from sinks.retry import RetryPolicy
from sinks.snapshot import SNAPSHOT_PRODUCTS, read_snapshot
from streams.updater import PUT_OFF_AT_ONCE, PUT_OFF_USERS

SHOPS: Final = ("online-retail", "electronics-catalogue")
MADE_PRODUCTS: Final = 500_000
MANY: Final = 512  # a whole sweep
FEW: Final = 32  # fewer than are worth a copy of the catalogue
NOT_LINEAR: Final = Bound(3, 6, "lower")

SETTINGS: Final = {"derivation.candidates_interval": "0ms", "derivation.candidates_move": "0"}  # due by any purchase


class Catalogue(NamedTuple):
    products: Sequence[dict[str, Any]]
    texts: KnownTexts


class Measured(NamedTuple):
    """The rounds of one catalogue."""

    products: int
    many: list[Cost]
    few: list[Cost]
    reading: list[Cost]


def measure(options: Options) -> Iterator[Row]:
    with own_qdrant() as qdrant:
        shops = [qdrant.run(_Shop.of(qdrant, number, one)) for number, one in enumerate(_catalogues(options, qdrant))]
        for _ in range(options.rounds):
            for shop in shops:
                qdrant.run(shop.measure_round())
        for shop in shops:
            yield from _rows(qdrant, shop.measured)
        yield from _growth(shops[0].measured, shops[1].measured)
        for shop in shops:
            qdrant.run(shop.generation.close())


def _catalogues(options: Options, qdrant: OwnQdrant) -> Iterator[Catalogue]:
    for shop in SHOPS:
        sold = products(options.data, shop)
        sold = sold[: options.scaled(len(sold))]
        yield Catalogue(sold, real([text_of(product) for product in sold]))
    if qdrant.kind == "embedded":
        click.echo("candidates: 500k products need a Qdrant server (AFTERGLOW_QDRANT_BIN): left out", err=True)
        return
    sold = [{"product_id": f"p{n}", "title": f"product {n}"} for n in range(options.scaled(MADE_PRODUCTS))]
    yield Catalogue(sold, made([product["title"] for product in sold]))


class _Shop:
    def __init__(self, qdrant: OwnQdrant, generation: KeptGeneration, catalogue: Catalogue) -> None:
        self._qdrant = qdrant
        self.generation = generation
        ids = [product["product_id"] for product in catalogue.products]
        self._bought = list(shoppers.purchases(ids, catalogue.texts.vectors, MANY))
        self.measured = Measured(len(ids), [], [], [])

    @classmethod
    async def of(cls, qdrant: OwnQdrant, number: int, catalogue: Catalogue) -> _Shop:
        shop = cls(qdrant, KeptGeneration(qdrant, f"shop-{number}", catalogue.texts, SETTINGS), catalogue)
        await shop.generation.open()
        await shop.generation.stock(catalogue.products)
        await shop.generation.fold_history(shop._bought)
        await shop.generation.sweep()
        await shop._swept(FEW)
        return shop

    async def measure_round(self) -> None:
        await self._swept(MANY // 2)  # for a copy of the catalogue that lasts this round
        self.measured.many.append(await self._swept(MANY))
        self.measured.few.append(await self._swept(FEW))
        generation = self.generation
        reading = read_snapshot(
            generation.client, products_collection(generation.name), at_most=SNAPSHOT_PRODUCTS, retry=RetryPolicy()
        )
        self.measured.reading.append(await self._qdrant.cost(reading))

    async def _swept(self, users: int) -> Cost:
        """What the sweep costs each user, once they have bought again what they bought last."""
        last = self._bought[shoppers.PURCHASES - 1 :: shoppers.PURCHASES][:users]
        again = [{**purchase, "ts": now_ms()} for purchase in last]
        await self.generation.fold(self.generation.records("purchases", again))
        return (await self._qdrant.cost(self.generation.sweep())).of_each(users)


def _rows(qdrant: OwnQdrant, measured: Measured) -> Iterator[Row]:
    note = f"{qdrant.kind} Qdrant, {shoppers.PURCHASES} purchases a user"
    held = measured.products <= SNAPSHOT_PRODUCTS
    for what, users, costs in (("many", MANY, measured.many), ("few", FEW, measured.few)):
        cpu = [cost.worker + cost.qdrant for cost in costs]
        way = "a copy in memory" if users == MANY and held else "asking Qdrant"
        in_flight = min(PUT_OFF_AT_ONCE, -(-users // PUT_OFF_USERS))
        worker, there, elapsed = (median(seconds) for seconds in zip(*costs, strict=True))
        yield Row(
            name=f"candidates, {what} due, {measured.products:,} products",
            value=median(cpu),
            unit="us CPU/user",
            spread=(min(cpu), max(cpu)),
            note=(
                f"{users} users, {way}: worker {worker:,.0f}, Qdrant {there:,.0f}, elapsed {elapsed:,.0f}; {note}, "
                f"writes in flight: {in_flight}"
            ),
        )
    if held:
        yield Row(
            name=f"candidates, copying {measured.products:,} products",
            value=1000 * median(cost.worker + cost.qdrant for cost in measured.reading),
            unit="ms CPU",
            note="at most once in 30 s, whoever is due: not in the figures a user",
        )


def _growth(small: Measured, large: Measured) -> Iterator[Row]:
    for what, ours, theirs in (("many", large.many, small.many), ("few", large.few, small.few)):
        costs, base = ([cost.worker + cost.qdrant for cost in side] for side in (ours, theirs))
        ratio, spread = side_by_side(costs, base)
        yield Row(
            name=f"candidates, {what} due, growth of the catalogue",
            value=median(costs),
            unit="us CPU/user",
            against=f"{small.products:,} products: {median(base):,.0f}",
            ratio=ratio,
            spread=spread,
            bound=NOT_LINEAR,
            note=f"{large.products / small.products:.1f} times the products",
        )
