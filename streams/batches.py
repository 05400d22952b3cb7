"""Kafka records made ready to be folded: understood, grouped by user, their texts encoded. No state is read for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from encoders.client import EncoderClient, TextKind
from encoders.noise import WANTED, Assessment, assess
from encoders.text import clean, normalise
from sinks.derivation import Vector
from sinks.identity import PointIds
from sinks.ledgers import product_key, query_key
from streams.dead_letters import DeadLetter
from streams.events import InvalidEvent, Purchase, Search, check_key, decode_purchase, decode_search
from streams.profiles import Contribution, FoldEvent, stable_hash
from streams.records import Record, dead_letter


@dataclass(frozen=True, slots=True)
class Weights:
    """What one event of each kind weighs. Belongs to the generation."""

    search: float
    click: float
    purchase: float
    noise_rules: int = 0  # version of the rules by which a query's weight is scaled; 0: by none

    def assessed(self, search: Search) -> Assessment:
        return assess(search.query) if self.noise_rules else WANTED


@dataclass(slots=True)
class Understood:
    """One event that is understood, waiting for what the catalogue knows of its product."""

    record: Record
    event: Search | Purchase
    query: str  # normalised; empty for a purchase
    vector: Vector | None = None  # of the query, or of the purchase's own title
    misplaced: InvalidEvent | None = None  # set where the user's ledger is of another partition

    @property
    def product_id(self) -> str:
        """Bought or clicked; empty where there is none."""
        return self.event.product_id if isinstance(self.event, Purchase) else self.event.clicked_product_id or ""

    def is_at_home(self, partition: int) -> bool:
        """Whether the event is in the partition of its user's ledger; it is marked where it isn't."""
        found = self.record.partition
        self.misplaced = None
        if found != partition:
            self.misplaced = InvalidEvent(
                "key",
                f"was placed in partition {found}, and this user's earlier events in {partition}: all producers must "
                "place keys alike, as Java's default partitioner does (librdkafka: partitioner=murmur2_random)",
            )
        return found == partition


@dataclass(slots=True)
class Batch:
    """What became of some records."""

    events: dict[str, list[Understood]] = field(default_factory=dict)  # by point id
    dead: list[DeadLetter] = field(default_factory=list)


async def batch_of(records: Sequence[Record], *, searches_topic: str, encoder: EncoderClient, ids: PointIds) -> Batch:
    """Searches and purchases as a batch.

    A record that can't be understood becomes a dead letter of it, since no ledger can ever take it. Waits out an
    encoding worker that is away or busy.
    """
    batch = Batch()
    users: dict[str, list[Understood]] = defaultdict(list)
    queries: dict[str, list[Understood]] = defaultdict(list)
    titles: dict[str, list[Understood]] = defaultdict(list)
    for record in records:
        try:
            understood = _understand(record, searches_topic)
        except InvalidEvent as refusal:
            batch.dead.append(dead_letter(record, refusal))
            continue
        event = understood.event
        users[event.user_id].append(understood)
        if understood.query:
            queries[understood.query].append(understood)
        elif isinstance(event, Purchase) and event.title and clean(event.title):
            titles[event.title].append(understood)
    batch.events = {ids.user(user_id): events for user_id, events in users.items()}
    for texts, kind in ((queries, TextKind.QUERY), (titles, TextKind.PRODUCT)):
        if texts:
            vectors = await encoder.encode(list(texts), kind)
            for waiting, vector in zip(texts.values(), vectors, strict=True):
                for understood in waiting:
                    understood.vector = vector
    return batch


def fold_event(
    event: Search | Purchase,
    offset: int,
    query: str,
    vector: Vector | None,
    known: Mapping[str, Vector],
    weights: Weights,
) -> FoldEvent:
    """An event as the fold takes it.

    `query` is the search's, normalised; empty for a purchase, and where nothing is left of it. `vector` is that of the
    query, or of the title that a purchase brings. `known` holds the vectors of known products.
    """
    contributions: tuple[Contribution, ...]
    noise = ""
    if isinstance(event, Purchase):
        own = known.get(event.product_id) if vector is None else vector
        contributions = (Contribution(product_key(event.product_id), weights.purchase, own),)
        order = stable_hash(event.order_id or str(event.ts))
    else:
        confidence, reason = weights.assessed(event)
        noise = reason or ""
        contributions = ()
        if query and confidence:
            contributions = (Contribution(query_key(query), weights.search * confidence, vector),)
        if clicked := event.clicked_product_id:
            contributions += (Contribution(product_key(clicked), weights.click, known.get(clicked)),)
        order = offset + 1  # each search is an order of its own
    event_id = stable_hash(event.event_id) if event.event_id else 0
    return FoldEvent(offset, event.ts, order, event_id, contributions, noise)


def _understand(record: Record, searches_topic: str) -> Understood:
    event: Search | Purchase
    if record.topic == searches_topic:
        event = decode_search(record.value, record.timestamp)
        query = normalise(event.query)
    else:
        event, query = decode_purchase(record.value, record.timestamp), ""
    check_key(record.key, event)
    return Understood(record, event, query)
