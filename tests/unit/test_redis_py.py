"""hub/broker/redis/_redis_py.py: an upgrade of redis-py that changes what the hub uses of it fails here."""

from __future__ import annotations

import inspect
import ssl
from pathlib import Path

from redis.asyncio import cluster, connection, sentinel
from redis.crc import key_slot

import hub
from hub.broker.redis._redis_py import RedisUrl
from hub.broker.redis.connection import Address


def test_parse_url_gives_arguments_of_a_connection() -> None:
    assert connection.parse_url("redis://u:p@h:7/3") == {
        **{"username": "u", "password": "p", "host": "h", "port": 7, "db": 3}
    }
    assert connection.parse_url("unix:///run/redis.sock?db=2")["path"] == "/run/redis.sock"
    assert connection.parse_url("rediss://h")["connection_class"] is connection.SSLConnection


def test_options_of_tls_are_arguments_of_redis_ssl_context() -> None:
    arguments = connection.parse_url("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert {key for key in arguments if key.startswith("ssl_")} == {"ssl_cert_reqs", "ssl_check_hostname"}
    context = connection.RedisSSLContext(cert_reqs="required", check_hostname=True).get()
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_sentinel_can_be_asked_for_a_master_and_closed() -> None:
    watched = sentinel.Sentinel([("h", 1)], sentinel_kwargs={"socket_timeout": 1.0})  # type: ignore[no-untyped-call]
    assert inspect.iscoroutinefunction(watched.discover_master)
    assert [inspect.iscoroutinefunction(each.aclose) for each in watched.sentinels] == [True]


def test_a_cluster_knows_the_nodes_of_each_slot() -> None:
    client = cluster.RedisCluster(
        startup_nodes=[cluster.ClusterNode("h", 7)],
        require_full_coverage=False,
        **RedisUrl("rediss://h").client_options(1.0),
    )
    assert client.nodes_manager.slots_cache == {}
    node = cluster.ClusterNode("h", 7)
    assert (node.host, int(node.port)) == ("h", 7)


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


def test_an_address_is_read_from_a_url() -> None:
    assert RedisUrl("redis://h:7/3").address == Address("h", 7)
