"""The texts of a shop as vectors of one model: its catalogue, its queries, and the titles that purchases bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.protocol import TextKind
from encoders.text import clean, normalise
from sinks.catalogue import Product
from sinks.derivation import Vector
from streams.evaluation.catalogue import MemoryCatalogue
from streams.evaluation.files import Shop, UnfitFile
from streams.products import stored_product


class Encoder(Protocol):
    """`encoders.client.EncoderClient`, or another vector space in its place."""

    async def encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Unit vectors [n, d]; none of the texts is empty once cleaned."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedShop:
    """What the fold and the retrieval know of a shop's texts."""

    catalogue: MemoryCatalogue
    queries: Mapping[str, Vector]  # by query, as typed and normalised
    titles: Mapping[str, Vector]  # by title, of purchases that bring one


async def encode_shop(shop: Shop, encoder: Encoder) -> EncodedShop:
    """Encodes each text once. Of several lines of one product the last counts, as in the stream.

    Raises UnfitFile where no product is available, and what the encoder raises.
    """
    products = {event.product_id: stored_product(event) for event in shop.products}
    if not any(product.available for product in products.values()):
        raise UnfitFile("no product is available: there is nothing to recommend")
    titles = await _encoded((purchase.title or "" for purchase in shop.purchases), encoder, TextKind.PRODUCT)
    for purchase in shop.purchases:  # known by what it was called when it was bought, and not available
        if purchase.title in titles and purchase.product_id not in products:
            products[purchase.product_id] = Product(purchase.product_id, title=purchase.title)
    typed = [search.query for search in shop.searches]
    queries = await _encoded([*typed, *map(normalise, typed)], encoder, TextKind.QUERY)
    vectors = await _encoded((product.text for product in products.values()), encoder, TextKind.PRODUCT)
    catalogue = MemoryCatalogue([product._replace(vector=vectors[product.text]) for product in products.values()])
    return EncodedShop(catalogue, queries, titles)


async def _encoded(texts: Iterable[str], encoder: Encoder, kind: TextKind) -> dict[str, Vector]:
    unique = [text for text in dict.fromkeys(texts) if clean(text)]
    return dict(zip(unique, await encoder.encode(unique, kind), strict=True)) if unique else {}
