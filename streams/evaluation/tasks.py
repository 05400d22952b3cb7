"""What is to be predicted: what somebody did next. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from streams.evaluation.timeline import Order, Step

NEXT_ORDER: Final = "next_order"
NEXT_CLICK: Final = "next_click"
QUERY: Final = "query"


class Task(NamedTuple):
    """One thing to predict."""

    user_id: str
    ts: int  # when it happened, ms
    at: int  # the moment that it is predicted at, ms: the cut, or just before it happened
    wanted: frozenset[str]  # product ids; at least one
    known: frozenset[str]  # product ids that this user bought (of clicks: clicked) before
    query: str = ""  # as typed, where it is given
    first: bool = False  # the user's first of its kind after the cut, of a user known by then

    @property
    def new(self) -> frozenset[str]:
        """What is wanted and new to the user."""
        return self.wanted - self.known


def wanted_of(step: Step) -> frozenset[str]:
    """The products of an order, or the one that was clicked; none where nothing was."""
    if isinstance(step, Order):
        return step.products
    return frozenset((step.clicked_product_id,)) if step.clicked_product_id else frozenset()
