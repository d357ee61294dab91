"""What all connections of one server share: its limits, and where what goes wrong with a peer is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from hub.node.admission import AcceptRate
from hub.node.boundary import Boundary
from hub.node.node import Node
from hub.node.queue import AdmissionQueue, AdmissionTurns
from hub.node.state import DRAINING
from hub.protocol.reader import FrameFault
from hub.server.listener import sockets_max
from hub.settings import Settings
from hub.telemetry import LimitLog, Metrics, RateLimitedLog, get_logger

_log = get_logger("hub.server")


class Edge:
    """The limits of one server, and the state of the hubs behind it.

    Args:
        settings: with the limits.
        nodes: of the hubs in the app. While none of them serves, the server refuses WebSockets itself; the
            first counts the refusals. Empty for an app without a hub.
    """

    def __init__(self, settings: Settings, nodes: Sequence[Node] = ()) -> None:
        client, server = settings.client, settings.server
        self.connections_max = sockets_max(server.connections_max)
        self.handshake_timeout_s = server.handshake_timeout_s
        self.handshakes_max = server.handshakes_max
        self.accepts_per_s = server.accepts_per_s
        self.message_bytes_max = client.message_bytes_max
        self.fragments_max = client.fragments_max
        self.compression = server.compression
        self.rate = AcceptRate(server.accepts_per_s)
        self.refusals = 0
        """Sockets over `connections_max` that wait for their answer."""
        self.failed = (nodes[0].boundary if nodes else Boundary(Metrics())).failed
        """Records an exception that ends a connection: `failed(place, error)`."""
        self._nodes = nodes
        self._turns = AdmissionTurns(server.handshakes_max)
        self._limit_log = LimitLog()
        self._log = RateLimitedLog(_log)

    @property
    def queue(self) -> AdmissionQueue:
        """Where handshakes wait: the queue of the first node, in its present life."""
        return (self._nodes[0].admission.turns if self._nodes else self._turns).handshakes

    @property
    def is_draining(self) -> bool:
        """Whether the hubs ask their clients to connect elsewhere."""
        return bool(self._nodes) and all(node.state == DRAINING for node in self._nodes)

    def reject(self, now: float) -> bool:
        """Refuse a handshake where none is welcome, and count it.

        Args:
            now: monotonic seconds.

        Returns:
            Whether the handshake is to be refused.
        """
        for node in self._nodes:
            if node.is_serving:
                break
        else:
            if self._nodes:
                self._count(self._nodes[0].state)
                return True
        if self.queue.should_reject(now):
            self.reject_for("handshakes_max", self.handshakes_max)
            return True
        return False

    def admit(self, now: float) -> bool:
        """Reserve a place for one more handshake. It goes on at once, or after a wait in the queue.

        A refusal here costs a quarter of a refusal by the app.

        Args:
            now: monotonic seconds.

        Returns:
            Whether the handshake may go on.
        """
        if self.reject(now):
            return False
        if not self.rate.admit(now):
            self.reject_for("accepts_per_s", self.accepts_per_s)
            return False
        return True

    def reject_for(self, limit: str, value: float) -> None:
        """Log and count that a peer met a limit, and is refused.

        Args:
            limit: the name of the setting.
            value: of the limit.
        """
        self._limit_log.met(limit, value)
        self._count(limit)

    def log_fault(self, fault: FrameFault) -> None:
        """Log that a client broke the WebSocket protocol."""
        self._log.info("client.fault", kind=str(fault.code), code=fault.code, reason=fault.reason)

    def _count(self, reason: str) -> None:
        if self._nodes:
            self._nodes[0].metrics.refusals.labels(reason).inc()
