"""Which errors of Qdrant pass by themselves, how to wait for them, and which ones somebody has to fix."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_ADVICE = {
    grpc.StatusCode.INVALID_ARGUMENT: "The request does not fit the collection (dimension, vector names, "
    "filter): were the collections made by another version or by hand?",
    grpc.StatusCode.NOT_FOUND: "The collection does not exist: was it deleted? A restart makes an empty one; "
    "replay the topics to fill it.",
    grpc.StatusCode.ALREADY_EXISTS: "Something of that name exists already: give it another name.",
    grpc.StatusCode.UNAUTHENTICATED: "Set the API key (qdrant.api_key, AFTERGLOW_QDRANT_API_KEY).",
    grpc.StatusCode.PERMISSION_DENIED: "This API key may not do that: use one with read and write access.",
    grpc.StatusCode.UNIMPLEMENTED: "This server does not offer the call: Qdrant 1.16 or newer is needed, "
    "on its gRPC port (6334 by default).",
    grpc.StatusCode.OUT_OF_RANGE: "One point alone is larger than the server, or a proxy before it, allows: "
    "raise its limit.",
}
"""The codes that no repetition cures, each with what to do. Every other code may pass by itself:
FAILED_PRECONDITION is a shard that is being moved, INTERNAL and UNKNOWN a server in trouble."""


class PermanentSinkError(Exception):
    """Qdrant refused a call for a reason that a repetition does not cure. Says where, why and what to do."""

    def __init__(self, collection: str, doing: str, failure: grpc.aio.AioRpcError, advice: str) -> None:
        self.collection = collection
        self.code = failure.code()
        super().__init__(f"{doing} in Qdrant collection {collection!r} was refused: {describe(failure)}. {advice}")


class PermanentReadError(PermanentSinkError):
    """A read was refused for good."""


class PermanentWriteError(PermanentSinkError):
    """A write was refused for good. Points before the refused one may have been applied."""


@dataclass(frozen=True, slots=True)
class Retry:
    """One transient failure, as told to `RetryPolicy.on_retry`."""

    doing: str
    collection: str
    attempt: int
    delay_seconds: float
    reason: str


def log_retry(retry: Retry) -> None:
    """Write one transient failure to this module's log, as a warning."""
    logger.warning(
        "%s in %s: %s (attempt %d, again in %.2f s)",
        retry.doing, retry.collection, retry.reason, retry.attempt, retry.delay_seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class RetryPolicy:
    """How to wait for a transient error to pass: exponential back-off with jitter.

    The n-th wait is drawn uniformly from the upper half of ``min(limit, first * 2^(n-1))``, so that workers
    that failed together do not come back together; a server that names a time (``retry-after``) is given it.
    """

    first_seconds: float = 0.05
    limit_seconds: float = 5.0
    attempts: int | None = None
    """How often a call is made before its error is raised. None: without end, as a worker wants it, which
    may not skip a batch; a reader with a person waiting sets a number."""
    on_retry: Callable[[Retry], None] = log_retry

    async def wait(self, doing: str, collection: str, attempt: int, failure: BaseException | str) -> None:
        """Wait before attempt `attempt` + 1 (the first attempt is 1)."""
        bound = min(self.limit_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 30))
        delay = random.uniform(bound / 2, bound)
        if isinstance(failure, ResourceExhaustedResponse):
            delay = max(delay, float(failure.retry_after_s))
        self.on_retry(Retry(doing, collection, attempt, delay, describe(failure)))
        await self.sleep(delay)

    async def sleep(self, seconds: float) -> None:
        """The clock: a test overrides it."""
        await asyncio.sleep(seconds)


TRANSIENT = (grpc.aio.AioRpcError, ResourceExhaustedResponse)
"""What a call over gRPC raises when Qdrant does not answer as wished."""


def is_too_large(failure: BaseException) -> bool:
    """Whether a message was larger than the server, the client or a proxy allows: to be cut, not repeated."""
    return (
        isinstance(failure, grpc.aio.AioRpcError)
        and failure.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
        and any(words in (failure.details() or "").lower() for words in ("larger than", "too large"))
    )


def permanent(
    failure: BaseException,
    collection: str,
    doing: str,
    kind: type[PermanentSinkError],
) -> PermanentSinkError | None:
    """The error to raise if `failure` does not pass by itself; None if it may."""
    if not isinstance(failure, grpc.aio.AioRpcError):
        return None
    if is_too_large(failure):
        return kind(collection, doing, failure, _ADVICE[grpc.StatusCode.OUT_OF_RANGE])
    advice = _ADVICE.get(failure.code())
    return kind(collection, doing, failure, advice) if advice else None


def describe(failure: BaseException | str) -> str:
    """A failure in one line."""
    if isinstance(failure, grpc.aio.AioRpcError):
        return f"{failure.code().name}: {failure.details()}"
    if isinstance(failure, ResourceExhaustedResponse):
        return f"RESOURCE_EXHAUSTED: {failure}, retry after {failure.retry_after_s} s"
    return str(failure)


async def until_answered(
    call: Callable[[], Awaitable[Answer]],
    *,
    doing: str,
    collection: str,
    retry: RetryPolicy,
    kind: type[PermanentSinkError] = PermanentReadError,
) -> Answer:
    """Make a call that may safely be repeated (a read), again and again until it is answered.

    Raises:
        PermanentSinkError: of the given kind; the call was refused for good.
        grpc.aio.AioRpcError, ResourceExhaustedResponse: the last failure, when `retry.attempts` are used up.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except TRANSIENT as failure:
            if (error := permanent(failure, collection, doing, kind)) is not None:
                raise error from failure
            if attempt == retry.attempts:
                raise
            await retry.wait(doing, collection, attempt, failure)
