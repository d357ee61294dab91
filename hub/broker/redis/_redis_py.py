"""Every use of redis-py: URLs, TLS, Sentinel, the slots of a cluster. Nothing else imports redis-py.

Some of what is used here is not documented by redis-py. `tests/unit/test_redis_py.py` names each such part,
so that an upgrade that changes one fails there.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot as key_slot

from hub.broker.redis.connection import Access, Address, RedisConnectionError

_TLS_DEFAULTS: Final = {"cert_reqs": "required", "check_hostname": True}


class RedisUrl:
    """A URL of one server, as redis-py reads it.

    Args:
        url: `redis://`, `rediss://` or `unix://`.

    Raises:
        ValueError: the URL is not valid.
    """

    def __init__(self, url: str) -> None:
        self._arguments: Final[dict[str, Any]] = dict(parse_url(url))

    @property
    def address(self) -> Address:
        given = self._arguments
        return Address(**{key: given[key] for key in ("host", "port", "path") if key in given})

    @property
    def access(self) -> Access:
        given = self._arguments
        return Access(
            given.get("username") or "", given.get("password") or "", int(given.get("db") or 0), self._tls()
        )

    def client_options(self, timeout_s: float) -> dict[str, Any]:
        """The arguments of a redis-py client that asks once and does not retry."""
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
        }
        if self._is_tls:
            ssl_options = {key: value for key, value in self._arguments.items() if key.startswith("ssl_")}
            options |= {"ssl": True, **ssl_options}
        return options

    @property
    def _is_tls(self) -> bool:
        return self._arguments.get("connection_class") is SSLConnection

    def _tls(self) -> ssl.SSLContext | None:
        if not self._is_tls:
            return None
        given = {key[4:]: value for key, value in self._arguments.items() if key.startswith("ssl_")}
        context: ssl.SSLContext = RedisSSLContext(**{**_TLS_DEFAULTS, **given}).get()
        return context


class Sentinels:
    """The Sentinels that know the master of a service."""

    def __init__(self, addresses: Iterable[Address], options: dict[str, Any]) -> None:
        hosts = [(address.host, address.port) for address in addresses]
        self._sentinel = Sentinel(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    async def master_of(self, service: str) -> Address:
        """The address of the master.

        Raises:
            RedisConnectionError: no Sentinel tells.
        """
        try:
            host, port = await self._sentinel.discover_master(service)
            return Address(host, int(port))
        except Exception as error:  # redis-py raises many types
            raise RedisConnectionError(f"Sentinel: {error}") from None

    async def close(self) -> None:
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


async def masters_by_slot(known: Iterable[Address], options: dict[str, Any]) -> dict[int, Address]:
    """Ask a cluster which master has each slot.

    Args:
        known: servers of the cluster, any of which may answer.
        options: of `RedisUrl.client_options`, with the credentials.

    Raises:
        RedisConnectionError: no server answers.
    """
    nodes = [ClusterNode(address.host, address.port) for address in known]
    try:
        client = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
        async with client:
            slots = client.nodes_manager.slots_cache.items()
            return {slot: Address(node[0].host, int(node[0].port)) for slot, node in slots}
    except Exception as error:  # redis-py raises many types
        raise RedisConnectionError(f"the cluster: {error}") from None
