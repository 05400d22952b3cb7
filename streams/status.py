"""What `afterglow status` tells: how Kafka, Qdrant and the encoding worker are doing, and what is wrong."""

from __future__ import annotations

import msgspec

from sinks.collections import Source


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One partition as the generation's group reads it. `committed` is None where nothing was read yet.

    `waiting_since`: when the oldest event was produced that isn't acknowledged (ms); None where there is none.
    """

    topic: str
    partition: int
    first: int
    end: int
    committed: int | None
    lag: int
    waiting_since: int | None


class KafkaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`members` are the consumers in the group: workers where it is `live`, else a replay's.

    `dead_letters` are the events that wait to be sent again. `topic_ids` are Kafka's.
    """

    address: str
    group: str
    members: int
    live: bool
    lag: int
    dead_letters: int
    topic_ids: dict[str, str]
    missing_topics: list[str]
    uncounted: int | None  # events that statistics don't know yet; None where nobody keeps any
    partitions: list[PartitionStatus]


class GenerationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the profiles are made with, and whether the readers' aliases lead to them."""

    name: str
    model: str
    model_identity: str
    dimension: int
    created_at: int  # ms
    sources: dict[str, Source]  # by role: the topics that the profiles are folded from
    served: bool


class ProfilesStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Added up from the stored profiles."""

    count: int
    searches: int  # folded in
    purchases: int
    waiting: int  # profiles that wait for a product
    pending_products: int  # different ones
    due: int  # profiles with work that was put off until now
    noise: dict[str, int]  # searches that weighed less, by reason, the commonest first


class ProductsStatus(msgspec.Struct, frozen=True, kw_only=True):
    count: int  # deleted ones left out
    available: int


class StatisticsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known across users. `covered` of the available products are in any of so many people's `lists`."""

    made_at: int  # ms
    as_of: int  # time of the newest event, ms
    events: int
    users: int  # in the sample that is learned from
    products: int
    covered: int
    lists: int  # of a thousand people, or of all where there are fewer


class QdrantStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` and what follows are None where no worker has made it yet."""

    address: str
    generation: GenerationStatus | None = None
    profiles: ProfilesStatus | None = None
    products: ProductsStatus | None = None
    statistics: StatisticsStatus | None = None


class EncoderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The encoding worker. `cache_share` is the part of the texts that needed no model."""

    address: str
    model: str
    model_identity: str
    dimension: int
    device: str
    texts: int
    cache_share: float
    waiting: int
    waiting_limit: int
    uptime_seconds: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A part is None where it didn't answer; `problems` says so. Dead letters are no problem: the stream went on."""

    healthy: bool
    problems: list[str]
    kafka: KafkaStatus | None
    qdrant: QdrantStatus | None
    encoder: EncoderStatus | None
