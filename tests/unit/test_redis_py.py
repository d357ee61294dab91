"""hub/broker/redis/_redis_py.py: an upgrade of redis-py that changes what the hub uses of it fails here."""

from __future__ import annotations

from pathlib import Path

from redis.asyncio import cluster
from redis.crc import key_slot

import hub
from hub.broker.redis._redis_py import client_options
from hub.redis_url import TLS_OPTIONS, parse


def test_a_cluster_knows_the_nodes_of_each_slot() -> None:
    client = cluster.RedisCluster(
        startup_nodes=[cluster.ClusterNode("h", 7)],
        require_full_coverage=False,
        **client_options(parse("rediss+cluster://:p@h"), 1.0),
    )
    assert client.nodes_manager.slots_cache == {}
    node = cluster.ClusterNode("h", 7)
    assert (node.host, int(node.port)) == ("h", 7)


def test_a_cluster_takes_every_option_of_tls() -> None:
    query = "&".join(f"{name}={_VALUES.get(name, 'x')}" for name in TLS_OPTIONS)
    options = client_options(parse(f"rediss+cluster://h?{query}"), 1.0)
    assert set(TLS_OPTIONS) <= options.keys()
    client = cluster.RedisCluster(startup_nodes=[cluster.ClusterNode("h", 7)], **options)
    assert client.nodes_manager.slots_cache == {}


_VALUES = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


def test_key_slot_is_that_of_the_cluster_specification() -> None:
    assert [key_slot(name) for name in (b"foo", b"hub{foo}.m", b"123456789")] == [12182, 12182, 12739]


def test_nothing_else_uses_redis_py() -> None:
    root = Path(hub.__file__).parent
    users = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(line.startswith(("from redis", "import redis")) for line in path.read_text().splitlines())
    ]
    assert users == ["broker/redis/_redis_py.py"]
