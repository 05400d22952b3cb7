"""What happened, in the order in which it happened: orders and searches. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from streams.events import Purchase, Search


class Order(NamedTuple):
    """Purchases that are one order: those of a customer with one `order_id`; without it, of one `ts`."""

    user_id: str
    ts: int  # of its first line, ms
    purchases: tuple[Purchase, ...]

    @property
    def products(self) -> frozenset[str]:
        return frozenset(purchase.product_id for purchase in self.purchases)


Step: TypeAlias = Order | Search


def timeline(purchases: Iterable[Purchase], searches: Iterable[Search]) -> list[Step]:
    """Orders and searches by time; of one moment, searches first, and otherwise as they came."""
    lines: dict[tuple[str, str | int], list[Purchase]] = {}
    for purchase in sorted(purchases, key=_ts):
        lines.setdefault((purchase.user_id, purchase.order_id or purchase.ts), []).append(purchase)
    orders = [Order(of_one[0].user_id, of_one[0].ts, tuple(of_one)) for of_one in lines.values()]
    steps: list[Step] = [*searches, *orders]
    return sorted(steps, key=_ts)


def _ts(event: Purchase | Step) -> int:
    return event.ts
