"""The commands that read, run as a user runs them, against a Qdrant that holds a few profiles."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sinks.collections import Generation, Model
from sinks.connection import connect
from sinks.identity import PointIds
from sinks.ledgers import Ledger, ProfileState, encode_state
from sinks.opening import open_generation
from sinks.points import product_point, profile_point
from sinks.writes import Write, new_version, write
from streams.commands import main
from streams.profiles import Contribution, FoldEvent, FoldRules, fold

pytestmark = pytest.mark.end_to_end

SECRET = bytes(range(32))
NOW = 1_700_000_000_000
VECTORS = {
    "boots": np.array([1.0, 0.0, 0.0, 0.0], np.float32),
    "shoes": np.array([0.8, 0.6, 0.0, 0.0], np.float32),
    "tent": np.array([0.0, 0.0, 1.0, 0.0], np.float32),
}


async def fill(address: str, name: str) -> None:
    client, ids = connect(address), PointIds(SECRET)
    await open_generation(client, Generation(name, Model("small", "abc", 4), ids.fingerprint, {}, 5))
    writes = []
    for product_id, vector in VECTORS.items():
        id_, version = ids.product(product_id), new_version()
        payload = {"product_id": product_id, "title": f"A {product_id}", "kind": "product", "available": True}
        writes.append(Write(id_, version, None, product_point(id_, version, vector, payload)))
    await write(client, f"products--{name}", writes)
    writes = []
    for user, bought in (("ada", "boots"), ("bob", "tent")):
        ledger = Ledger()
        event = FoldEvent(0, NOW, 1, 0, (Contribution(f"p{bought}", 4.0, VECTORS[bought]),))
        fold(ledger, "topic", 0, [event], FoldRules(30 * 86.4e6, 3.6e6, history=8, event_id_memory=0, pending=8))
        id_, version = ids.user(user), new_version()
        state = encode_state(ProfileState(Ledger(), ledger))
        point = profile_point(id_, version, VECTORS[bought], None, None, {"state": state})
        writes.append(Write(id_, version, None, point))
    await write(client, f"profiles--{name}", writes)
    await client.close()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def afterglow(
    qdrant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Run:
    name = f"commands-{uuid.uuid4().hex[:8]}"
    asyncio.run(fill(qdrant, name))
    (tmp_path / "secret").write_text(SECRET.hex())
    monkeypatch.setenv("AFTERGLOW_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AFTERGLOW_QDRANT_ADDRESS", qdrant)
    monkeypatch.setenv("AFTERGLOW_GENERATION", name)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capfdbinary.readouterr()
        return int(exit_.value.code or 0), out.decode(), err.decode()

    return run


def test_many_users_get_a_json_line_each_in_their_order(afterglow: Run, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text('bob\n{"user_id": "nobody", "ts": 1}\n\n{"user_id": "ada"}\n')
    code, out, _ = afterglow("recommend", "--users-from", str(file), "--limit", "1", "--at", str(NOW), "--json")
    assert code == 0
    bob, nobody, ada = map(json.loads, out.splitlines())
    assert nobody == {"user_id": "nobody", "items": []}
    assert (bob["user_id"], [item["product_id"] for item in bob["items"]]) == ("bob", ["tent"])
    assert ada.keys() == {"user_id", "items"}
    (item,) = ada["items"]
    assert item.keys() == {"product_id", "title", "score", "because"}
    assert (item["product_id"], item["title"]) == ("boots", "A boots")
    assert sum(reason["share"] for reason in item["because"]) == pytest.approx(1.0, abs=1e-3)


def test_one_user_is_answered_for_people_and_programs(afterglow: Run) -> None:
    code, out, err = afterglow("recommend", "ada", "--new-only", "--at", "2023-11-14T22:13:20")
    assert (code, err) == (0, "")
    assert "A shoes" in out
    assert "likes A boots" in out
    assert "  boots " not in out, "bought before"
    code, out, _ = afterglow("recommend", "ada", "--at", "2001-01-01", "--json")
    assert json.loads(out)["at"] == NOW
    assert "events aren't undone" in json.loads(out)["note"]


def test_a_profile_is_shown_with_what_it_is_made_of(afterglow: Run) -> None:
    code, out, _ = afterglow("profile", "ada", "--at", str(NOW))
    assert code == 0
    assert "100.0%  1      2023-11-14 22:13:20  product A boots" in out
    profile = json.loads(afterglow("profile", "ada", "--json")[1])
    assert profile["n_purchases"] == 1
    assert profile["keys"][0]["share"] + profile["evicted"] == pytest.approx(1.0)


def test_similar_users_are_listed(afterglow: Run) -> None:
    code, out, _ = afterglow("similar", "ada", "--json")
    assert code == 0
    assert [one["point_id"] for one in json.loads(out)["similar"]] == [PointIds(SECRET).user("bob")]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["recommend", "nobody"], 1, "there is no profile of user 'nobody'"),
        (["profile", "nobody"], 1, "there is no profile of user 'nobody'"),
        (["recommend"], 2, "name a USER, or give --users-from FILE"),
        (["recommend", "ada", "--at", "soon"], 2, "'soon' is neither ISO 8601"),
        (["profile", "ada", "--qdrant", "127.0.0.1:1"], 1, "Qdrant at 127.0.0.1:1 can't be reached"),
        (["search", "  "], 1, "has nothing that could be searched for"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(afterglow: Run, arguments: list[str], code: int, told: str) -> None:
    got, out, err = afterglow(*arguments)
    assert (got, out) == (code, "")
    assert told in err.splitlines()[-1]
