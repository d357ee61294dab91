"""hub.node.admission: how many connections an address has, and how fast new ones come."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core.channel.registry import Registry
from hub.node.admission import (
    BURST_S,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    AcceptRate,
    Admission,
    retry_after,
)
from hub.node.boundary import Boundary
from hub.node.state import SERVING, NodeState
from hub.settings import ServerSettings, Settings
from hub.telemetry import Metrics

ADDRESS = "198.51.100.7"
NOW = 1_000.0


def admission(**limits: Any) -> Admission:
    metrics = Metrics()
    state = NodeState(metrics)
    state.enter(SERVING)
    return Admission(Settings(server=ServerSettings(**limits)), state, Registry(), Boundary(metrics), metrics)


def enter(to: Admission, address: str, count: int) -> list[Any]:
    connections = [object() for _ in range(count)]
    for connection in connections:
        assert not to.refusal(address)
        to.entered(connection, address)  # type: ignore[arg-type]  # it is only counted
    return connections


def test_nothing_is_limited_by_default() -> None:
    enter(admission(), ADDRESS, 10_000)
    assert all(AcceptRate(0.0).admit(NOW) for _ in range(10_000))


def test_an_address_has_so_many() -> None:
    counted = admission(connections_per_address_max=3)
    connections = enter(counted, ADDRESS, 3)
    assert counted.refusal(ADDRESS)
    enter(counted, "198.51.100.8", 3)
    counted.left(connections.pop())
    enter(counted, ADDRESS, 1)
    assert counted.refusal(ADDRESS)


def test_nothing_is_kept_of_those_who_left() -> None:
    counted = admission(connections_per_address_max=3)
    for connection in [*enter(counted, ADDRESS, 3), *enter(counted, "2001:db8::1", 2), object()]:
        counted.left(connection)
        counted.left(connection)
    assert (counted._counts, counted._address_of) == ({}, {})


def test_an_ipv6_network_is_one_address() -> None:
    counted = admission(connections_per_address_max=2)
    enter(counted, "2001:db8:1:2::3", 1)
    enter(counted, "2001:db8:1:2:ffff::3", 1)
    assert counted.refusal("2001:db8:1:2::9")
    enter(counted, "2001:db8:1:3::3", 2)


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    counted = admission(connections_per_address_max=1)
    enter(counted, ADDRESS, 1)
    assert counted.refusal(f"::ffff:{ADDRESS}")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "", "unix:", "fe80::x"]
)
def test_proxies_and_what_is_no_address_are_not_counted(address: str) -> None:
    proxies = ("127.0.0.1", "::1", "10.0.0.0/8")
    enter(admission(connections_per_address_max=1, trusted_proxies=proxies), address, 5)


def test_so_many_come_in_a_second() -> None:
    rate = AcceptRate(100)
    burst = int(100 * BURST_S)
    assert [rate.admit(NOW) for _ in range(burst + 5)] == [True] * burst + [False] * 5
    assert sum(rate.admit(NOW + tick / 1_000) for tick in range(1, 1_001)) == pytest.approx(100, abs=1)
    assert sum(rate.admit(NOW + 60) for _ in range(1_000)) == burst


def test_a_slow_rate_lets_one_in_at_a_time() -> None:
    rate = AcceptRate(0.5)
    assert [rate.admit(NOW + second) for second in range(5)] == [True, False, True, False, True]


def test_who_is_refused_is_told_to_come_at_another_time_than_others() -> None:
    times = {int(retry_after()) for _ in range(500)}
    assert times == set(range(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S + 1))
