"""The six steps that turn a batch of Kafka records into profiles, whoever reads the records.

Faust's agent and a replay are two drivers of this one updater. Both hand it records of each topic-partition
contiguously from the group's committed offset, and acknowledge them only when it returns.

    1. A point's `version` is random, new for every write, never reused.            (sinks.writes)
    2. The cache holds only what was read, or written and read back.                (sinks.profiles)
    3. Load the users of the batch; encode; fold, in offset order, what is new.     `prepare`, `_fold`
    4. Upsert on the condition that `version` is one that was read.                 (sinks.writes)
    5. Whatever the answer, read the versions back; redo the users that are not mine. `_until_written`
    6. Only when every user of the batch is done does `apply` return; the driver then acknowledges, batch by batch.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from encoders.client import EncoderClient
from sinks.catalogue import UNSOURCED, Catalogue, Product
from sinks.derivation import DerivationRules, Vector, derive
from sinks.identity import PointIds
from sinks.ledgers import ProfileState
from sinks.products import ProductStore
from sinks.profiles import Held, ProfileStore
from sinks.ranking import RankingRules
from sinks.recommendation import recommend
from sinks.snapshot import CatalogueSnapshot
from sinks.statistics import NO_STATISTICS
from sinks.support import UNKNOWN_CATALOGUE
from sinks.writes import Write
from streams.batches import Batch, Understood, Weights, batch_of, fold_event
from streams.events import Purchase, Search
from streams.profile_writes import NOTHING_DERIVED, UNDERIVED, moved, profile_write
from streams.profiles import Rules, fold, settle_state
from streams.records import Record, dead_letter
from streams.turns import Turn, Turns

_LEAST_CHUNK_USERS: Final = 16  # a call costs as much as ten profiles in it
PUT_OFF_USERS: Final = 64
"""Most profiles of one write of what was put off."""

PUT_OFF_AT_ONCE: Final = 2
"""So many of these writes are under way at once, besides those of events."""


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """When a user's candidates are derived anew."""

    move: float  # how much of the profile's weight must be new, in [0, 1]
    interval_ms: int  # at most once in this time a user
    inline_users: int  # batches of at most so many users derive them at once; larger ones put them off


class _Refresh(NamedTuple):
    """Which profiles' candidates are derived along with a write."""

    due: bool  # those that are due; the others are put off
    all: bool = False  # every one, and everything else that is derived too
    snapshot: CatalogueSnapshot | None = None  # looked in for what is near, instead of asking Qdrant


class _Lane(NamedTuple):
    """Chunks on their way. Work that was put off has a lane of its own: events don't queue behind it."""

    users: int  # most of a chunk
    places: asyncio.Semaphore


class _Plan(NamedTuple):
    """Whether a profile's candidates are derived with this write, and when what is put off is due (ms)."""

    derive_now: bool
    due: int | None


@dataclass(slots=True)
class Figures:
    """Counts since the start of this process, for health and progress."""

    events: int = 0
    profiles_written: int = 0
    writes_redone: int = 0
    dead_letters: int = 0
    refreshed: int = 0
    noise: Counter[str] = field(default_factory=Counter)  # searches by why their query weighs less


class Updater:
    """Folds batches of records into stored profiles.

    `apply` may run for batch n+1 while it does for batch n, if it was called in that order: users of both wait until
    all of batch n is stored. So may `prepare`.
    """

    def __init__(
        self,
        *,
        searches_topic: str,
        profiles: ProfileStore,
        catalogue: Catalogue,
        products: ProductStore,
        encoder: EncoderClient,
        ids: PointIds,
        rules: Rules,
        weights: Weights,
        derivation: DerivationRules,
        ranking: RankingRules,
        refresh: RefreshRules,
        chunk_users: int,
        writes_in_flight: int,
        clock: Callable[[], int],
    ) -> None:
        """`clock` gives now in ms. It decides when candidates are refreshed, and never anything in a ledger."""
        self._searches_topic = searches_topic
        self._profiles = profiles
        self._catalogue = catalogue
        self._products = products
        self._encoder = encoder
        self._ids = ids
        self._rules = rules
        self._weights = weights
        self._derivation = derivation
        self._ranking = ranking
        self._refresh = refresh
        self._writes_in_flight = writes_in_flight
        self._events = _Lane(chunk_users, asyncio.Semaphore(writes_in_flight))
        self._put_off = _Lane(min(chunk_users, PUT_OFF_USERS), asyncio.Semaphore(PUT_OFF_AT_ONCE))
        self._turns = Turns()
        self._clock = clock
        self.mean: Vector = np.zeros(0, np.float32)
        self.support = UNKNOWN_CATALOGUE
        self.statistics = NO_STATISTICS
        self.derives = True
        """Whether what is written is ready for readers. Where it isn't, all that is derived is put off, and due."""
        self.figures = Figures()

    async def prepare(self, records: Sequence[Record]) -> Batch:
        """Step 3, the part that reads no state: see `streams.batches.batch_of`."""
        return await batch_of(records, searches_topic=self._searches_topic, encoder=self._encoder, ids=self._ids)

    async def apply(self, batch: Batch) -> None:
        """Steps 3 to 6: returns when every user of the batch is stored with all of its events.

        Events in another partition than their user's earlier ones join the batch's dead letters: their offsets say
        nothing beside those of the ledger, and folding them could lose or double others.

        Raises PermanentWriteError, PermanentReadError or StateError where no retry can help; nothing of the batch may
        then be acknowledged. Nor may anything of batches begun after it: those of the same users raise BatchFailed.
        """
        refresh = _Refresh(due=len(batch.events) <= self._refresh.inline_users)
        with self._turns.take(batch.events) as turn:
            await self._insert_titled_products(batch)
            async with asyncio.TaskGroup() as tasks:
                for before, ids in turn.parts.items():
                    users = {id_: batch.events[id_] for id_ in ids}
                    tasks.create_task(self._in_their_turn(users, before, refresh))
        understood = [event for events in batch.events.values() for event in events]
        batch.dead += [dead_letter(event.record, event.misplaced) for event in understood if event.misplaced]
        self.figures.events += len(understood)
        self.figures.dead_letters += len(batch.dead)
        assessed = (self._weights.assessed(one.event) for one in understood if isinstance(one.event, Search))
        self.figures.noise.update(one.reason for one in assessed if one.reason is not None)

    async def settle(self, point_ids: Sequence[str]) -> None:
        """Folds in, for these profiles, the products they waited for that are known now.

        Safe for profiles whose partition another worker owns: the writes are conditional like any other. Where they
        are many, their candidates are put off.
        """
        await self._without_events(point_ids, _Refresh(due=len(point_ids) <= self._refresh.inline_users))

    async def refresh(self, point_ids: Sequence[str], snapshot: CatalogueSnapshot | None = None) -> None:
        """Does what was put off for these profiles: settles, and derives candidates anew. As safe as `settle`.

        A `snapshot` is looked in for what is near, instead of asking Qdrant.
        """
        await self._without_events(point_ids, _Refresh(due=True, snapshot=snapshot))
        self.figures.refreshed += len(point_ids)

    async def rederive(self, point_ids: Sequence[str], snapshot: CatalogueSnapshot | None = None) -> None:
        """Derives everything readers see anew for these profiles, whether or not anything has changed."""
        await self._without_events(point_ids, _Refresh(due=True, all=True, snapshot=snapshot))
        self.figures.refreshed += len(point_ids)

    async def _in_their_turn(
        self, users: Mapping[str, list[Understood]], before: Turn | None, refresh: _Refresh
    ) -> None:
        """An event folded in before an earlier one of its user would make that one look applied."""
        if before is not None:
            await before.over()
        # A small batch is cut as well: while Qdrant writes one part of it, the next is folded.
        size = max(_LEAST_CHUNK_USERS, -(-len(users) // self._writes_in_flight))
        await self._in_chunks(users, refresh, self._events._replace(users=min(self._events.users, size)))

    async def _without_events(self, point_ids: Sequence[str], refresh: _Refresh) -> None:
        await self._in_chunks({id_: [] for id_ in point_ids}, refresh, self._put_off)

    async def _in_chunks(self, users: Mapping[str, list[Understood]], refresh: _Refresh, lane: _Lane) -> None:
        waiting = list(users.items())
        async with asyncio.TaskGroup() as tasks:
            for start in range(0, len(waiting), lane.users):
                chunk = dict(waiting[start : start + lane.users])
                tasks.create_task(self._until_written(chunk, refresh, lane))

    async def _until_written(self, users: dict[str, list[Understood]], refresh: _Refresh, lane: _Lane) -> None:
        """Steps 3 to 5 for one chunk of users, again for those of whom somebody else has written meanwhile."""
        async with lane.places:
            while users:
                writes = await self._fold(users, refresh)
                outcome = await self._profiles.write(writes)
                mine = sum(outcome)
                self.figures.profiles_written += mine
                self.figures.writes_redone += len(outcome) - mine
                redo = [write.id for (write, _), written in zip(writes, outcome, strict=True) if not written]
                users = {id_: users[id_] for id_ in redo}

    async def _fold(self, users: Mapping[str, list[Understood]], refresh: _Refresh) -> list[tuple[Write, Held]]:
        """Step 3: each user's state as read, folded on. A user for whom nothing is new is not written."""
        # Without events, what there is to do was seen in Qdrant: an older profile may say that there is nothing.
        held = await self._profiles.load(list(users), cached=any(users.values()))
        states = {id_: held[id_].decoded() for id_ in users}
        derives = self.derives or refresh.due
        products = await self._products_of(users, states, histories=derives)
        known = {id_: product.vector for id_, product in products.items() if product.vector is not None}
        changed: list[str] = []
        plans: list[_Plan] = []
        now = self._clock()
        for id_, state in states.items():
            waited = state.pending
            settled = settle_state(state, known, self._rules)
            folded = self._fold_user(state, users[id_], known)
            if folded or settled or refresh.all or (refresh.due and held[id_].due is not None):
                changed.append(id_)
                has_moved = settled or moved(held[id_], state) >= self._refresh.move
                waits_anew = not state.pending <= waited
                plans.append(self._plan(held[id_], has_moved, waits_anew, now, refresh))
        if not changed:
            return []
        if not derives:
            return [
                profile_write(
                    id_, held[id_], states[id_], NOTHING_DERIVED, {}, due=UNDERIVED, made_at=now, candidates=None
                )
                for id_ in changed
            ]
        tastes = derive([states[id_] for id_ in changed], known, self.mean, now, self._derivation, self.support)
        anew = [row for row, plan in enumerate(plans) if plan.derive_now]
        found = await recommend(
            self._catalogue,
            [states[changed[row]] for row in anew],
            [tastes[row] for row in anew],
            self.mean,
            self._ranking,
            snapshot=refresh.snapshot,
            statistics=self.statistics,
        )
        fresh = dict(zip(anew, found, strict=True))
        titles = {id_: product.title for id_, product in products.items()}
        return [
            profile_write(
                id_,
                held[id_],
                states[id_],
                tastes[row],
                titles,
                due=plans[row].due,
                made_at=now,
                candidates=fresh.get(row),
            )
            for row, id_ in enumerate(changed)
        ]

    def _fold_user(self, state: ProfileState, events: Iterable[Understood], known: Mapping[str, Vector]) -> int:
        ordered = sorted(events, key=lambda understood: understood.record.offset)
        searches = [understood for understood in ordered if isinstance(understood.event, Search)]
        purchases = [understood for understood in ordered if isinstance(understood.event, Purchase)]
        new = 0
        for ledger, rules, mine in (
            (state.searches, self._rules.searches, searches),
            (state.purchases, self._rules.purchases, purchases),
        ):
            if not mine:
                continue
            record = mine[0].record
            home = ledger.applied.partition if ledger.applied.topic_id == record.topic_id else record.partition
            steps = [
                fold_event(one.event, one.record.offset, one.query, one.vector, known, self._weights)
                for one in mine
                if one.is_at_home(home)
            ]
            new += fold(ledger, record.topic_id, home, steps, rules)
        return new

    async def _products_of(
        self, users: Mapping[str, list[Understood]], states: Mapping[str, ProfileState], *, histories: bool
    ) -> dict[str, Product]:
        """Every known product that these users' events name, or wait for, or remember."""
        wanted = {understood.product_id for events in users.values() for understood in events}
        for state in states.values():
            wanted |= state.pending
            if histories:
                for ledger in state:
                    wanted.update([key[1:] for key in ledger.keys if key[0] == "p"])
        wanted.discard("")
        return await self._catalogue.get(wanted)

    def _plan(self, held: Held, moved: bool, waits_anew: bool, now: int, refresh: _Refresh) -> _Plan:
        """Whether to derive the candidates now, and when what is put off is due.

        A profile with products newly pending is due at once: the product may have come between the look-up and this
        write, when nobody could find who waits. Looking once more after the write closes the gap, since from then on
        the products agent finds the profile.
        """
        if refresh.all:
            return _Plan(derive_now=True, due=now if waits_anew else None)
        overdue = held.due is not None and held.due <= now
        if not moved and not overdue and not waits_anew:
            return _Plan(derive_now=False, due=held.due)
        may = now if held.made_at is None else max(now, held.made_at + self._refresh.interval_ms)
        derive_now = refresh.due and may <= now
        if waits_anew:
            return _Plan(derive_now, due=now)
        return _Plan(derive_now, due=None if derive_now else may)

    async def _insert_titled_products(self, batch: Batch) -> None:
        """A purchase with a title makes its product known, unavailable until the catalogue says more.

        Whoever waited for it is settled here, since no event of the catalogue may ever come; also after a crash, when
        the product is known already.
        """
        titled = {
            understood.event.product_id: (understood.event.title, understood.vector)
            for events in batch.events.values()
            for understood in events
            if isinstance(understood.event, Purchase) and understood.event.title and understood.vector is not None
        }
        if titled:
            await self._products.insert_provisional(titled)
            known = await self._catalogue.get(titled)
            provisional = [id_ for id_, product in known.items() if product.source == UNSOURCED]
            if provisional and (waiters := await self._profiles.waiting_for(provisional)):
                await self.settle(waiters)
