"""What Qdrant's reader says of one shopper, beside what the simulation knows and nobody told it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from encoders.text import normalise
from sinks.recommendation import Recommendation
from sinks.retrieval import AsyncRecommender, InterestView, ProfileView
from streams.demonstration.shop import Shop
from streams.events import Search

NEW_ITEMS: Final = 3
AGAIN_ITEMS: Final = 1
_LOOKED_AT: Final = 20


class Portrait(NamedTuple):
    """A shopper as read at one time. `departments` are shares of the weight that the profile's history still holds."""

    user_id: str
    at: int  # ms
    searches: int
    purchases: int
    interests: tuple[InterestView, ...]
    departments: Mapping[str, float]  # largest first; "" for what was about nothing
    new: Sequence[Recommendation]  # not bought before
    again: Sequence[Recommendation]  # bought before, and recommended mostly for that


class Departments:
    """Which department a key of a history belongs to: known to the simulation alone."""

    def __init__(self, shop: Shop) -> None:
        self._of_product = {product.product_id: product.category or "" for product in shop.products}
        self._of_query = {
            normalise(moment.event.query): moment.department
            for act in shop.acts
            for moment in act.moments
            if isinstance(moment.event, Search)
        }

    def shares(self, profile: ProfileView) -> dict[str, float]:
        """The shares add up to 1 over what the history holds. Empty for an empty history."""
        weights: dict[str, float] = defaultdict(float)
        for key in profile.keys:
            of = self._of_product if key.kind == "product" else self._of_query
            weights[of.get(key.id, "")] += key.share
        total = sum(weights.values())
        return {name: weight / total for name, weight in sorted(weights.items(), key=lambda item: -item[1])}


async def portrait(recommender: AsyncRecommender, departments: Departments, user_id: str, *, at: int) -> Portrait:
    """The shopper's profile and recommendations, derived as of `at` (ms). Raises as the recommender does."""
    profile = await recommender.profile(user_id, at=at)
    new = await recommender.recommend(user_id, limit=NEW_ITEMS, new_only=True, at=at)
    all_ = await recommender.recommend(user_id, limit=_LOOKED_AT, at=at)
    again = [item for item in all_.items if item.because[0].kind == "bought"]
    return Portrait(
        user_id=user_id,
        at=at,
        searches=profile.n_searches,
        purchases=profile.n_purchases,
        interests=profile.interests,
        departments=departments.shares(profile),
        new=new.items,
        again=again[:AGAIN_ITEMS],
    )
