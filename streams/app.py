"""The Faust app of one worker: which topics it reads, as which consumer group, and how it hands events over.

Faust gives us partitions, rebalances and commits, and nothing else: no tables, no changelog, no web server. An agent
here only puts events into an intake; `streams.pipeline` takes them from there. An agent that ends is a failure of the
worker: Faust would start it anew, silently, without the events that it had at hand.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

import faust
from faust.types import EventT

from streams.driver import QuietMonitor, Transport
from streams.pipeline import Intake
from streams.settings import Kafka, Settings
from streams.topics import TopicPartition

METADATA_AGE_MS: Final = 5000
"""aiokafka (0.14) doesn't repeat a look at the topics that failed, as beside a broker that starts: if the member that
leads the group knows of no topics, nobody gets partitions until the next look, by default for five minutes."""

_NEVER_SECONDS: Final = 10 * 365 * 86_400.0


class AgentStopped(RuntimeError):
    """A Faust agent ended while its worker was to go on; the cause, where there was one, is `__cause__`."""


def create_app(
    settings: Settings,
    *,
    group: str,
    events: Intake[EventT[bytes]],
    products: Intake[EventT[bytes]],
    on_assignment: Callable[[frozenset[TopicPartition]], None],
    on_failure: Callable[[AgentStopped], None],
) -> faust.App:
    """The app, with one agent over searches and purchases and one over products.

    `on_assignment` hears which partitions are this worker's, after every rebalance.
    `on_failure` is to stop the process: an agent has ended, and hands nothing over any more.
    """
    kafka = settings.kafka
    app = _App(
        group,
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(kafka),
        autodiscover=False,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_AGE_MS,
        broker_commit_interval=1.0,
        broker_max_poll_records=5000,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=2.0,
        broker_request_timeout=30.0,
        broker_rebalance_timeout=10.0,
        stream_wait_empty=False,
        # Faust calls a topic without events stuck after five minutes, and says so every few seconds.
        stream_processing_timeout=_NEVER_SECONDS,
        broker_commit_livelock_soft_timeout=_NEVER_SECONDS,
        stream_buffer_maxsize=settings.worker.buffer_events,
        worker_redirect_stdouts=False,
        Monitor=QuietMonitor,
    )
    by_user = app.topic(settings.topics.searches, settings.topics.purchases, key_type=bytes, value_type=bytes)
    by_product = app.topic(settings.topics.products, key_type=bytes, value_type=bytes)

    async def hand_over(stream: faust.StreamT[bytes], intake: Intake[EventT[bytes]], what: str) -> None:
        cause: BaseException | None = None
        try:
            async for event in stream.noack().events():
                await intake.put(event)
        except BaseException as error:
            if app.should_stop or not isinstance(error, Exception | asyncio.CancelledError):
                raise
            cause = error
        if app.should_stop:
            return
        stopped = AgentStopped(
            f"the agent that takes in {what} stopped ({'its stream ended' if cause is None else repr(cause)}): start "
            "again, and its events are read again"
        )
        stopped.__cause__ = cause
        on_failure(stopped)
        await asyncio.Event().wait()  # an agent that returned would be started anew

    async def hand_over_events(stream: faust.StreamT[bytes]) -> None:
        await hand_over(stream, events, "searches and purchases")

    async def hand_over_products(stream: faust.StreamT[bytes]) -> None:
        await hand_over(stream, products, "products")

    app.agent(by_user, name="events", concurrency=1)(hand_over_events)
    app.agent(by_product, name="products", concurrency=1)(hand_over_products)

    async def assigned(_app: faust.App, assigned: set[Any], **_: object) -> None:
        on_assignment(frozenset((tp.topic, tp.partition) for tp in assigned))

    app.on_partitions_assigned.connect(assigned, weak=False)
    return app


class _App(faust.App):  # type: ignore[misc]
    def _create_directories(self) -> None:
        """None: there are no tables, and Faust would leave empty folders in the current directory."""

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


def _credentials(kafka: Kafka) -> faust.types.auth.CredentialsArg | None:
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = None
    if kafka.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.ssl_ca_location or None)
        if kafka.ssl_certificate_location:
            context.load_cert_chain(
                kafka.ssl_certificate_location,
                kafka.ssl_key_location or None,
                kafka.ssl_key_password.reveal() or None,
            )
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username,
        password=kafka.sasl_password.reveal(),
        mechanism=kafka.sasl_mechanism or "PLAIN",
        ssl_context=context,
    )
