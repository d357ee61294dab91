"""The metrics of a hub, for Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

STATES: Final = ("healthy", "degraded", "overloaded", "draining")


class Metrics:
    """The metrics of one hub, in a registry of its own, each called `hub_…`.

    Counters, gauges and histograms are attributes. What is counted for each message is a plain number, which
    costs a twentieth of a counter: `received` and `sent`, by kind, `bytes_in` and `bytes_out`.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="hub", registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="hub", registry=registry)

        def seconds(name: str, text: str, *buckets: float) -> Histogram:
            return Histogram(name, text, namespace="hub", registry=registry, buckets=buckets)

        self.connections = gauge("connections", "Open connections.")
        self.clients = gauge("clients", "Connections that were let in.")
        self.users = gauge("users", "Different users among the clients.")
        self.subscriptions = gauge("subscriptions", "Subscriptions of all clients.")
        self.channels = gauge("channels", "Channels with a subscriber.")
        self.state = Enum(
            "state", "The named state of the node.", states=STATES, namespace="hub", registry=registry
        )
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the event loop is, on average.")
        self.load_step = gauge("load_step", "What an overloaded node gave up: 0 for nothing, to 3.")
        self.memory_bytes = gauge("memory_bytes", "Resident memory of the process.")
        self.refusals = counter(
            "refusals",
            "Peers that were refused: by the state of the node, the limit that they met, or what was wrong"
            " (`api_key`, `bad_request`, `broker`, `channel_name`, `handler`, `no_login`, `not_allowed`,"
            " `not_subscribed`, `origin`, `switched_off`, `token`, `token_in_url`, `unknown_channel`).",
            "reason",
        )
        self.connects = counter("connects", "Clients that were let in.")
        self.reconnects = counter(
            "reconnects", "Clients that came with a reconnect token, by what came of it.", "outcome"
        )
        self.disconnects = counter("disconnects", "Connections that ended, by disconnect code.", "code")
        self.errors = counter("errors", "Error replies, by error code.", "code")
        self.recoveries = counter("recoveries", "Attempts of subscribers to recover.", "recovered")
        self.outbox_bytes = gauge("outbox_bytes", "Bytes that wait for clients that read slowly.")
        self.dropped = counter(
            "dropped",
            "Publications given up for clients that read slowly, by namespace and rule.",
            *("namespace", "policy"),
        )
        self.api_requests = counter("api_requests", "Calls of the server API, by method.", "method")
        self.boundary_errors = counter(
            "boundary_errors", "Exceptions that ended at the boundary of the node, by where.", "place"
        )
        self.bus_messages = counter(
            "bus_messages", "Messages between nodes, by type and by what came of them.", "type", "outcome"
        )
        self.broker_errors = counter("broker_errors", "Calls of the broker that failed.")
        self.publish_to_send_seconds = seconds(
            "publish_to_send_seconds",
            "From a publish to its last write to a subscriber of this node.",
            *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
        )
        self.ping_pong_seconds = seconds(
            "ping_pong_seconds",
            "From a ping of the server to the client's answer.",
            *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        )
        self.received: defaultdict[str, int] = defaultdict(int)
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.deltas: Callable[[], int] = lambda: 0
        """How many deltas were computed; asked when metrics are."""
        self.bytes_in = 0
        self.bytes_out = 0

    def bind(self, **functions: Callable[[], float]) -> None:
        """Let gauges be read from functions, by name: `bind(connections=lambda: len(self.connections))`."""
        for name, function in functions.items():
            gauge = getattr(self, name)
            assert isinstance(gauge, Gauge), f"{name} is no gauge"
            gauge.set_function(function)

    def render(self) -> tuple[bytes, str]:
        """All of them in Prometheus' text format, and its content type."""
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """What the registry holds, without the times of creation, which double the series for nothing."""
        yield from self._tallies()
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def _tallies(self) -> Iterator[Metric]:
        text = "Commands from clients, by method."
        received = CounterMetricFamily("hub_messages_in", text, labels=["type"])
        for kind, count in self.received.items():
            received.add_metric([kind], count)
        text = "Replies and pushes to clients, by kind."
        sent = CounterMetricFamily("hub_messages_out", text, labels=["type"])
        for kind, count in self.sent.items():
            sent.add_metric([kind], count)
        yield from (received, sent)
        yield CounterMetricFamily("hub_deltas", "Deltas of publications that were computed.", self.deltas())
        yield CounterMetricFamily("hub_bytes_in", "Bytes of messages from clients.", self.bytes_in)
        yield CounterMetricFamily("hub_bytes_out", "Bytes of frames to clients.", self.bytes_out)
