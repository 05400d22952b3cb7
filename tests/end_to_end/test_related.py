"""What the catalogue relates, or says is of a kind, reaches who bought the one, though nobody has bought the other."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from machine import afterglow, running

pytestmark = pytest.mark.end_to_end

NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
TITLES = {
    "tent": "Two-person tent",
    "stove": "Camping stove",
    "teapot": "Porcelain teapot",
    "whisk": "Matcha whisk",
    **{f"filler-{number}": f"Article no {number}" for number in range(30)},
}


def test_a_new_product_is_recommended_at_once_to_who_bought_what_it_goes_with(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        _produce(data, "products", [_product(one, title) for one, title in TITLES.items()])
        baskets = [("ann", "tent"), ("bob", "teapot")]
        for user in range(20):
            baskets += [(f"camper-{user}", one) for one in ("tent", "stove", f"filler-{user}")]
            baskets += [(f"drinker-{user}", one) for one in ("teapot", "whisk", f"filler-{user + 10}")]
        _produce(
            data,
            "purchases",
            [
                {"user_id": user, "product_id": one, "quantity": 1, "order_id": user, "ts": NOW - 2 * DAY}
                for user, one in baskets
            ],
        )
        # Their texts say nothing of tents and teapots.
        new = [
            {"product_id": "x-1", "title": "Model X-1", "related": ["stove", "unheard-of"], "ts": NOW},
            {"product_id": "x-2", "title": "Model X-2", "related": ["teapot"], "ts": NOW},
            {"product_id": "y-1", "title": "Model Y-1", "brand": "Fell", "ts": NOW},
        ]
        _produce(data, "products", new)
        ann, bob = (_shown(data, user) for user in ("ann", "bob"))
    # Bob has what X-2 goes with; Ann has not, but what X-1 goes with is bought by those who bought what she did.
    assert bob.index("x-2") < 3 < bob.index("x-1")
    assert ann.index("x-1") < 4 < ann.index("x-2")
    assert ann.index("y-1") < 4 < bob.index("y-1"), "what Ann bought is bought with what is of that brand"


def _product(product_id: str, title: str) -> dict[str, object]:
    brand = {"brand": "Fell"} if product_id == "stove" else {}
    return {"product_id": product_id, "title": title, **brand}


def _produce(data: Path, topic: str, events: list[dict[str, object]]) -> None:
    file = data / f"{topic}.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    afterglow(data, "produce", str(file), "--topic", topic, "--wait")


def _shown(data: Path, user: str) -> list[str]:
    items = json.loads(afterglow(data, "recommend", user, "--limit", "40", "--json"))["items"]
    because = {item["product_id"]: [reason["kind"] for reason in item["because"]] for item in items}
    assert "related" in because["x-1" if user == "ann" else "x-2"]
    assert ("kin" in because["y-1"]) == (user == "ann")
    return [item["product_id"] for item in items]
