"""How good a list is, against what was wanted. Pure; each is in [0, 1], and 1 is best.

`items` are product ids, best first, each once; `wanted` holds at least one. Only the first k items count.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def recall(items: Sequence[str], wanted: Collection[str], k: int) -> float:
    """hits / min(k, size): 1 where no list of k could have more of it."""
    return _hits(items, wanted, k) / min(k, len(wanted))


def precision(items: Sequence[str], wanted: Collection[str], k: int) -> float:
    """hits / k, however short the list."""
    return _hits(items, wanted, k) / k


def reciprocal_rank(items: Sequence[str], wanted: Collection[str], k: int) -> float:
    """1 / the place of the first hit; 0 without one. Its mean is the MRR."""
    for place, item in enumerate(items[:k], start=1):
        if item in wanted:
            return 1.0 / place
    return 0.0


def ndcg(items: Sequence[str], wanted: Collection[str], k: int) -> float:
    """Hits discounted by 1 / log2(place + 1), over those of a list of hits alone (Järvelin and Kekäläinen 2002)."""
    found = sum(_discount(place) for place, item in enumerate(items[:k], start=1) if item in wanted)
    return found / sum(_discount(place) for place in range(1, min(k, len(wanted)) + 1))


def _hits(items: Sequence[str], wanted: Collection[str], k: int) -> int:
    return sum(item in wanted for item in items[:k])


def _discount(place: int) -> float:
    return 1.0 / math.log2(place + 1)
