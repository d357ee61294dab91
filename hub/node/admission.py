"""Who may open a connection: how many an address has, and the rate at which they come."""

from __future__ import annotations

import ipaddress
import random
from typing import Final

from hub.settings import ServerSettings

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


class Rate:
    """So many in a second, on average, and not all of them at once.

    Args:
        per_s: 0 for no limit.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._allowance = self._burst
        self._asked_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether one more may come, which then counts.

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


class Addresses:
    """The connections of a node, counted by the address that they come from.

    Args:
        limits: that hold for them.
    """

    def __init__(self, limits: ServerSettings) -> None:
        self._most = limits.connections_per_address_max
        self._proxies = [ipaddress.ip_network(proxy) for proxy in limits.trusted_proxies]
        self._counts: dict[str, int] = {}
        self._of: dict[object, str] = {}

    def has_room(self, address: str) -> bool:
        """Whether one more may come.

        Args:
            address: of the peer, as the proxies before the node say; empty where it has none.
        """
        return not self._most or self._counts.get(self._key(address), 0) < self._most

    def entered(self, connection: object, address: str) -> None:
        """A connection was made."""
        if self._most and (key := self._key(address)):
            self._of[connection] = key
            self._counts[key] = self._counts.get(key, 0) + 1

    def left(self, connection: object) -> None:
        """A connection is gone."""
        if key := self._of.pop(connection, ""):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

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
