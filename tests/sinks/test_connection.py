import warnings
from collections.abc import AsyncIterator

import grpc
import pytest

from sinks.connection import channel_of, connect, timeout_of


class Echo(grpc.GenericRpcHandler):
    """A service that answers any request with itself, and remembers what came with it."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        return request


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, str]]:
    """A service, and its address."""
    server, service = grpc.aio.server(), Echo()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_bytes_go_through_a_channel_as_they_are_and_with_the_api_key(echo: tuple[Echo, str]) -> None:
    service, address = echo
    with warnings.catch_warnings(action="ignore"):  # that the key crosses the network readable
        client = connect(address, api_key="open-sesame")
    for _ in range(4):  # each of its channels, and the first again
        assert await channel_of(client).unary_unary("/qdrant.Points/Upsert")(b"\x01\x02") == b"\x01\x02"
        assert service.metadata["api-key"] == "open-sesame"
        service.metadata = {}
    await client.close()


async def test_a_call_of_this_package_may_take_exactly_what_was_said() -> None:
    client = connect("127.0.0.1:6334", timeout_seconds=0.25)
    assert timeout_of(client) == 0.25
    await client.close()


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", ":6334", "localhost:grpc", "localhost:0", "localhost:65536"]
)
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="write host:port, for example"):
        connect(address)


@pytest.mark.parametrize("address", ["http://localhost:6334", "::1:6334"])
def test_a_scheme_or_a_bare_ipv6_host_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="without a scheme, an IPv6 host in brackets"):
        connect(address)


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_seconds is 0"):
        connect("localhost:6334", timeout_seconds=0)
