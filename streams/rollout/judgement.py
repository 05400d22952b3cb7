"""A model beside the one in service, on what the shop's customers did last: whether it may take over.

Both encode the same history, out of the topics; the same tasks of its newest part are put to both, and the differences
are paired (`streams.evaluation.comparison`). A measure on which a model is worse beyond doubt keeps it out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from encoders.text import normalise
from encoders.training.pairs import Unwritable
from encoders.training.whole_files import replace_whole
from streams.evaluation.comparison import Measure, compared, measures
from streams.evaluation.evaluation import NothingToPredict, Options, Report, compare
from streams.evaluation.files import Shop
from streams.evaluation.table import TITLES, headings
from streams.evaluation.tasks import wanted_of
from streams.evaluation.texts import EncodedShop
from streams.evaluation.timeline import timeline
from streams.settings import Settings

NEWEST_EVENTS: Final = 200_000
"""So many of the newest searches and purchases models are judged by, the history before the cut among them."""

WINDOW: Final = 0.2
"""The newest share of what customers ordered or clicked is predicted from what came before it."""

MOST_PREDICTED: Final = 2000
"""Orders and clicks at most: of more, the newest."""

GOOD_FOR_MS: Final = 86_400_000
"""How long a judgement that is kept in the model's folder counts."""

_FILE: Final = "judgement.json"
_LIMIT: Final = 20
_SEED: Final = 1
_HERE, _THERE = "this model", "the model in service"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is worth beside another one. No `measures` where too little happened to conclude anything."""

    identity: str
    against: str  # identity of the other
    topics: dict[str, str]  # by topic Kafka's id of it: of which shop this holds
    made_at: int  # ms
    events: int  # searches and purchases that were read
    cut: int  # event time, ms: what happened from then on was predicted
    tasks: int
    measures: list[Measure]

    @property
    def worse(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.worse]

    @property
    def gain(self) -> float:
        """The mean of the relative gains; 0 where nothing is concluded."""
        gains = [measure.difference.mean / measure.before for measure in self.measures if measure.before > 0]
        return sum(gains) / len(gains) if gains else 0.0


def tells_anything(shop: Shop) -> bool:
    """Whether models can be judged by it at all: somebody ordered or clicked, and there is something to recommend."""
    happened = bool(shop.purchases) or any(search.clicked_product_id for search in shop.searches)
    return happened and any(product.available for product in shop.products)


def cut_of(shop: Shop, share: float = WINDOW, at_most: int = MOST_PREDICTED) -> int:
    """When the newest part of a history that `tells_anything` begins, ms."""
    times = moments(shop)
    return times[-max(1, min(round(share * len(times)), at_most))]


def moments(shop: Shop) -> list[int]:
    """When somebody ordered, or clicked, ms, ascending: what can be predicted."""
    return [step.ts for step in timeline(shop.purchases, shop.searches) if wanted_of(step)]


async def judge(
    shop: Shop,
    encoded: tuple[EncodedShop, EncodedShop],
    identities: tuple[str, str],
    topics: Mapping[str, str],
    settings: Settings,
    report: Report = lambda *_: None,
    *,
    cut: int | None = None,
) -> Judgement:
    """Of the second of two models beside the first, which is in service, on a history that `tells_anything`.

    What happened from `cut` on is predicted; by default `cut_of`.
    """
    options = Options(cut_of(shop) if cut is None else cut, _LIMIT, prequential=False, seed=_SEED)
    both = dict(zip((_THERE, _HERE), encoded, strict=True))
    try:
        rounds = await compare(shop, both, settings, options, report)
    except NothingToPredict:
        return nothing_concluded(shop, identities, topics)
    seen = {normalise(search.query) for search in shop.searches if search.ts < options.cut}
    results = compared(rounds, [*both], seen, limit=_LIMIT, seed=_SEED)
    return msgspec.structs.replace(
        nothing_concluded(shop, identities, topics),
        cut=options.cut,
        tasks=sum(len(round_.tasks) for round_ in rounds),
        measures=measures(results, _HERE),
    )


def nothing_concluded(shop: Shop, identities: tuple[str, str], topics: Mapping[str, str]) -> Judgement:
    """Too little happened."""
    against, identity = identities
    return Judgement(
        identity=identity,
        against=against,
        topics=dict(topics),
        made_at=time.time_ns() // 1_000_000,
        events=len(shop.purchases) + len(shop.searches),
        cut=0,
        tasks=0,
        measures=[],
    )


def in_words(measure: Measure) -> str:
    """Which measure, what it was, what it is, and how sure that is."""
    heading = " ".join(headings(_LIMIT)[measure.metric].split())
    difference = measure.difference
    alone = ", by texts alone" if measure.texts_alone else ""
    return (
        f"{TITLES[measure.kind]}{alone}, {heading}: {measure.after:.3f} instead of {measure.before:.3f} "
        f"({difference.mean:+.3f}, 95% {difference.low:+.3f} to {difference.high:+.3f})"
    )


def keep(folder: Path, judgement: Judgement) -> None:
    """In the model's folder, whole or not at all. Raises Unwritable."""
    written = msgspec.json.format(msgspec.json.encode(judgement), indent=2) + b"\n"
    path = folder / _FILE
    try:
        replace_whole(path, lambda beside: beside.write_bytes(written))
    except OSError as error:
        raise Unwritable(path, error) from error


def kept(
    folder: Path, identities: tuple[str, str], topics: Mapping[str, str], *, within_ms: float = GOOD_FOR_MS
) -> Judgement | None:
    """What the folder holds of these two models (the one in service first), on these very topics, if it is so young."""
    try:
        judgement = msgspec.json.decode((folder / _FILE).read_bytes(), type=Judgement)
    except (OSError, msgspec.MsgspecError):
        return None
    age = time.time_ns() // 1_000_000 - judgement.made_at
    same = (judgement.against, judgement.identity, judgement.topics) == (*identities, topics)
    return judgement if same and age < within_ms else None
