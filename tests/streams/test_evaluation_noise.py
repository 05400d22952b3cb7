"""Noise is added to a history: so much of it, to whom, when; and the same for one seed."""

from __future__ import annotations

from streams.evaluation.files import Shop
from streams.evaluation.noise import with_noise
from streams.events import Product, Purchase, Search

SHOP = Shop(
    [Product(product_id="p1", title="red tent"), Product(product_id="p2", title="blue boots")],
    [Purchase(user_id="ada", product_id="p1", quantity=1, ts=1000 * n) for n in range(10)],
    [Search(user_id="bob", query="walking boots", ts=1000 * n) for n in range(20)],
)


def test_everybody_gets_a_share_of_their_own_events_and_none_leads_to_a_click():
    noisy = with_noise(SHOP, 0.3, until=10_000, seed=1)
    assert (noisy.products, noisy.purchases, noisy.searches[:20]) == (SHOP.products, SHOP.purchases, SHOP.searches)
    added = noisy.searches[20:]
    assert sorted(search.user_id for search in added) == ["ada"] * 3 + ["bob"] * 3
    assert all(search.query and 0 <= search.ts < 10_000 and search.clicked_product_id is None for search in added)


def test_one_seed_gives_one_history():
    assert with_noise(SHOP, 1.0, until=10_000, seed=7) == with_noise(SHOP, 1.0, until=10_000, seed=7)
    assert with_noise(SHOP, 1.0, until=10_000, seed=7) != with_noise(SHOP, 1.0, until=10_000, seed=8)


def test_no_noise_changes_nothing():
    assert with_noise(SHOP, 0.0, until=10_000, seed=1) == SHOP
