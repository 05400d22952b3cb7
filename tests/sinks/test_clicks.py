"""Which products were clicked after which query."""

import numpy as np

from sinks.clicks import CLICKED_PRODUCTS, NO_CLICKS, ClickTable, decode_clicks, encode_clicks, query_hash

HALO, ZUMBA = sorted((query_hash("halo"), query_hash("zumba")))


def table(**clicked: dict[int, float]) -> ClickTable:
    products = np.zeros((2, CLICKED_PRODUCTS), np.int32)
    clicks = np.zeros((2, CLICKED_PRODUCTS), np.float32)
    for place, name in enumerate(("first", "second")):
        for at, (product, count) in enumerate(clicked.get(name, {}).items()):
            products[place, at], clicks[place, at] = product, count
    return ClickTable(np.array([HALO, ZUMBA], np.uint64), products, clicks)


def test_a_query_has_one_hash_in_every_process() -> None:
    assert query_hash("halo reach") == 14412532583312652519


def test_a_query_leads_to_what_was_clicked_after_it() -> None:
    clicks = table(first={0: 4.0, 7: 0.5}, second={3: 1.0})
    products, counts = clicks.of(HALO)
    assert (products.tolist(), counts.tolist()) == ([0, 7], [4.0, 0.5])
    assert clicks.of(ZUMBA)[0].tolist() == [3]


def test_a_query_that_nobody_knows_leads_nowhere() -> None:
    for unknown in (0, HALO + 1, ZUMBA - 1, 2**64 - 1):
        assert table(first={0: 1.0}).of(unknown)[0].tolist() == []
    assert NO_CLICKS.of(HALO)[0].tolist() == []


def test_what_is_encoded_is_read_back() -> None:
    again = decode_clicks(encode_clicks(table(first={5: 0.25}, second={1: 3.0, 2: 2.0})))
    assert again.queries.tolist() == [HALO, ZUMBA]
    assert [list(part) for part in again.of(ZUMBA)] == [[1, 2], [3.0, 2.0]]
    assert decode_clicks(encode_clicks(NO_CLICKS)).queries.tolist() == []
