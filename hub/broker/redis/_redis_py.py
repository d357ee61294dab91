"""Every use of redis-py: the slots of a cluster. Nothing else imports redis-py.

Some of what is used here is not documented by redis-py. `tests/unit/test_redis_py.py` names each such part,
so that an upgrade that changes one fails there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot as key_slot

from hub.broker.redis.connection import Address, RedisConnectionError
from hub.redis_url import RedisURL


def client_options(url: RedisURL, timeout_s: float) -> dict[str, Any]:
    """The arguments of a redis-py client that asks once and does not retry."""
    options: dict[str, Any] = {
        "username": url.username or None,
        "password": url.password or None,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    return options if url.tls is None else {**options, "ssl": True, **url.tls}


async def masters_by_slot(known: Iterable[Address], options: dict[str, Any]) -> dict[int, Address]:
    """Ask a cluster which master has each slot.

    Args:
        known: servers of the cluster, any of which may answer.
        options: those of `client_options`.

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
