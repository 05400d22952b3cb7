"""A history with noise in it: what recommendations have to shrug off. Pure, and the same for one seed."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from typing import Final

from streams.evaluation.files import Shop
from streams.events import Search

_SHORTLY_MS: Final = 600_000
_KEYS: Final = string.ascii_lowercase


def with_noise(shop: Shop, share: float, until: int, seed: int) -> Shop:
    """The shop with so many searches more, as a share of everybody's events before `until` (ms), and none of a meaning.

    In equal parts what people typed (or the title of what they bought) with letters lost, doubled and swapped; letters
    at random; codes and product numbers; and what somebody else typed, or the title of any product. Each comes some
    minutes after an event of the same user. None leads to a click.
    """
    chance = random.Random(seed)
    titles = {product.product_id: product.title for product in shop.products}
    own: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for search in shop.searches:
        if search.ts < until:
            own[search.user_id].append((search.ts, search.query))
    for purchase in shop.purchases:
        if purchase.ts < until:
            own[purchase.user_id].append((purchase.ts, titles.get(purchase.product_id) or purchase.title or "gift"))
    typed = [search.query for search in shop.searches] or list(titles.values())
    kinds = (_misspelt, _gibberish, _code, lambda _, chance: chance.choice(typed))
    added = []
    for user, events in own.items():
        whole, rest = divmod(share * len(events), 1.0)
        for _ in range(int(whole) + (chance.random() < rest)):
            ts, text = chance.choice(events)
            query = chance.choice(kinds)(text, chance)
            added.append(Search(user_id=user, query=query, ts=min(ts + chance.randrange(_SHORTLY_MS), until - 1)))
    return shop._replace(searches=[*shop.searches, *added])


def _misspelt(text: str, chance: random.Random) -> str:
    letters = list(text)
    for _ in range(max(1, len(letters) // 6)):
        at = chance.randrange(len(letters))
        what = chance.random()
        if what < 0.4:
            letters[at] = chance.choice(_KEYS)
        elif what < 0.7:
            letters.insert(at, letters[at])
        elif len(letters) > 1:
            del letters[at]
    return "".join(letters)


def _gibberish(_: str, chance: random.Random) -> str:
    return "".join(chance.choices(_KEYS, k=chance.randint(4, 12)))


def _code(_: str, chance: random.Random) -> str:
    if chance.random() < 0.5:
        return f"cmp_{chance.randrange(10**6):06d}_{chance.choice(('email', 'sale', 'banner'))}"
    return " ".join(str(chance.randrange(10**6, 10**8)) for _ in range(chance.randint(1, 4)))
