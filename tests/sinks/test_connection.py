import pytest

from sinks.connection import connect, timeout_of


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
