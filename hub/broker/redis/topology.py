"""Which server keeps a channel: the one of the URL, the one that Sentinel names, or that of a cluster's
slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from hub.broker.redis._redis_py import client_options, key_slot, masters_by_slot
from hub.broker.redis.connection import Access, Address, RedisConnectionError, RefusedError, ask
from hub.errors import StartupError
from hub.redis_url import parse


class Topology(Protocol):
    """Where the servers are. `refresh` comes before anything else."""

    access: Access
    sharded: bool

    async def refresh(self) -> None:
        """Ask again where the servers are.

        Raises:
            RefusedError: a Sentinel refuses the credentials.
            RedisConnectionError: no Sentinel, or no server of the cluster, answers.
        """

    def addresses(self) -> Iterable[Address]:
        """All masters."""

    def address(self, name: bytes) -> Address:
        """The master that keeps a name."""


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


class SentinelService:
    """The master of a service that Sentinels watch.

    Args:
        sentinels: where the Sentinels are.
        service: name of the service.
        access: to the data servers.
        sentinel_access: to the Sentinels.
        timeout_s: seconds that each Sentinel may take.
    """

    sharded = False

    def __init__(
        self,
        sentinels: Sequence[Address],
        service: str,
        access: Access,
        sentinel_access: Access,
        timeout_s: float,
    ) -> None:
        self.access = access
        self._sentinels = list(sentinels)
        self._service = service
        self._sentinel_access = sentinel_access
        self._timeout_s = timeout_s
        self._address = Address()

    async def refresh(self) -> None:
        errors: list[RedisConnectionError] = []
        for sentinel in list(self._sentinels):
            try:
                self._address = await self._ask(sentinel)
            except RedisConnectionError as error:
                errors.append(error)
            else:
                # The next question goes to the Sentinel that answered.
                self._sentinels.sort(key=lambda each: each != sentinel)
                return
        refused = any(isinstance(error, RefusedError) for error in errors)
        reasons = "; ".join(dict.fromkeys(map(str, errors)))
        raise (RefusedError if refused else RedisConnectionError)(f"Sentinel {reasons}")

    async def _ask(self, sentinel: Address) -> Address:
        question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service.encode())
        [reply] = await ask(sentinel, self._sentinel_access, [question], self._timeout_s)
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return Address(host.decode(errors="replace"), int(port))
        raise RedisConnectionError(f"{sentinel}: knows no service called {self._service}")

    def addresses(self) -> Iterable[Address]:
        return (self._address,)

    def address(self, name: bytes) -> Address:
        return self._address


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


def topology_of(url: str, timeout_s: float) -> Topology:
    """The topology that a URL of the settings names.

    Args:
        timeout_s: seconds that asking Sentinel or the cluster may take.

    Raises:
        StartupError: the URL is not valid, or a certificate that it names cannot be read.
    """
    try:
        parsed = parse(url)
        tls = parsed.tls_context()
    except ValueError as error:
        raise StartupError(f"redis.url: {error}") from None
    access = Access(parsed.username, parsed.password, parsed.db, tls)
    if parsed.path:
        return SingleServer(Address(path=parsed.path), access)
    addresses = [Address(host, port) for host, port in parsed.hosts]
    if parsed.way == "sentinel":
        sentinel_access = Access(parsed.sentinel_username, parsed.sentinel_password, tls=tls)
        return SentinelService(addresses, parsed.service, access, sentinel_access, timeout_s)
    if parsed.way == "cluster":
        return ClusterSlots(addresses, access, client_options(parsed, timeout_s))
    return SingleServer(addresses[0], access)
