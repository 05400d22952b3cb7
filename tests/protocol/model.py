"""A small model of the write protocol: the six steps of `streams.updater` and `sinks.writes`, and what may go wrong.

A state is everything that two or three workers, Qdrant, Kafka's committed offsets and the network between them hold
at one moment. `steps` gives every state that may come next; `prefix_violation` and `acknowledged_violation` say what
is wrong with a state. What the model leaves out is what the protocol never looks at: vectors, weights, time.

An event is its offset in its topic, from 1. A ledger is the offsets it has counted and how far it has `applied`,
so that "the fold of exactly a prefix" is a comparison of two tuples.

Steps that nothing can come between are one step here. Loading, folding and sending are one, since an upsert may land
at any later time, and one that was never sent is one that never lands. A worker is never told that a partition is no
longer its own: one that notices only stops, and any worker may stop at any time. The answer to an upsert is no step
either: the protocol does not listen to it (a mutant does). A batch's upsert lands point by point, in any order.

The model allows more than happens: each topic moves by itself, any number of workers may take a topic for theirs, a
cache survives a rebalance or does not, and Kafka takes a commit from whoever sends it, also one that goes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import product
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


class ReadBack(IntEnum):
    """How a worker finds out what became of its upsert (step 5)."""

    VERSION = 0
    APPLIED = 1  # mutant: mine if it has applied what I have applied
    NONE = 2  # mutant: an answer is believed, and Qdrant answers "completed" where the condition did not hold, too


@dataclass(frozen=True)
class Rules:
    """The protocol. Each field at another value than its default is a mutant."""

    conditional: bool = True  # an upsert replaces only the version that was read
    read_back: ReadBack = ReadBack.VERSION
    tombstones: bool = True  # an erased point stays as a mark with its `applied`; else it is deleted
    own_groups: bool = True  # each generation has a consumer group of its own
    real_names: bool = True  # workers read and write their generation's collection; else whatever the alias means


PROTOCOL: Final = Rules()


class Faults(NamedTuple):
    """How often each thing may still happen."""

    rebalances: int = 0  # one topic is assigned to one worker, and nobody else is told
    crashes: int = 0  # a worker loses all it holds, and starts again at the committed offsets
    swaps: int = 0  # the alias is repointed to the other generation: a swap, then a roll-back
    erasures: int = 0
    refreshes: int = 0  # a worker that owns nothing writes a profile with no new event


@dataclass(frozen=True)
class Scenario:
    """How much there is of everything, which bounds the search."""

    logs: tuple[tuple[int, ...], ...]
    """For each topic, the user of each event."""
    consumers: tuple[int, ...] = (0, 0)
    """For each worker, the generation it starts in; the first of each generation starts with all its topics."""
    faults: Faults = field(default_factory=Faults)
    under_way: int = 2
    """Upserts of one point that may be under way at once: no more are sent until one has landed."""
    keeps_dead: bool = False
    """Whether upserts that will be refused are kept under way: many more states, of which nobody can tell them."""

    @property
    def users(self) -> int:
        return 1 + max(user for log in self.logs for user in log)

    @property
    def generations(self) -> int:
        return 1 + max(self.consumers) if not self.faults.swaps else 2


class Ledger(NamedTuple):
    applied: int = 0
    counted: tuple[int, ...] = ()
    erased: int = 0
    """Up to where an erasure has emptied it; `applied` stays."""


class Point(NamedTuple):
    version: int
    ledgers: tuple[Ledger, ...]  # one a topic


class Upsert(NamedTuple):
    """One point of an upsert under way."""

    collection: int  # a generation, or ALIAS
    user: int
    replaces: tuple[int, ...]  # the versions in the condition, of all users of the batch; a missing point is inserted
    point: Point


class Sent(NamedTuple):
    """A user of a batch whose upsert was sent, and not yet read back."""

    read: int  # the version it was computed from; MISSING if there was no point
    upsert: Upsert


class Purpose(IntEnum):
    EVENTS = 0
    ERASE = 1
    REFRESH = 2


class Batch(NamedTuple):
    purpose: Purpose
    events: tuple[tuple[int, int], ...]  # for each topic, the first and last offset; (0, 0): none
    users: tuple[Sent | int, ...]  # for each user: DONE, TO_DO, or sent


class Worker(NamedTuple):
    generation: int
    positions: tuple[int, ...]  # for each topic, the last offset read; NOT_MINE where it isn't this worker's
    cache: tuple[Point | None, ...]  # for each user
    batch: Batch | None = None
    acknowledged: tuple[int, ...] = ()  # for each topic, what is to be committed; NOTHING


class State(NamedTuple):
    stored: tuple[tuple[Point | None, ...], ...]  # for each generation and user: what its collection holds
    committed: tuple[tuple[int, ...], ...]  # for each generation's group and topic
    workers: tuple[Worker, ...]  # the last one, if there are erasures or refreshes, is a command: it reads no topic
    network: tuple[Upsert, ...]
    served: int  # the generation that the alias means
    left: Faults
    erased: tuple[tuple[tuple[int, ...], ...], ...]  # for each generation, user, topic: events that must not come back


class Step(NamedTuple):
    name: str
    worker: int = -1
    detail: object = None

    def __str__(self) -> str:
        who = f"worker {self.worker} " if self.worker >= 0 else ""
        return f"{who}{self.name}" + ("" if self.detail is None else f" {self.detail}")


ALIAS: Final = 9
MISSING: Final = 0
NOT_MINE: Final = 99
NOTHING: Final = 99
DONE: Final = 0
TO_DO: Final = 1
_NEW: Final = 1000  # versions from here on are new; `canonical` gives them their small names


def initial(scenario: Scenario) -> State:
    topics, users = len(scenario.logs), scenario.users
    faults = scenario.faults
    nobody = (NOT_MINE,) * topics
    no_cache: tuple[Point | None, ...] = (None,) * users
    nothing = (NOTHING,) * topics
    workers = [
        Worker(
            generation,
            nobody if generation in scenario.consumers[:index] else (0,) * topics,
            no_cache,
            None,
            nothing,
        )
        for index, generation in enumerate(scenario.consumers)
    ]
    if faults.erasures or faults.refreshes:
        workers.append(Worker(0, nobody, no_cache, None, nothing))
    both = range(scenario.generations)
    return State(
        stored=tuple((None,) * users for _ in both),
        committed=tuple((0,) * topics for _ in both),
        workers=tuple(workers),
        network=(),
        served=0,
        left=faults,
        erased=tuple(((0,) * topics,) * users for _ in both),
    )


def steps(state: State, scenario: Scenario, rules: Rules) -> Iterator[tuple[Step, State]]:
    """Every step that may be taken in `state`, with the state after it."""
    for index, worker in enumerate(state.workers):
        if worker.batch is None:
            yield from _read(state, index, worker, scenario)
        else:
            yield from _fold_and_send(state, index, worker, scenario, rules)
            yield from _read_back(state, index, worker, scenario, rules)
            yield from _acknowledge(state, index, worker)
        yield from _commit(state, index, worker, rules)
    yield from _land(state, rules)
    for index, worker in enumerate(state.workers):
        if index < len(scenario.consumers):
            yield from _rebalance(state, index, worker, rules)
            yield from _crash(state, index, worker, rules)
            yield from _follow(state, index, worker, rules)
        elif worker.batch is None:
            yield from _command(state, index, worker, scenario, rules)
    if state.left.swaps:
        left = state.left._replace(swaps=state.left.swaps - 1)
        yield (
            Step("the alias is repointed to generation", detail=1 - state.served),
            state._replace(served=1 - state.served, left=left),
        )


# The protocol.


def _read(state: State, index: int, worker: Worker, scenario: Scenario) -> Iterator[tuple[Step, State]]:
    """Step 3, reading: any number of events of each topic, contiguously from where the worker is."""
    ends = [
        (0,) if position == NOT_MINE else range(position, len(log) + 1)
        for position, log in zip(worker.positions, scenario.logs, strict=True)
    ]
    for lasts in product(*ends):
        events = tuple(
            (position + 1, last) if position < last else (0, 0)
            for position, last in zip(worker.positions, lasts, strict=True)
        )
        if not any(last for _, last in events):
            continue
        read = {
            user
            for log, (first, last) in zip(scenario.logs, events, strict=True)
            if last
            for user in log[first - 1 : last]
        }
        batch = Batch(Purpose.EVENTS, events, tuple(TO_DO if user in read else DONE for user in range(scenario.users)))
        positions = tuple(
            last if owned != NOT_MINE else NOT_MINE for owned, last in zip(worker.positions, lasts, strict=True)
        )
        yield Step("reads", index, events), _with(state, index, worker._replace(positions=positions, batch=batch))


def _fold_and_send(
    state: State, index: int, worker: Worker, scenario: Scenario, rules: Rules
) -> Iterator[tuple[Step, State]]:
    """Steps 3 and 4: load, from the cache or afresh; fold what is new; send one upsert for the users to be done."""
    batch = worker.batch
    assert batch is not None
    todo = [user for user, status in enumerate(batch.users) if status == TO_DO]
    if not todo:
        return
    collection = worker.generation if rules.real_names else ALIAS
    for cached in product(*[(True, False) if worker.cache[user] is not None else (False,) for user in todo]):
        held = {
            user: worker.cache[user] if from_cache else state.stored[_meant(state, collection)][user]
            for user, from_cache in zip(todo, cached, strict=True)
        }
        folded = {user: _folded(point, user, batch, scenario) for user, point in held.items()}
        replaces = tuple(
            sorted(point.version for user, point in held.items() if point is not None and folded[user] is not None)
        )
        users, cache, sent = list(batch.users), list(worker.cache), []
        for number, (user, ledgers) in enumerate(folded.items()):
            read = held[user]
            cache[user] = read
            if ledgers is None:
                users[user] = DONE
                continue
            upsert = Upsert(collection, user, replaces, Point(_NEW + number, ledgers))
            users[user] = Sent(MISSING if read is None else read.version, upsert)
            sent.append(upsert)
        if not _has_room(state.network, sent, scenario):
            continue
        after = worker._replace(cache=tuple(cache), batch=batch._replace(users=tuple(users)))
        whence = tuple("cache" if from_cache else "Qdrant" for from_cache in cached)
        yield (
            Step("folds and sends" if sent else "finds nothing new", index, whence),
            _with(state, index, after, (*state.network, *sent)),
        )


def _folded(point: Point | None, user: int, batch: Batch, scenario: Scenario) -> tuple[Ledger, ...] | None:
    """The ledgers after the batch; None where nothing is to be written."""
    before = (Ledger(),) * len(scenario.logs) if point is None else point.ledgers
    if batch.purpose is Purpose.ERASE:
        return tuple(Ledger(ledger.applied, (), ledger.applied) for ledger in before)
    if batch.purpose is Purpose.REFRESH:
        return before
    after = list(before)
    for topic, (first, last) in enumerate(batch.events):
        applied, counted, erased = before[topic]
        new = tuple(
            offset for offset in range(max(first, applied + 1), last + 1) if scenario.logs[topic][offset - 1] == user
        )
        if last and new:
            after[topic] = Ledger(new[-1], counted + new, erased)
    return None if tuple(after) == before else tuple(after)


def _land(state: State, rules: Rules) -> Iterator[tuple[Step, State]]:
    """Qdrant applies an upsert: soon, late, or (as long as this step is not taken) never."""
    for number, upsert in enumerate(state.network):
        if number and upsert == state.network[number - 1]:
            continue  # copies are alike
        network = state.network[:number] + state.network[number + 1 :]
        generation = _meant(state, upsert.collection)
        found = state.stored[generation][upsert.user]
        if found is not None and rules.conditional and found.version not in upsert.replaces:
            yield Step("an upsert is refused", detail=upsert.point), state._replace(network=network)
            continue
        how = "an upsert inserts" if found is None else "an upsert replaces"
        erased = tuple(
            max(before, ledger.erased)
            for before, ledger in zip(state.erased[generation][upsert.user], upsert.point.ledgers, strict=True)
        )
        yield (
            Step(how, detail=upsert.point),
            _store(state._replace(network=network), generation, upsert.user, upsert.point, erased),
        )


def _read_back(
    state: State, index: int, worker: Worker, scenario: Scenario, rules: Rules
) -> Iterator[tuple[Step, State]]:
    """Step 5: mine is done; still the old one is sent again; anything else is dropped from the cache and redone."""
    batch = worker.batch
    assert batch is not None
    for user, status in enumerate(batch.users):
        if isinstance(status, int):
            continue
        upsert = status.upsert
        stored = state.stored[_meant(state, upsert.collection)][user]
        if rules.read_back is ReadBack.NONE:
            if upsert not in state.network:
                yield Step("believes the answer", index), _settled(state, index, worker, user, DONE, upsert.point)
            if _has_room(state.network, [upsert], scenario):
                yield Step("gets no answer, sends again", index), state._replace(network=(*state.network, upsert))
            continue
        if stored is not None and stored.version == upsert.point.version:
            yield Step("reads back: mine", index), _settled(state, index, worker, user, DONE, upsert.point)
        elif rules.read_back is ReadBack.APPLIED and stored is not None and _alike(stored, upsert.point, batch):
            kept = upsert.point._replace(version=stored.version)
            yield Step("reads back: applied as mine", index), _settled(state, index, worker, user, DONE, kept)
        elif (MISSING if stored is None else stored.version) == status.read:
            if _has_room(state.network, [upsert], scenario):
                yield (
                    Step("reads back: still the old one, sends again", index),
                    state._replace(network=(*state.network, upsert)),
                )
        else:
            yield Step("reads back: another's", index), _settled(state, index, worker, user, TO_DO, None)


def _alike(stored: Point, mine: Point, batch: Batch) -> bool:
    """The mutant's question: is the offset applied that I have applied, of the topics that I have read?"""
    return all(
        stored.ledgers[topic].applied == mine.ledgers[topic].applied
        for topic, (_, last) in enumerate(batch.events)
        if last
    )


def _acknowledge(state: State, index: int, worker: Worker) -> Iterator[tuple[Step, State]]:
    """Step 6: only when every user of the batch is done."""
    batch = worker.batch
    assert batch is not None
    if any(status != DONE for status in batch.users):
        return
    acknowledged = tuple(last or before for before, (_, last) in zip(worker.acknowledged, batch.events, strict=True))
    yield (
        Step("acknowledges", index, batch.events),
        _with(state, index, worker._replace(batch=None, acknowledged=acknowledged)),
    )


def _commit(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[tuple[Step, State]]:
    """What was acknowledged reaches Kafka, some time later."""
    if all(offset == NOTHING for offset in worker.acknowledged):
        return
    group = _group(worker.generation, rules)
    committed = tuple(
        before if offset == NOTHING else offset
        for before, offset in zip(state.committed[group], worker.acknowledged, strict=True)
    )
    after = worker._replace(acknowledged=(NOTHING,) * len(committed))
    yield (
        Step("commits", index, committed),
        _with(state, index, after)._replace(committed=_put(state.committed, group, committed)),
    )


# What happens to it.


def _rebalance(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[tuple[Step, State]]:
    """A topic is assigned to a worker, which reads on from the committed offset. Its cache and batch survive."""
    if not state.left.rebalances:
        return
    left = state.left._replace(rebalances=state.left.rebalances - 1)
    for topic, offset in enumerate(state.committed[_group(worker.generation, rules)]):
        if worker.positions[topic] != offset:
            after = worker._replace(positions=_put(worker.positions, topic, offset))
            yield Step("is assigned topic", index, topic), _with(state, index, after)._replace(left=left)


def _crash(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[tuple[Step, State]]:
    if state.left.crashes:
        left = state.left._replace(crashes=state.left.crashes - 1)
        yield (
            Step("crashes", index),
            _with(state, index, _started(state, worker, worker.generation, worker.positions, rules))._replace(
                left=left
            ),
        )


def _follow(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[tuple[Step, State]]:
    """A worker that is drained starts again in the generation that is served now, with all of its topics."""
    if worker.generation != state.served and worker.batch is None and len(state.stored) > 1:
        all_topics = (0,) * len(worker.positions)
        yield (
            Step("follows to generation", index, state.served),
            _with(state, index, _started(state, worker, state.served, all_topics, rules)),
        )


def _started(state: State, worker: Worker, generation: int, owned: tuple[int, ...], rules: Rules) -> Worker:
    """A worker that holds nothing, at the committed offsets of the topics in `owned`."""
    positions = tuple(
        NOT_MINE if before == NOT_MINE else offset
        for before, offset in zip(owned, state.committed[_group(generation, rules)], strict=True)
    )
    return Worker(generation, positions, (None,) * len(worker.cache), None, (NOTHING,) * len(positions))


def _command(
    state: State, index: int, worker: Worker, scenario: Scenario, rules: Rules
) -> Iterator[tuple[Step, State]]:
    """Somebody who reads no topic writes a profile by the same rule: an erasure, or a refresh of its candidates."""
    none = ((0, 0),) * len(scenario.logs)
    for user in range(scenario.users):
        users = tuple(TO_DO if other == user else DONE for other in range(scenario.users))
        if state.left.refreshes:
            left = state.left._replace(refreshes=state.left.refreshes - 1)
            after = worker._replace(batch=Batch(Purpose.REFRESH, none, users))
            yield Step("refreshes user", index, user), _with(state, index, after)._replace(left=left)
        if state.left.erasures:
            left = state.left._replace(erasures=state.left.erasures - 1)
            if rules.tombstones:
                after = worker._replace(batch=Batch(Purpose.ERASE, none, users))
                yield Step("erases user", index, user), _with(state, index, after)._replace(left=left)
            elif (point := state.stored[worker.generation][user]) is not None:
                gone = tuple(ledger.applied for ledger in point.ledgers)
                yield (
                    Step("deletes user", index, user),
                    _store(state._replace(left=left), worker.generation, user, None, gone),
                )


# What must hold.


def prefix_violation(state: State, scenario: Scenario, rules: Rules) -> str | None:
    """Every stored ledger is the fold of exactly a prefix of its topic, without what was erased."""
    for generation, points in enumerate(state.stored):
        for user, point in enumerate(points):
            if point is None:
                continue
            for topic, ledger in enumerate(point.ledgers):
                erased = state.erased[generation][user][topic]
                expected = _events_of(scenario, topic, user, erased, ledger.applied)
                if ledger.counted != expected:
                    return (
                        f"generation {generation}, user {user}, topic {topic}: counted {ledger.counted}, "
                        f"and up to {ledger.applied} there are {expected}"
                    )
    return None


def acknowledged_violation(state: State, scenario: Scenario, rules: Rules) -> str | None:
    """Nothing that a generation's group has committed is missing from the generation's profiles."""
    for generation, points in enumerate(state.stored):
        for topic, committed in enumerate(state.committed[_group(generation, rules)]):
            for user, point in enumerate(points):
                applied = 0 if point is None else point.ledgers[topic].applied
                there = max(applied, state.erased[generation][user][topic])
                if missing := _events_of(scenario, topic, user, there, committed):
                    return (
                        f"generation {generation}, user {user}, topic {topic}: {missing} acknowledged, and not stored"
                    )
    return None


def complete(state: State, scenario: Scenario) -> bool:
    """Whether every event is stored in the generation that is served, and nothing is in hand or under way."""
    return (
        not state.network
        and all(worker.batch is None for worker in state.workers)
        and all(
            (0 if point is None else point.ledgers[topic].applied)
            == max(_events_of(scenario, topic, user, 0, len(log)), default=0)
            for topic, log in enumerate(scenario.logs)
            for user, point in enumerate(state.stored[state.served])
        )
    )


def without_dead(state: State, scenario: Scenario, rules: Rules) -> State:
    """The same state without upserts that will be refused whenever they land, second copies among them.

    Nobody can tell: the protocol listens to no answer. And a refusal is for good where versions are never reused,
    points never deleted and collections called by their names. Where a mutant does otherwise, all are kept.
    """
    refused_for_good = rules.conditional and rules.tombstones and rules.real_names
    if scenario.keeps_dead or not refused_for_good or rules.read_back is ReadBack.NONE:
        return state
    network = []
    for upsert in state.network:
        found = state.stored[upsert.collection][upsert.user]
        if (found is None or found.version in upsert.replaces) and upsert not in network:
            network.append(upsert)
    return state if len(network) == len(state.network) else state._replace(network=tuple(network))


def canonical(state: State) -> State:
    """The same state with its versions renamed 1, 2, … in the order in which they are found.

    Versions are compared for equality only, and one that nobody holds any more is never seen again; so states that
    differ by a renaming have the same future, and need to be looked at once.
    """
    names: dict[int, int] = {}

    def name(version: int) -> int:
        return names.setdefault(version, len(names) + 1)

    def point(one: Point | None) -> Point | None:
        return one and Point(name(one.version), one.ledgers)

    def upsert(one: Upsert) -> Upsert:
        versions = tuple(sorted([name(version) for version in one.replaces]))
        return Upsert(one.collection, one.user, versions, Point(name(one.point.version), one.point.ledgers))

    def status(one: Sent | int) -> Sent | int:
        return one if isinstance(one, int) else Sent(one.read and name(one.read), upsert(one.upsert))

    def worker(one: Worker) -> Worker:
        batch = one.batch
        if batch is None and one.cache == unknown:
            return one
        cache = tuple([point(cached) for cached in one.cache])
        if batch is not None:
            batch = Batch(batch.purpose, batch.events, tuple([status(user) for user in batch.users]))
        return Worker(one.generation, one.positions, cache, batch, one.acknowledged)

    unknown = (None,) * len(state.workers[0].cache)
    stored = tuple([tuple([point(one) for one in points]) for points in state.stored])
    workers = tuple([worker(one) for one in state.workers])
    network = state.network
    if len(network) > 1:
        known = names.get
        network = tuple(
            sorted(
                network,
                key=lambda one: (
                    one.collection,
                    one.user,
                    one.point.ledgers,
                    sorted([known(version, version + _NEW) for version in one.replaces]),
                    known(one.point.version, one.point.version + _NEW),
                ),
            )
        )
    network = tuple([upsert(one) for one in network])
    return State(stored, state.committed, workers, network, state.served, state.left, state.erased)


def _events_of(scenario: Scenario, topic: int, user: int, after: int, until: int) -> tuple[int, ...]:
    log = scenario.logs[topic]
    return tuple([offset for offset in range(after + 1, until + 1) if log[offset - 1] == user])


def _has_room(network: tuple[Upsert, ...], more: list[Upsert], scenario: Scenario) -> bool:
    return all(
        sum(other.user == upsert.user and other.collection == upsert.collection for other in network)
        < scenario.under_way
        for upsert in more
    )


def _group(generation: int, rules: Rules) -> int:
    return generation if rules.own_groups else 0


def _meant(state: State, collection: int) -> int:
    return state.served if collection == ALIAS else collection


def _with(state: State, index: int, worker: Worker, network: tuple[Upsert, ...] | None = None) -> State:
    return state._replace(
        workers=_put(state.workers, index, worker), network=state.network if network is None else network
    )


def _settled(state: State, index: int, worker: Worker, user: int, status: int, cached: Point | None) -> State:
    assert worker.batch is not None
    batch = worker.batch._replace(users=_put(worker.batch.users, user, status))
    return _with(state, index, worker._replace(batch=batch, cache=_put(worker.cache, user, cached)))


def _store(state: State, generation: int, user: int, point: Point | None, erased: tuple[int, ...]) -> State:
    return state._replace(
        stored=_put(state.stored, generation, _put(state.stored[generation], user, point)),
        erased=_put(state.erased, generation, _put(state.erased[generation], user, erased)),
    )


def _put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])
