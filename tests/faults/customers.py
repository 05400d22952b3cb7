"""Events of a small shop with busy customers, drawn from a seed: late ones, repeats, and some that make no sense."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Final

from streams.events import Product, Purchase, Search
from streams.producer import EventProducer
from streams.settings import Topics

NOUNS: Final = ("boots", "tent", "stove", "kettle", "lamp", "mug", "rug", "kite")
STYLES: Final = ("red", "blue", "wooden", "small", "vintage", "folding")
START: Final = 1_690_000_000_000
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000

JUNK: Final = (
    b"",
    b"{",
    b"null",
    b"[1, 2]",
    b"\xff\xfe\x00",
    b'{"user_id": "user-1"}',
    b'{"user_id": "", "product_id": "p", "query": "q", "quantity": 1, "ts": 1690000000000}',
    b'{"user_id": "user-1", "product_id": "p", "query": "q", "quantity": 0, "ts": 1690000000}',
    b'{"user_id": "user-1", "product_id": "p", "query": "q", "quantity": 1, "ts": 99999999999999}',
    b'{"user_id": "somebody else", "product_id": "p", "query": "q", "quantity": 1, "ts": 1690000000000}',
)
"""Values that are no event of any topic, under the key `user-1`."""


class Customers:
    """Produces waves of events. `produced` counts them by kind, a repeat as one of its own.

    The same seed gives the same events in the same order, whatever happens to those who read them.
    """

    def __init__(self, seed: int, topics: Topics, *, users: int = 24) -> None:
        self._chance = random.Random(seed)
        self._topics = topics
        self.users = [f"user-{n}" for n in range(users)]
        self._titles = {f"p{n}": f"{style} {noun}" for n, (style, noun) in enumerate(_pairs())}
        self._unknown = list(self._titles)
        self._chance.shuffle(self._unknown)
        self.known: set[str] = set()
        """Products that were announced, and not deleted since."""
        self._ts = START
        self._recent: list[tuple[str, bytes, bytes]] = []  # topic, key, value of events with an id
        self._n = 0
        self.produced: Counter[str] = Counter()

    @property
    def events(self) -> int:
        """Searches and purchases that can be understood."""
        return self.produced["searches"] + self.produced["purchases"]

    @property
    def poison(self) -> int:
        """Records of searches and purchases that can't be understood."""
        return self.produced["poison"]

    def announce(self, producer: EventProducer, share: float = 1.0) -> None:
        """Makes known that part of the products that aren't yet."""
        number = round(len(self._unknown) * share)
        self._unknown, known = self._unknown[number:], self._unknown[:number]
        for product_id in known:
            self._product(producer, product_id)

    def revise(self, producer: EventProducer, number: int) -> None:
        """New prices, and now and then a deletion, an event of a product that nobody understands."""
        for product_id in self._chance.choices(list(self._titles), k=number):
            if self._chance.random() < 0.05:
                producer.delete_product(product_id)
                self.known.discard(product_id)
                self.produced["products"] += 1
            elif self._chance.random() < 0.05:
                producer.send(self._topics.products, product_id.encode(), b"{")
                self.produced["poisoned products"] += 1
            else:
                self._product(producer, product_id)

    def shop(self, producer: EventProducer, number: int, *, poison: float = 0.02, repeats: float = 0.1) -> None:
        """That many searches and purchases; with repeats and poison between them in these shares."""
        for _ in range(number):
            if self._chance.random() < poison:
                self._send_junk(producer)
            if self._recent and self._chance.random() < repeats:
                topic, key, value = self._chance.choice(self._recent[-200:])
                producer.send(topic, key, value)
                self.produced["searches" if topic == self._topics.searches else "purchases"] += 1
                self.produced["repeats"] += 1
            self._n += 1
            self._ts += self._chance.randrange(1000, 10 * MINUTE_MS)
            user, product = self._chance.choice(self.users), self._chance.choice(list(self._titles))
            if self._chance.random() < 0.4:
                self._search(producer, user, product)
            else:
                self._purchase(producer, user, product)

    def _search(self, producer: EventProducer, user: str, product: str) -> None:
        query = f"{self._chance.choice(STYLES)} {self._chance.choice(NOUNS)}"
        event = Search(
            user,
            query,
            self._time(),
            event_id=self._event_id(),
            clicked_product_id=product if self._chance.random() < 0.4 else None,
        )
        self._produce(producer, event, user, self._topics.searches)
        self.produced["searches"] += 1

    def _purchase(self, producer: EventProducer, user: str, product: str) -> None:
        event = Purchase(
            user,
            product,
            self._chance.randrange(1, 4),
            self._time(),
            event_id=self._event_id(),
            order_id=f"o{self._n // 3}" if self._chance.random() < 0.7 else None,
            title=self._titles[product] if self._chance.random() < 0.1 else None,
        )
        self._produce(producer, event, user, self._topics.purchases)
        self.produced["purchases"] += 1

    def _produce(self, producer: EventProducer, event: Search | Purchase, user: str, topic: str) -> None:
        producer.produce(event)
        if event.event_id is not None:
            self._recent.append((topic, user.encode(), _encoded(event)))

    def _product(self, producer: EventProducer, product_id: str) -> None:
        self.known.add(product_id)
        price = round(self._chance.uniform(1.0, 100.0), 2)
        producer.produce(Product(product_id, self._titles[product_id], price=price))
        self.produced["products"] += 1

    def _send_junk(self, producer: EventProducer) -> None:
        topic = self._chance.choice((self._topics.searches, self._topics.purchases))
        producer.send(topic, b"user-1", self._chance.choice(JUNK))
        self.produced["poison"] += 1

    def _event_id(self) -> str | None:
        return f"e{self._n}" if self._chance.random() < 0.8 else None

    def _time(self) -> int:
        """Now, in the shop; or minutes, weeks or years ago."""
        late = self._chance.choices((0, 20 * MINUTE_MS, 40 * DAY_MS, 700 * DAY_MS), (70, 20, 8, 2))[0]
        return self._ts - late


def _pairs() -> list[tuple[str, str]]:
    return [(style, noun) for style in STYLES for noun in NOUNS]


def _encoded(event: Search | Purchase) -> bytes:
    return json.dumps(
        {name: value for name in event.__struct_fields__ if (value := getattr(event, name)) is not None}
    ).encode()
