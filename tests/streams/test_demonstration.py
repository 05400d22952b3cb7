"""The simulated shop, and what the demonstration makes of what it reads."""

from collections import Counter
from pathlib import Path

import pytest

from encoders.client import EncoderStatistics
from sinks.identity import PointIds
from sinks.retrieval import KeyShare, ProfileView
from streams.commands import main
from streams.commands.demo import _ignore_settings
from streams.demonstration.observation import Counted, Look
from streams.demonstration.portraits import Departments
from streams.demonstration.shop import NAMED, OFF_TOPIC_SHARE, WEEK_MS, Shop, open_shop
from streams.demonstration.summary import Missing, missing_events
from streams.events import Purchase, Search, encode

UNTIL_MS = 1_764_000_000_000


@pytest.fixture(scope="module")
def shop() -> Shop:
    return open_shop(seed=1, shoppers=120, until_ms=UNTIL_MS)


def test_the_same_seed_is_the_same_shop(shop: Shop) -> None:
    assert open_shop(seed=1, shoppers=120, until_ms=UNTIL_MS) == shop
    assert open_shop(seed=2, shoppers=120, until_ms=UNTIL_MS) != shop


def test_a_catalogue_of_ten_departments(shop: Shop) -> None:
    assert len({product.product_id for product in shop.products}) == len(shop.products) == 400
    assert set(Counter(product.category for product in shop.products).values()) == {40}
    assert shop.products[0].title == "Two-Person Tent"


def test_every_event_is_valid_and_in_order_of_time(shop: Shop) -> None:
    for act in shop.acts:
        times = [moment.event.ts for moment in act.moments]
        assert times == sorted(times)
        assert act.until_ms - len(act.weeks) * WEEK_MS <= times[0] <= times[-1] <= act.until_ms
        for moment in act.moments:
            encode(moment.event, UNTIL_MS)
    assert shop.acts[1].until_ms == UNTIL_MS


def test_everybody_does_something_in_both_acts(shop: Shop) -> None:
    for act in shop.acts:
        assert {moment.event.user_id for moment in act.moments} == {shopper.user_id for shopper in shop.shoppers}


def test_interests_change_between_the_acts(shop: Shop) -> None:
    bought = [Counter(m.department for m in act.moments if m.event.user_id == "mira") for act in shop.acts]
    assert bought[0]["Camping"] > 3 * bought[0]["Baking"]
    assert bought[1]["Baking"] > 3 * bought[1]["Camping"]
    changed = [shopper for shopper in shop.shoppers[len(NAMED) :] if shopper.interests[0] != shopper.interests[1]]
    assert 0.4 < len(changed) / (len(shop.shoppers) - len(NAMED)) < 0.8
    for shopper in changed:
        assert len(set(shopper.interests[0]) - set(shopper.interests[1])) == 1, "one is dropped"


def test_searches_are_noisy_and_purchases_are_not(shop: Shop) -> None:
    moments = [moment for act in shop.acts for moment in act.moments]
    searches = [moment for moment in moments if isinstance(moment.event, Search)]
    off_topic = sum(not moment.department for moment in searches) / len(searches)
    assert off_topic == pytest.approx(OFF_TOPIC_SHARE, abs=0.02)
    assert all(moment.department for moment in moments if isinstance(moment.event, Purchase))


def test_orders_have_several_lines_and_some_things_are_bought_again(shop: Shop) -> None:
    purchases = [m.event for act in shop.acts for m in act.moments if isinstance(m.event, Purchase)]
    lines = Counter(event.order_id for event in purchases)
    assert set(lines.values()) >= {1, 2, 3}
    times = Counter((event.user_id, event.product_id) for event in purchases)
    assert sum(count > 1 for count in times.values()) > 50


def test_departments_are_shares_of_what_the_history_holds(shop: Shop) -> None:
    profile = _profile(
        KeyShare("product", "CAM-001", "Two-Person Tent", 0.3, 1, 0, 0),
        KeyShare("query", "cake tin", "cake tin", 0.1, 1, 0, 0),
        KeyShare("query", "gift card", "gift card", 0.1, 1, 0, 0),
    )
    assert Departments(shop).shares(profile) == pytest.approx({"Camping": 0.6, "Baking": 0.2, "": 0.2})
    assert Departments(shop).shares(_profile()) == {}


def test_an_event_in_the_wrong_profile_is_missed() -> None:
    ids = PointIds(b"sixteen bytes ok")
    sent = {"ada": Counted(2, 1), "bob": Counted(1, 0)}
    good = _look({ids.user("ada"): Counted(2, 1), ids.user("bob"): Counted(1, 0)})
    swapped = _look({ids.user("ada"): Counted(3, 1)})
    assert missing_events(sent, good, ids) == []
    assert missing_events(sent, swapped, ids) == [
        Missing("ada", Counted(2, 1), Counted(3, 1)),
        Missing("bob", Counted(1, 0), Counted(0, 0)),
    ]


def test_settings_that_lead_elsewhere_are_ignored() -> None:
    environment = {
        "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS": "production:9092",
        "AFTERGLOW_QDRANT_ADDRESS": "production:6334",
        "AFTERGLOW_ENCODER_ADDRESS": "gpu:50051",
        "AFTERGLOW_CONFIG": "production.toml",
        "AFTERGLOW_ENCODER_THREADS": "1",
        "AFTERGLOW_QDRANT_BIN": "/opt/qdrant",
        "HOME": "/root",
    }
    _ignore_settings(environment)
    assert sorted(environment) == ["AFTERGLOW_ENCODER_THREADS", "AFTERGLOW_QDRANT_BIN", "HOME"]


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("precious")
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--data-dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "is not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def _look(profiles: dict[str, Counted]) -> Look:
    return Look(profiles, EncoderStatistics(0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0, 0.0))


def _profile(*keys: KeyShare) -> ProfileView:
    return ProfileView(
        user_id="ada",
        point_id="",
        generation="main",
        at=0,
        note=None,
        known=0.5,
        recent=0.0,
        n_searches=3,
        n_purchases=0,
        last_search_ts=None,
        last_purchase_ts=None,
        interests=(),
        keys=keys,
        evicted=0.5,
        pending=(),
        candidates=[],
        made_at=None,
        due=None,
    )
