"""A Qdrant client as Afterglow needs it: gRPC only, answers uncompressed, deadlines on every call."""

from typing import Any

import grpc
from qdrant_client import AsyncQdrantClient

DEFAULT_TIMEOUT_SECONDS = 5.0

_GRPC_OPTIONS = {
    # Decompressing answers costs ten times what reading them from the network does (150 ms against 13 ms
    # for 256 states of 16 KB). The bit set holds one algorithm: none.
    "grpc.compression_enabled_algorithms_bitset": 1,
    # Sub-channels are otherwise shared by the process, and a new client inherits the back-off of the last.
    "grpc.use_local_subchannel_pool": 1,
    # Reconnect soon after a server came back: by default the wait grows to two minutes.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2000,
    # Notice a peer that vanished without closing (a cut cable, a frozen host) between calls, too.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
}


def connect(
    address: str,
    *,
    api_key: str | None = None,
    tls: bool = False,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> AsyncQdrantClient:
    """A client for the gRPC service at `address`. Connects at the first call, not here.

    Args:
        address: ``host:port`` of Qdrant's gRPC service (by default port 6334, not the REST port 6333);
            an IPv6 host in brackets.
        api_key: sent with every call. Without `tls` it crosses the network readable, and the client warns.
        tls: whether to speak TLS, with the certificates the host trusts.
        timeout_seconds: how long a call may take. The calls of this package use exactly this; those made
            on the client itself use it rounded up to a whole second.

    Returns:
        A client bound to the event loop that makes the first call. Close it with ``await client.close()``.

    Raises:
        ValueError: the address is no ``host:port``, or the time-out is not positive.
    """
    host, port = _split_address(address)
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be greater than zero")
    return AsyncQdrantClient(
        host=host,
        grpc_port=port,
        prefer_grpc=True,
        https=tls,
        api_key=api_key,
        timeout=timeout_seconds,  # type: ignore[arg-type]  # annotated int, rounded up by the client
        grpc_options=dict(_GRPC_OPTIONS),
        check_compatibility=False,  # it asks the REST port, which need not be reachable
    )


def channel_of(client: AsyncQdrantClient) -> grpc.aio.Channel:
    """One of the client's own channels, the next in turn: with its credentials, API key and options."""
    _ = client.grpc_points  # makes the channels at first, and takes the next in turn
    remote: Any = client._client
    channel: grpc.aio.Channel = remote._grpc_channel_pool[remote._grpc_client_next_index]
    return channel


def timeout_of(client: AsyncQdrantClient) -> float:
    """Seconds that one call of this client may take, as given to `connect`."""
    timeout = client.init_options.get("timeout")
    return float(timeout) if timeout is not None else DEFAULT_TIMEOUT_SECONDS


def _split_address(address: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"{address!r} is no address of a Qdrant gRPC service; write host:port, for example 127.0.0.1:6334"
        )
    if "/" in host or (":" in host and not host.startswith("[")):
        raise ValueError(
            f"{address!r} is no address of a Qdrant gRPC service; write host:port without a scheme, "
            "an IPv6 host in brackets, for example [::1]:6334"
        )
    return host, int(port)
