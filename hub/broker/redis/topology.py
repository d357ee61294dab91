"""Which server keeps a channel: that of the URL, the one that Sentinel names, or that of a cluster's slot.

Sentinel and Cluster are asked by redis-py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError

from hub.broker.redis.connection import Access, Address, RedisConnectionError
from hub.errors import StartupError

SENTINEL_PORT: Final = 26379


class Topology(Protocol):
    """Where servers are. Before anything else it is refreshed."""

    access: Access
    sharded: bool

    async def refresh(self) -> None:
        """Learn anew where they are.

        Raises:
            RedisConnectionError: nobody who knows answers.
        """

    def addresses(self) -> Iterable[Address]:
        """All masters."""

    def address(self, name: bytes) -> Address:
        """The master that keeps a name."""

    async def close(self) -> None:
        """Let go of what is held."""


class Single:
    """One server, for ever."""

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


class Watched:
    """The master of a service that Sentinel watches."""

    sharded = False

    def __init__(self, sentinels: list[tuple[str, int]], service: str, access: Access, options: Any) -> None:
        self.access = access
        self._service = service
        self._sentinel = Sentinel(sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._address = Address()

    async def refresh(self) -> None:
        try:
            host, port = await self._sentinel.discover_master(self._service)
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisConnectionError(f"Sentinel: {error}") from None
        self._address = Address(host, int(port))

    def addresses(self) -> Iterable[Address]:
        return (self._address,)

    def address(self, name: bytes) -> Address:
        return self._address

    async def close(self) -> None:
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


class Cluster:
    """The masters of a Redis Cluster."""

    sharded = True

    def __init__(self, nodes: list[tuple[str, int]], access: Access, options: Any) -> None:
        self.access = access
        self._configured = [Address(*node) for node in nodes]
        self._options = options
        self._masters: dict[int, Address] = {}

    async def refresh(self) -> None:
        known = {*self._configured, *self._masters.values()}
        nodes = [ClusterNode(address.host, address.port) for address in known]
        client = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **self._options)
        try:
            async with client:
                slots = client.nodes_manager.slots_cache.items()
                masters = {slot: Address(node[0].host, int(node[0].port)) for slot, node in slots}
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            raise RedisConnectionError(f"the cluster: {error}") from None
        self._masters = masters

    def addresses(self) -> Iterable[Address]:
        return set(self._masters.values()) or {self._configured[0]}

    def address(self, name: bytes) -> Address:
        return self._masters.get(key_slot(name), self._configured[0])

    async def close(self) -> None:
        pass


def topology_of(url: str, timeout_s: float) -> Topology:
    """What a URL of the settings names.

    Raises:
        StartupError: it cannot be read.
    """
    parts = urlsplit(url)
    tls, _, way = parts.scheme.partition("+")
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, rest = parts.path.lstrip("/").partition("/") if way == "sentinel" else ("", "", "")
    first = hosts.split(",")[0]
    netloc = f"{credentials}@{first}" if credentials else first
    path = f"/{rest}" if way == "sentinel" else parts.path
    try:
        arguments: dict[str, Any] = dict(parse_url(urlunsplit((tls, netloc, path, parts.query, ""))))
    except ValueError as error:
        raise StartupError(f"redis.url: {error}") from None
    access = _access(arguments)
    if not way:
        where = ("host", "port", "path")
        return Single(Address(**{key: arguments[key] for key in where if key in arguments}), access)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if access.tls is not None:
        options |= {"ssl": True} | {key: arguments[key] for key in arguments if key.startswith("ssl_")}
    if way == "sentinel":
        if not service:
            raise StartupError("redis.url: Sentinel needs a service, as in redis+sentinel://host:26379/main")
        return Watched(_hosts(hosts, SENTINEL_PORT), service, access, options)
    if access.db:
        raise StartupError("redis.url: a cluster has no database but 0")
    options |= {"username": access.username or None, "password": access.password or None}
    return Cluster(_hosts(hosts, 6379), access, options)


def _access(arguments: dict[str, Any]) -> Access:
    tls = None
    if arguments.get("connection_class") is SSLConnection:
        given: dict[str, Any] = {"cert_reqs": "required", "check_hostname": True}
        given |= {key[4:]: value for key, value in arguments.items() if key.startswith("ssl_")}
        tls = RedisSSLContext(**given).get()
    return Access(
        arguments.get("username") or "", arguments.get("password") or "", int(arguments.get("db") or 0), tls
    )


def _hosts(netloc: str, port: int) -> list[tuple[str, int]]:
    hosts = []
    for each in netloc.split(","):
        parts = urlsplit(f"//{each}")
        hosts.append((parts.hostname or "localhost", parts.port or port))
    return hosts
