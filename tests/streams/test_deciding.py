"""Whether it is time for another model: what is said, and what is recorded to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from encoders.testing import WordHashEncoder
from sinks.collections import Generation, Model
from streams.commands import deciding
from streams.commands.deciding import Asked, Decided, decide
from streams.evaluation.files import Shop
from streams.evaluation.texts import EncodedShop, encode_shop
from streams.events import Product, Search
from streams.rollout.attempts import Attempt, with_attempt
from streams.rollout.task import Outcome
from streams.rules import recorded_fold
from streams.settings import Settings, load
from streams.training.topics import Extent, History, Stretch

SINCE = 1_600_000_000_000
HOUR_MS = 3_600_000
NOUNS = ("tent", "boots", "mug", "kite")
GENERATION = Generation(
    "main",
    Model("model", "identity", 3, "/models/made"),
    "secret",
    recorded_fold(load(environment={}).profiles),
    1,
    replayed=False,
)


class Topics:
    """Four people a day, each looking for one thing and finding it."""

    def __init__(self, searches: int) -> None:
        self.searches = searches

    def extent_now(self, *_: object) -> Extent:
        empty = Stretch("purchases", "p1", [0], [0])
        return Extent(Stretch("searches", "s1", [0], [self.searches]), empty, Stretch("products", "c1", [0], [4]))

    def read_history(self, *_: object) -> History:
        products = [Product(product_id=noun, title=f"red {noun}") for noun in NOUNS]
        searches = [
            Search(user_id=f"u{n}", query=NOUNS[n % 4], ts=SINCE + n * 6 * HOUR_MS, clicked_product_id=NOUNS[n % 4])
            for n in range(self.searches)
        ]
        return History(Shop(products, [], searches), 0)


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = Topics(400)

    @contextmanager
    def encoding_as(settings: Settings, _: Generation) -> Iterator[Settings]:
        yield settings

    def encoded(_: Settings, shop: Shop) -> EncodedShop:
        return asyncio.run(encode_shop(shop, WordHashEncoder()))

    monkeypatch.setattr(deciding, "extent_now", topics.extent_now)
    monkeypatch.setattr(deciding, "read_history", topics.read_history)
    monkeypatch.setattr(deciding, "encoding_as", encoding_as)
    monkeypatch.setattr(deciding, "encoded", encoded)
    monkeypatch.setattr(deciding, "half_precision", lambda *_: False)
    return topics


def decided(attempts: list[Attempt], *, force: bool = False, **options: int) -> Decided | Outcome:
    asked = Asked(force=force, threads=1, options=options)
    return decide(load(environment={}), GENERATION, attempts, asked, lambda *_: None)


def task_of(found: Decided | Outcome) -> Decided:
    assert isinstance(found, Decided)
    return found


def test_a_model_that_knows_nothing_of_the_shop_is_trained_on_all_but_the_newest_window(topics: Topics) -> None:
    task, shop = task_of(decided([], steps=40))
    assert task.why == ["the model in service has learned nothing of this shop yet"]
    assert (task.parent, task.generation, task.events) == ("identity", "main", 200_000)
    assert (task.extent, task.options["steps"]) == (topics.extent_now(), 40)
    assert task.cut == SINCE + 320 * 6 * HOUR_MS
    assert task.validation_from == SINCE + 288 * 6 * HOUR_MS
    assert task.half_life_ms == 30 * 24 * HOUR_MS
    assert len(shop.searches) == 400


def test_what_was_refused_is_not_trained_again_until_a_twentieth_is_new(topics: Topics) -> None:
    task, _ = task_of(decided([]))
    refused = Outcome(outcome="refused", at=SINCE, why="the new model is worse", generation="main")
    attempts = with_attempt([], task, refused)
    topics.searches = 419
    kept = decided(attempts)
    assert isinstance(kept, Outcome)
    assert kept.outcome == "kept"
    assert kept.why == (
        "the model in service has learned nothing of this shop yet; but a training from the same was refused "
        "(2020-09-13 12:26:40 UTC: the new model is worse). 19 events came since, and the next training is due after "
        "20 (retraining.new_events), with other options, or by --force"
    )
    assert kept.drift is not None
    assert task_of(decided(attempts, force=True)).task.extent.searches.end == [419]
    assert task_of(decided(attempts, seed=2)).task.options["seed"] == 2
    topics.searches = 420
    task_of(decided(attempts))


def test_neither_from_a_model_that_readers_were_led_back_to_nor_from_the_one_it_made(topics: Topics) -> None:
    task, _ = task_of(decided([]))
    rolled_out = Outcome(outcome="rolled out", at=SINCE, why="better", generation="g2")
    for parent, told in (
        ("identity", "but readers were led back from what a training from the same made (2020-09-13 12:26:40 UTC)"),
        ("parent", "but the model in service was made of much the same (2020-09-13 12:26:40 UTC)"),
    ):
        kept = decided(with_attempt([], msgspec.structs.replace(task, name="made", parent=parent), rolled_out))
        assert isinstance(kept, Outcome)
        assert told in kept.why
    task_of(decided(with_attempt([], msgspec.structs.replace(task, name="other", parent="parent"), rolled_out)))


def test_too_little_is_said_and_nothing_is_begun(topics: Topics) -> None:
    topics.searches = 100
    found = decided([])
    assert isinstance(found, Outcome)
    assert (found.outcome, found.why) == ("too little", "72 pairs to learn from, and fewer than 200 teach nothing")
    topics.searches = 1
    found = decided([])
    assert isinstance(found, Outcome)
    assert found.why == "hardly anything is new that could be learned"
