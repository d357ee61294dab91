"""Which clients may enter a node: its state, limits by address and by user, rates, and the queue."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from asyncio import Future
from typing import Final

from hub.core.channel.registry import Registry
from hub.core.overload import Step
from hub.node.boundary import Boundary
from hub.node.connection import Connection
from hub.node.queue import AdmissionTurns
from hub.node.state import DRAINING, NodeState
from hub.node.tasks import known
from hub.protocol.codes import Disconnect, Disconnects
from hub.settings import Settings
from hub.telemetry import LimitLog, Metrics

RETRY_AFTER_MIN_S: Final = 1
RETRY_AFTER_MAX_S: Final = 5

READABLE: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
"""For pages of any origin, who ask over HTTP: of a WebSocket that was refused they are shown nothing."""

BURST_S: Final = 0.25
"""The rate is one over about this long: so many seconds' worth may come at once."""

_IPV6_BITS: Final = 64
"""Of an IPv6 address, the part that one peer cannot choose at will."""


def retry_after() -> str:
    """A `Retry-After` in seconds, one of several: those who are refused together come back one by one."""
    return str(random.randint(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S))  # noqa: S311 - jitter


class AcceptRate:
    """A limit to connections in a second, on average, of which not all may come at once.

    Args:
        per_s: 0 for no limit.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._allowance = self._burst
        self._asked_at = 0.0

    def admit(self, now: float) -> bool:
        """Let one more come, if the rate allows; it counts then. Returns whether it may.

        Args:
            now: monotonic seconds.
        """
        if not self._per_s:
            return True
        self._allowance = min(self._burst, self._allowance + (now - self._asked_at) * self._per_s)
        self._asked_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True


class Admission:
    """Which clients may enter a node.

    Args:
        settings: the limits.
        state: of the node.
        registry: the users who are connected.
        boundary: records what letting a client in raises.
        metrics: count refusals by their reason.
    """

    def __init__(
        self,
        settings: Settings,
        state: NodeState,
        registry: Registry[Connection],
        boundary: Boundary,
        metrics: Metrics,
    ) -> None:
        self._server = settings.server
        self._user_max = settings.client.connections_per_user_and_node_max
        self._state = state
        self._registry = registry
        self._metrics = metrics
        self._log = LimitLog()
        self._proxies = [ipaddress.ip_network(proxy) for proxy in settings.server.trusted_proxies]
        self._counts: dict[str, int] = {}
        """Connections by the address that they count for."""
        self._address_of: dict[Connection, str] = {}
        self.turns: Final = AdmissionTurns(settings.server.handshakes_max, boundary)

    def refusal(self, address: str) -> str:
        """Why one more connection is refused: the node's state or a limit; empty where it is not.

        Args:
            address: of the peer, as the proxies before the node say; empty where it has none.
        """
        most = self._server.connections_per_address_max
        if not self._state.is_serving:
            reason = self._state.name
        elif most and self._counts.get(self._key(address), 0) >= most:
            reason = "connections_per_address_max"
            self._log.met(reason, most)
        else:
            return ""
        self._metrics.refusals.labels(reason).inc()
        return reason

    def entered(self, connection: Connection, address: str) -> None:
        """A connection was made."""
        if self._server.connections_per_address_max and (key := self._key(address)):
            self._address_of[connection] = key
            self._counts[key] = self._counts.get(key, 0) + 1

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        if key := self._address_of.pop(connection, ""):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    # A client that connects

    def enter(self) -> Future[Disconnect | None]:
        """Wait for a client's turn. Returns why it is refused, if it is."""
        queue = self.turns.connects
        if (refusal := self.closed()) or queue.admit():
            return known(refusal)
        loop = asyncio.get_running_loop()
        turn: Future[Disconnect | None] = loop.create_future()

        def go() -> None:
            if not turn.done():
                turn.set_result(None)

        if not queue.wait(go, loop.time()):
            self._metrics.refusals.labels("handshakes_max").inc()
            self._log.met("handshakes_max", self._server.handshakes_max)
            return known(Disconnects.TOO_MANY_REQUESTS)
        return turn

    def admit(self, user: str, client: str) -> Disconnect | None:
        """Let one more connection of a user in. Returns why it is refused, if it is.

        Args:
            user: whose it is.
            client: id of the client that is back, if one is: its connection replaces the one it had.
        """
        if refusal := self.closed():
            return refusal
        most = self._user_max
        present = self._registry.users.get(user, {})
        if most and user and len(present) - (client in present) >= most:
            self._metrics.refusals.labels("connections_per_user_and_node_max").inc()
            self._log.met("connections_per_user_and_node_max", most)
            return Disconnects.CONNECTION_LIMIT
        return None

    def closed(self) -> Disconnect | None:
        """What a client is told where the node lets nobody in; None where it does."""
        if self._state.phase == DRAINING:
            return Disconnects.SHUTDOWN
        return Disconnects.TOO_MANY_REQUESTS if self._state.step >= Step.ADMISSION else None

    def _key(self, address: str) -> str:
        """What an address is counted under; empty for a proxy's own and for what is none."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return ""
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        if any(ip in proxies for proxies in self._proxies):
            return ""
        if isinstance(ip, ipaddress.IPv4Address):
            return str(ip)
        return str(ipaddress.IPv6Network((int(ip), _IPV6_BITS), strict=False))
