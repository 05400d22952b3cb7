"""A store that decides conditions as Qdrant does, and fails on cue."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto

import grpc
from qdrant_client import grpc as qdrant
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from sinks.retry import Retry, RetryPolicy


class Turn(Enum):
    """What happens at the next call, an upsert or a read. When the script is over, calls succeed."""

    SUCCEED = auto()
    LOSE_THE_ANSWER = auto()  # done, but the caller gets a time-out
    BE_LATE = auto()  # the caller gets a time-out; an upsert is applied at some later turn
    ANSWER_WAIT_TIMEOUT = auto()  # likewise, but as Qdrant's own answer
    BE_UNAVAILABLE = auto()  # not done
    LIMIT_THE_RATE = auto()  # not done: come back in 7 seconds
    REFUSE = auto()  # not done, for good
    RIVAL_WRITES = auto()  # somebody else replaces every stored point first, then the call succeeds
    LATE_ONES_LAND = auto()  # every late upsert is applied first, then the call succeeds


@dataclass
class ConditionalStore:
    """The gRPC points service, as far as writes go, and the client and the channel that lead to it."""

    script: deque[Turn] = field(default_factory=deque)
    message_limit: int = 2**62
    points: dict[str, qdrant.PointStruct] = field(default_factory=dict)
    late: list[qdrant.UpsertPoints] = field(default_factory=list)
    requests: list[qdrant.UpsertPoints] = field(default_factory=list)
    heeds_conditions: bool = True
    last_read: dict[str, int | None] = field(default_factory=dict)
    reads: list[list[str]] = field(default_factory=list)
    replaced: list[tuple[int | None, int]] = field(default_factory=list)
    """Every version that was written, with the one it replaced."""
    rival_versions: int = 2**53 - 1

    init_options = {"timeout": 5.0}  # noqa: RUF012 - the client's attribute

    _grpc_client_next_index = 0

    @property
    def grpc_points(self) -> "ConditionalStore":
        return self

    @property
    def _client(self) -> "ConditionalStore":
        return self

    @property
    def _grpc_channel_pool(self) -> "list[ConditionalStore]":
        return [self]

    def unary_unary(
        self, method: str, response_deserializer: object
    ) -> Callable[[bytes, float], Awaitable[qdrant.PointsOperationResponse]]:
        assert method == "/qdrant.Points/Upsert"

        def call(request: bytes, timeout: float) -> Awaitable[qdrant.PointsOperationResponse]:
            return self.Upsert(qdrant.UpsertPoints.FromString(request), timeout)

        return call

    def version(self, id_: str) -> int | None:
        return self.points[id_].payload["version"].integer_value if id_ in self.points else None

    async def Upsert(self, request: qdrant.UpsertPoints, timeout: float) -> qdrant.PointsOperationResponse:  # noqa: N802
        self.requests.append(request)
        if request.ByteSize() > self.message_limit:
            raise error(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)")
        turn = self._take_turn()
        if turn in (Turn.BE_LATE, Turn.ANSWER_WAIT_TIMEOUT):
            self.late.append(request)
        else:
            self.apply(request)
        self._fail(turn)
        status = qdrant.UpdateStatus.WaitTimeout if turn is Turn.ANSWER_WAIT_TIMEOUT else qdrant.UpdateStatus.Completed
        return qdrant.PointsOperationResponse(result=qdrant.UpdateResult(status=status))

    async def Get(self, request: qdrant.GetPoints, timeout: float) -> qdrant.GetResponse:  # noqa: N802
        self._fail(self._take_turn())
        ids = [i.uuid for i in request.ids]
        self.reads.append(ids)
        self.last_read |= {i: self.version(i) for i in ids}
        return qdrant.GetResponse(
            result=[
                qdrant.RetrievedPoint(
                    id=self.points[i].id,
                    payload=dict(self.points[i].payload),
                    vectors=qdrant.VectorsOutput.FromString(self.points[i].vectors.SerializeToString()),
                )
                for i in ids
                if i in self.points
            ]
        )

    def apply(self, request: qdrant.UpsertPoints) -> None:
        (condition,) = request.update_filter.must
        assert condition.field.key == "version"
        allowed = set(condition.field.match.integers.integers)
        for point in request.points:
            before = self.version(point.id.uuid)
            # A field that is missing matches no condition; here it reads as 0.
            if before is None or (before != 0 and before in allowed) or not self.heeds_conditions:
                self.points[point.id.uuid] = point
                self.replaced.append((before, point.payload["version"].integer_value))

    def land_late_ones(self) -> None:
        while self.late:
            self.apply(self.late.pop())

    def _take_turn(self) -> Turn:
        turn = self.script.popleft() if self.script else Turn.SUCCEED
        if turn is Turn.LATE_ONES_LAND:
            self.land_late_ones()
        if turn is Turn.RIVAL_WRITES:
            for point in self.points.values():
                point.payload["version"].integer_value = self.rival_versions
                self.rival_versions -= 1
        if turn is Turn.BE_UNAVAILABLE:
            raise error(grpc.StatusCode.UNAVAILABLE, "connection refused")
        if turn is Turn.LIMIT_THE_RATE:
            raise ResourceExhaustedResponse("too many writes", retry_after_s=7)
        if turn is Turn.REFUSE:
            raise error(grpc.StatusCode.INVALID_ARGUMENT, "Vector dimension error: expected dim: 384, got 2")
        return turn

    @staticmethod
    def _fail(turn: Turn) -> None:
        if turn in (Turn.LOSE_THE_ANSWER, Turn.BE_LATE):
            raise error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


class Unhurried(RetryPolicy):
    """Waits by noting down how long it would have."""

    def __init__(self, attempts: int | None = None) -> None:
        self.retries: list[Retry] = []
        self.slept: list[float] = []
        super().__init__(attempts=attempts, on_retry=self.retries.append)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
