"""Who may open a connection: limits for an address and for the rate at which they come."""

from __future__ import annotations

import ipaddress
import random
from typing import Final

from hub.settings import ServerSettings

RETRY_AFTER_MIN_S: Final = 1
RETRY_AFTER_MAX_S: Final = 5

BURST_S: Final = 0.25
"""The rate is one over about this long: so many seconds' worth may come at once."""

_IPV6_BITS: Final = 64
"""Of an IPv6 address, the part that one peer cannot choose at will."""


def retry_after() -> str:
    """A `Retry-After` in seconds, one of several: those who are refused together come back one by one."""
    return str(random.randint(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S))  # noqa: S311 - jitter


class Admission:
    """The connections of a node, counted by address.

    Args:
        limits: that hold for them.
    """

    def __init__(self, limits: ServerSettings) -> None:
        self._limits = limits
        self._proxies = [ipaddress.ip_network(proxy) for proxy in limits.trusted_proxies]
        self._of_address: dict[str, int] = {}
        self._addresses: dict[object, str] = {}
        self._burst = max(1.0, limits.accepts_per_s * BURST_S)
        self._allowance = self._burst
        self._asked_at = 0.0

    def refusal(self, address: str, now: float) -> str:
        """The limit that stands against one more handshake; empty where it may go on.

        Args:
            address: of the peer, as the proxies before the node say; empty where it has none.
            now: monotonic seconds.
        """
        most = self._limits.connections_per_address_max
        if most and self._of_address.get(self._key(address), 0) >= most:
            return "connections_per_address_max"
        if rate := self._limits.accepts_per_s:
            self._allowance = min(self._burst, self._allowance + (now - self._asked_at) * rate)
            self._asked_at = now
            if self._allowance < 1.0:
                return "accepts_per_s"
            self._allowance -= 1.0
        return ""

    def entered(self, connection: object, address: str) -> None:
        """A connection was made."""
        if self._limits.connections_per_address_max and (key := self._key(address)):
            self._addresses[connection] = key
            self._of_address[key] = self._of_address.get(key, 0) + 1

    def left(self, connection: object) -> None:
        """A connection is gone."""
        if key := self._addresses.pop(connection, ""):
            self._of_address[key] -= 1
            if not self._of_address[key]:
                del self._of_address[key]

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
