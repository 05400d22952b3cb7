"""What is remembered of every customer, folded from the timeline in this process by the real fold."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.text import normalise
from sinks.clicks import query_hash
from sinks.derivation import Taste, derive
from sinks.ledgers import Ledger, ProfileState
from sinks.statistics import Statistics
from streams.batches import fold_event
from streams.evaluation.texts import EncodedShop
from streams.evaluation.timeline import Order, Step
from streams.products import kinds_of
from streams.profiles import fold, stable_hash
from streams.rules import derivation_rules, fold_rules, weights
from streams.settings import Settings
from streams.statistics.coverage import Coverage, coverage_of
from streams.statistics.fold import StatisticsFold
from streams.statistics.likeness import LikenessOfTexts


class History:
    """Every customer's state after what was learned so far."""

    def __init__(self, shop: EncodedShop, settings: Settings) -> None:
        self.shop = shop
        self._rules = fold_rules(settings)
        self._weights = weights(settings)
        self._derivation = derivation_rules(settings)
        self._listing = settings.derivation
        self._states: dict[str, ProfileState] = {}
        self._offset = 0
        self._statistics = StatisticsFold(LikenessOfTexts(shop.catalogue.mean, shop.catalogue.vectors.get))
        for product in shop.catalogue.products.values():
            related = [*map(stable_hash, product.related)]
            self._statistics.relate(
                product.product_id, related, product.ts or 0, [*map(stable_hash, kinds_of(product))]
            )

    def learn(self, step: Step) -> None:
        """Folds in what happened next. Steps come in the order of time."""
        state = self._states.get(step.user_id)
        if state is None:
            state = self._states[step.user_id] = ProfileState(Ledger(), Ledger())
        if isinstance(step, Order):
            events = [
                fold_event(
                    purchase,
                    self._offset + line,
                    "",
                    self.shop.titles.get(purchase.title or ""),
                    self.shop.catalogue.vectors,
                    self._weights,
                )
                for line, purchase in enumerate(step.purchases)
            ]
            fold(state.purchases, "purchases", 0, events, self._rules.purchases)
            user = stable_hash(step.user_id)
            for purchase, event in zip(step.purchases, events, strict=True):
                self._statistics.purchase(user, purchase.product_id, event.order, purchase.ts)
        else:
            query = normalise(step.query)
            event = fold_event(
                step, self._offset, query, self.shop.queries.get(query), self.shop.catalogue.vectors, self._weights
            )
            events = [event]
            fold(state.searches, "searches", 0, events, self._rules.searches)
            if step.clicked_product_id:
                self._statistics.click(stable_hash(step.user_id), query_hash(query), step.clicked_product_id, step.ts)
        self._offset += len(events)

    def states(self, users: Sequence[str]) -> list[ProfileState]:
        """Of these users; an empty one of whom nothing is known."""
        return [self._states.get(user) or ProfileState(Ledger(), Ledger()) for user in users]

    def statistics(self) -> Statistics:
        """Across users, up to now."""
        self._statistics.close_orders()
        return self._statistics.statistics()

    def coverage(self, places: int) -> Coverage:
        """As `afterglow status` says it."""
        rules = self._listing
        return coverage_of(self._statistics, places, exposure=rules.exposure, exclude_bought=rules.exclude_bought)

    def tastes(self, states: Sequence[ProfileState], at: int) -> list[Taste]:
        catalogue = self.shop.catalogue
        return derive(states, catalogue.vectors, catalogue.mean, at, self._derivation, catalogue.support)
