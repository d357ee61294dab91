"""Which server keeps a channel: the one of the URL, the one that Sentinel names, or that of a cluster's
slot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from hub.broker.redis._redis_py import RedisUrl, Sentinels, key_slot, masters_by_slot
from hub.broker.redis.connection import Access, Address
from hub.errors import StartupError

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379


class Topology(Protocol):
    """Where the servers are. `refresh` comes before anything else."""

    access: Access
    sharded: bool

    async def refresh(self) -> None:
        """Ask again where the servers are.

        Raises:
            RedisConnectionError: nobody who knows answers.
        """

    def addresses(self) -> Iterable[Address]:
        """All masters."""

    def address(self, name: bytes) -> Address:
        """The master that keeps a name."""

    async def close(self) -> None:
        """Close the connections that asking made."""


class SingleServer:
    """One server, which never changes."""

    sharded = False

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self.access = access

    async def refresh(self) -> None:
        pass

    def addresses(self) -> Iterable[Address]:
        return (self._address,)

    def address(self, name: bytes) -> Address:
        return self._address

    async def close(self) -> None:
        pass


class SentinelService:
    """The master of a service that Sentinel watches."""

    sharded = False

    def __init__(self, sentinels: Sentinels, service: str, access: Access) -> None:
        self.access = access
        self._service = service
        self._sentinels = sentinels
        self._address = Address()

    async def refresh(self) -> None:
        self._address = await self._sentinels.master_of(self._service)

    def addresses(self) -> Iterable[Address]:
        return (self._address,)

    def address(self, name: bytes) -> Address:
        return self._address

    async def close(self) -> None:
        await self._sentinels.close()


class ClusterSlots:
    """The masters of a Redis Cluster."""

    sharded = True

    def __init__(self, configured: list[Address], access: Access, options: dict[str, Any]) -> None:
        self.access = access
        self._configured = configured
        self._options = options
        self._masters: dict[int, Address] = {}

    async def refresh(self) -> None:
        known = {*self._configured, *self._masters.values()}
        self._masters = await masters_by_slot(known, self._options)

    def addresses(self) -> Iterable[Address]:
        return set(self._masters.values()) or {self._configured[0]}

    def address(self, name: bytes) -> Address:
        return self._masters.get(key_slot(name), self._configured[0])

    async def close(self) -> None:
        pass


def topology_of(url: str, timeout_s: float) -> Topology:
    """The topology that a URL of the settings names.

    Args:
        timeout_s: seconds that asking Sentinel or the cluster may take.

    Raises:
        StartupError: the URL is not valid.
    """
    parts = urlsplit(url)
    tls, _, way = parts.scheme.partition("+")
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, rest = parts.path.lstrip("/").partition("/") if way == "sentinel" else ("", "", "")
    first = hosts.split(",")[0]
    netloc = f"{credentials}@{first}" if credentials else first
    path = f"/{rest}" if way == "sentinel" else parts.path
    try:
        server = RedisUrl(urlunsplit((tls, netloc, path, parts.query, "")))
        access = server.access
    except ValueError as error:
        raise StartupError(f"redis.url: {error}") from None
    if not way:
        return SingleServer(server.address, access)
    options = server.client_options(timeout_s)
    if way == "sentinel":
        if not service:
            raise StartupError("redis.url: Sentinel needs a service, as in redis+sentinel://host:26379/main")
        return SentinelService(Sentinels(_addresses(hosts, SENTINEL_PORT), options), service, access)
    if access.db:
        raise StartupError("redis.url: a cluster has no database but 0")
    options |= {"username": access.username or None, "password": access.password or None}
    return ClusterSlots(_addresses(hosts, REDIS_PORT), access, options)


def _addresses(netloc: str, port: int) -> list[Address]:
    addresses = []
    for host in netloc.split(","):
        parts = urlsplit(f"//{host}")
        addresses.append(Address(parts.hostname or "localhost", parts.port or port))
    return addresses
