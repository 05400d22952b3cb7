"""What was clicked after each query, across users: products by query, the most clicked first. Pure.

Queries are known by a hash of what `encoders.text.normalise` makes of them, so no text of anybody's is stored.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLICKED_PRODUCTS: Final = 10
"""Most products kept of a query."""

CLICK_HALF_LIFE_MS: Final = 90 * 86_400_000.0
"""After it, a click after a query counts half."""


def query_hash(normalised: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(blake2b(normalised.encode(), digest_size=8).digest(), "little")


class ClickTable(NamedTuple):
    """Rows are queries, in the order of their hashes."""

    queries: NDArray[np.uint64]  # [n], ascending
    products: NDArray[np.int32]  # [n, CLICKED_PRODUCTS]: rows of the statistics
    clicks: NDArray[np.float32]  # [n, CLICKED_PRODUCTS], decayed; 0 where fewer products were clicked

    def of(self, query: int) -> tuple[NDArray[np.int64], Floats]:
        """The products that were clicked after a query, and how often; none of a query that nobody knows."""
        place = int(np.searchsorted(self.queries, np.uint64(query)))
        if place == len(self.queries) or int(self.queries[place]) != query:
            return np.zeros(0, np.int64), np.zeros(0)
        clicked = self.clicks[place] > 0.0
        return self.products[place][clicked].astype(np.int64), self.clicks[place][clicked].astype(np.float64)


NO_CLICKS: Final = ClickTable(
    np.zeros(0, np.uint64), np.zeros((0, CLICKED_PRODUCTS), np.int32), np.zeros((0, CLICKED_PRODUCTS), np.float32)
)


def encode_clicks(table: ClickTable) -> bytes:
    """68 bytes a query."""
    return (
        table.queries.astype("<u8").tobytes()
        + table.products.astype("<i4").tobytes()
        + table.clicks.astype("<f2").tobytes()
    )


def decode_clicks(data: bytes) -> ClickTable:
    n = len(data) // (8 + 6 * CLICKED_PRODUCTS)
    products, clicks = 8 * n, (8 + 4 * CLICKED_PRODUCTS) * n
    return ClickTable(
        np.frombuffer(data[:products], "<u8"),
        np.frombuffer(data[products:clicks], "<i4").reshape(n, CLICKED_PRODUCTS),
        np.frombuffer(data[clicks:], "<f2").reshape(n, CLICKED_PRODUCTS).astype(np.float32),
    )
