"""A simulated shop: its catalogue, its shoppers, and what they do over some weeks. Pure: the same seed, the same shop.

Each shopper has two or three interests at once; between the acts some drop one and take up another. What they do is as
untidy as in a real shop: mistyped queries, queries about orders and gift cards, campaign codes pasted into the search
box, a look at something for somebody else; clicks that lead to nothing; orders of several lines, some bought before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from streams.demonstration.assortment import CAMPAIGNS, DEPARTMENTS, OFF_TOPIC, Department, Line
from streams.events import Product, Purchase, Search

WEEK_MS: Final = 7 * 86_400_000
WEEKS: Final = (6, 4)
"""Of the two acts: long enough beside a half-life of 30 days for the first to fade."""

NAMED: Final[Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]]] = (
    ("Mira", ("Camping", "Coffee"), ("Baking", "Coffee")),
    ("Jonas", ("Photography", "Running"), ("Aquarium", "Running")),
    ("Tariq", ("Cycling", "Guitars"), ("Gardening", "Cycling", "Guitars")),
    ("Yuki", ("Painting", "Gardening"), ("Painting", "Gardening")),
)
"""Shoppers to watch, with their interests in the first act and in the second: strongest first."""

OFF_TOPIC_SHARE: Final = 0.12
SOMEBODY_ELSE_SHARE: Final = 0.05
MISTYPED_SHARE: Final = 0.08
FAVOURITE_LINES: Final = 3
_CHANGING_SHARE: Final = 0.6  # of the shoppers without a name
_STRENGTHS: Final[dict[int, tuple[float, ...]]] = {2: (0.58, 0.42), 3: (0.44, 0.31, 0.25)}
_MINUTE_MS: Final = 60_000

_BY_NAME: Final = {department.name: department for department in DEPARTMENTS}


class Shopper(NamedTuple):
    user_id: str
    sessions_a_week: float
    interests: tuple[tuple[str, ...], tuple[str, ...]]  # names of departments, by act; strongest first


class Moment(NamedTuple):
    """An event, and what nobody tells Afterglow: the department it was about, "" where it was about nothing."""

    event: Search | Purchase
    department: str


@dataclass(frozen=True, slots=True)
class Act:
    """What everybody did in some weeks, in the order of `ts`."""

    weeks: range
    until_ms: int
    moments: Sequence[Moment]


@dataclass(frozen=True, slots=True)
class Shop:
    products: Sequence[Product]
    shoppers: Sequence[Shopper]
    acts: tuple[Act, Act]


class _Item(NamedTuple):
    product: Product
    line: Line


def open_shop(*, seed: int, shoppers: int, until_ms: int) -> Shop:
    """The shop whose second act ends at `until_ms`. The first of its shoppers are the `NAMED`; ids are lower case."""
    of_shop = random.Random(seed)
    shelves = {department.name: _shelf(department, of_shop) for department in DEPARTMENTS}
    # Each shopper is the same one however many there are.
    of_people = [random.Random(f"{seed}, {number}") for number in range(shoppers)]
    people = [_shopper(number, random_) for number, random_ in enumerate(of_people)]
    starts_ms = (until_ms - sum(WEEKS) * WEEK_MS, until_ms - WEEKS[1] * WEEK_MS)
    trips = [_Trips(shopper, shelves, random_) for shopper, random_ in zip(people, of_people, strict=True)]
    first, second = (
        sorted(
            (moment for one in trips for moment in one.act(act, starts_ms[act])),
            key=lambda moment: (moment.event.ts, moment.event.user_id),
        )
        for act in (0, 1)
    )
    return Shop(
        products=[item.product for shelf in shelves.values() for item in shelf],
        shoppers=people,
        acts=(
            Act(range(1, WEEKS[0] + 1), starts_ms[1], first),
            Act(range(WEEKS[0] + 1, sum(WEEKS) + 1), until_ms, second),
        ),
    )


def _shelf(department: Department, random_: random.Random) -> list[_Item]:
    items: list[_Item] = []
    for line in department.lines:
        for version, attribute in enumerate(line.attributes):
            product = Product(
                product_id=f"{department.name[:3].upper()}-{len(items) + 1:03}",
                title=f"{attribute} {line.noun}",
                brand=random_.choice(department.brands),
                category=department.name,
                price=round(line.price * (1.0 + 0.35 * version), 2),
            )
            items.append(_Item(product, line))
    return items


def _shopper(number: int, random_: random.Random) -> Shopper:
    if number < len(NAMED):
        name, first, second = NAMED[number]
        return Shopper(name.lower(), 3.0, (first, second))
    before = tuple(random_.sample(sorted(_BY_NAME), random_.choice((2, 2, 3))))
    after = before
    if random_.random() < _CHANGING_SHARE:
        dropped = random_.randrange(len(before))
        taken_up = random_.choice(sorted(_BY_NAME.keys() - set(before)))
        after = (*before[:dropped], taken_up, *before[dropped + 1 :])
    return Shopper(f"shopper-{number:04}", random_.uniform(1.0, 3.0), (before, after))


class _Trips:
    """One shopper's visits. Remembers what gets used up, to buy it again."""

    def __init__(self, shopper: Shopper, shelves: dict[str, list[_Item]], random_: random.Random) -> None:
        self._shopper = shopper
        self._shelves = {name: _favourites(shelf, random_) for name, shelf in shelves.items()}
        self._random = random_
        self._used_up: dict[str, list[_Item]] = {name: [] for name in shelves}
        self._owned: set[str] = set()
        self._events = 0
        self._sessions = 0

    def act(self, act: int, start_ms: int) -> Iterator[Moment]:
        interests = self._shopper.interests[act]
        sessions = max(len(interests), round(WEEKS[act] * self._shopper.sessions_a_week))
        length = WEEKS[act] * WEEK_MS // sessions
        for number, name in enumerate(self._occasions(interests, sessions)):
            # One in each stretch of time: nobody is away for a whole act.
            begin = start_ms + number * length + self._random.randrange(length - 60 * _MINUTE_MS)
            yield from self._session(name, interests, begin)

    def _occasions(self, interests: tuple[str, ...], sessions: int) -> list[str]:
        """What each session is about: every interest by its strength, in no order."""
        strengths = _STRENGTHS[len(interests)]
        occasions = [
            name
            for name, strength in zip(interests, strengths, strict=True)
            for _ in range(max(1, round(strength * sessions)))
        ]
        self._random.shuffle(occasions)
        return (occasions + [interests[0]] * sessions)[:sessions]

    def _session(self, name: str, interests: tuple[str, ...], ts: int) -> Iterator[Moment]:
        self._sessions += 1
        session_id = f"{self._shopper.user_id}-{self._sessions}"
        clicked: list[_Item] = []
        for _ in range(self._random.choice((1, 2, 2, 3, 4))):
            moment, item = self._search(name, interests, session_id, ts)
            yield moment
            if item is not None:
                clicked.append(item)
            ts += self._random.randrange(_MINUTE_MS // 4, 5 * _MINUTE_MS)
        if clicked and self._random.random() < 0.75:
            yield from self._order(name, clicked, session_id, ts)

    def _search(self, name: str, interests: tuple[str, ...], session_id: str, ts: int) -> tuple[Moment, _Item | None]:
        chance, item = self._random.random(), None
        if chance < OFF_TOPIC_SHARE:
            name, query = "", self._off_topic()
        elif chance < OFF_TOPIC_SHARE + SOMEBODY_ELSE_SHARE:
            name = self._random.choice(sorted(_BY_NAME.keys() - set(interests)))
            query = self._random.choice(_BY_NAME[name].lines).noun.lower()
        else:
            wanted = self._random.choice(self._shelves[name])
            query = self._query(_BY_NAME[name], wanted)
            item = wanted if self._random.random() < 0.5 else None
        event = Search(
            user_id=self._shopper.user_id,
            query=query,
            ts=ts,
            event_id=self._event_id(),
            session_id=session_id,
            clicked_product_id=item.product.product_id if item else None,
        )
        return Moment(event, name), item

    def _query(self, department: Department, wanted: _Item) -> str:
        noun = wanted.line.noun.lower()
        query = self._random.choices(
            (
                noun,
                wanted.product.title.lower(),
                self._random.choice(department.wishes),
                f"{wanted.product.brand} {noun}",
            ),
            (35, 30, 20, 15),
        )[0]
        return _mistyped(query, self._random) if self._random.random() < MISTYPED_SHARE else query

    def _off_topic(self) -> str:
        if self._random.random() < 0.4:
            return f"{self._random.choice(CAMPAIGNS)}{self._random.choice((10, 15, 20, 25))}"
        return self._random.choice(OFF_TOPIC)

    def _order(self, name: str, clicked: list[_Item], session_id: str, ts: int) -> Iterator[Moment]:
        lines = {item.product.product_id: item for item in clicked[-2:] if self._wants(item)}
        if self._used_up[name] and self._random.random() < 0.6:
            again = self._random.choice(self._used_up[name])
            lines[again.product.product_id] = again
        if self._random.random() < 0.5:
            more = self._random.choice(self._shelves[name])
            if self._wants(more):
                lines[more.product.product_id] = more
        for product_id, item in lines.items():
            self._owned.add(product_id)
            if item.line.used_up and item not in self._used_up[name]:
                self._used_up[name].append(item)
            event = Purchase(
                user_id=self._shopper.user_id,
                product_id=product_id,
                quantity=self._random.choice((1, 1, 1, 2)),
                ts=ts,
                event_id=self._event_id(),
                price=item.product.price,
                order_id=f"order-{session_id}",
            )
            yield Moment(event, name)

    def _wants(self, item: _Item) -> bool:
        return item.line.used_up or item.product.product_id not in self._owned

    def _event_id(self) -> str:
        self._events += 1
        return f"{self._shopper.user_id}-e{self._events}"


def _favourites(shelf: list[_Item], random_: random.Random) -> list[_Item]:
    """Nobody cares for everything in a department."""
    lines = {item.line.noun for item in shelf}
    chosen = set(random_.sample(sorted(lines), FAVOURITE_LINES))
    return [item for item in shelf if item.line.noun in chosen]


def _mistyped(text: str, random_: random.Random) -> str:
    """With two letters swapped, one twice, or one left out."""
    at = random_.randrange(1, len(text) - 1)
    slips = (text[at + 1] + text[at] + text[at + 2 :], 2 * text[at] + text[at + 1 :], text[at + 1 :])
    return text[:at] + random_.choice(slips)
