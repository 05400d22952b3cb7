"""Stored bytes come back as the state they were made from, or say what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from sinks.ledgers import (
    KEY_ROW,
    NOTHING,
    Applied,
    Debt,
    Ledger,
    ProfileState,
    QueryVector,
    StateError,
    add_log_weights,
    decode_state,
    encode_state,
)


def a_state() -> ProfileState:
    vector = np.array([0.6, -0.8, 0.0], np.float32)
    searches = Ledger(
        applied=Applied("Qm9vdA", 3, 2**40),
        events=2,
        newest_ts=1_700_000_000_000,
        long=np.array([0.5, 0.25, -1.0]),
        short=None,
        weight_long=650.5,
        weight_short=470_000.25,
        keys=["qrouge à lèvres", "p42"],
        rows=np.array([(650.0, 1, 2, 3, 1.5, 1, 2), (648.0, 4, 5, 6, 1.0, 2, 2)], KEY_ROW),
        query_vectors={"qrouge à lèvres": QueryVector.of(vector)},
        pending={"42": Debt(648.0, 470_000.0)},
        orders=2,
        event_ids=[1, 2**64 - 1],
    )
    return ProfileState(searches, Ledger())


def test_a_state_comes_back_from_its_bytes():
    state = a_state()
    back = decode_state(encode_state(state))
    assert back.searches.applied == state.searches.applied
    assert back.searches.keys == state.searches.keys
    assert back.searches.history.tobytes() == state.searches.history.tobytes()
    assert back.searches.pending == {"42": Debt(648.0, 470_000.0)}
    assert back.searches.event_ids == [1, 2**64 - 1]
    assert back.searches.long.tolist() == [0.5, 0.25, -1.0]
    assert back.searches.short is None
    np.testing.assert_allclose(back.searches.query_vectors["qrouge à lèvres"].restored(), [0.6, -0.8, 0.0], atol=0.004)
    assert encode_state(back) == encode_state(state)
    assert back.purchases.applied.offset == -1
    assert back.purchases.weight_long == NOTHING


@pytest.mark.parametrize("cut", [1, 40, 150, -1])
def test_bytes_that_are_cut_off_say_so(cut: int):
    with pytest.raises(StateError, match="cut off or damaged"):
        decode_state(encode_state(a_state())[:cut])


def test_bytes_of_another_format_say_which():
    with pytest.raises(StateError, match="format 9, this version reads format 1"):
        decode_state(b"\x09rest")


def test_log_weights_add_up_at_any_magnitude():
    assert add_log_weights(NOTHING, 3.0) == 3.0
    assert add_log_weights(100_000.0, 100_000.0) == 100_001.0
    assert add_log_weights(100_000.0, -100_000.0) == 100_000.0
    assert add_log_weights(0.0, 1.0) == pytest.approx(np.log2(3.0))
