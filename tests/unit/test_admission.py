"""hub.node.admission: how many connections an address has, and how fast new ones come."""

from __future__ import annotations

from typing import Any

import pytest

from hub.node.admission import BURST_S, RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S, Addresses, Rate, retry_after
from hub.settings import ServerSettings

ADDRESS = "198.51.100.7"
NOW = 1_000.0


def addresses(**limits: Any) -> Addresses:
    return Addresses(ServerSettings(**limits))


def enter(to: Addresses, address: str, count: int) -> list[object]:
    connections = [object() for _ in range(count)]
    for connection in connections:
        assert to.has_room(address)
        to.entered(connection, address)
    return connections


def test_nothing_is_limited_by_default() -> None:
    enter(addresses(), ADDRESS, 10_000)
    assert all(Rate(0.0).allows(NOW) for _ in range(10_000))


def test_an_address_has_so_many() -> None:
    counted = addresses(connections_per_address_max=3)
    connections = enter(counted, ADDRESS, 3)
    assert not counted.has_room(ADDRESS)
    enter(counted, "198.51.100.8", 3)
    counted.left(connections.pop())
    enter(counted, ADDRESS, 1)
    assert not counted.has_room(ADDRESS)


def test_nothing_is_kept_of_those_who_left() -> None:
    counted = addresses(connections_per_address_max=3)
    for connection in [*enter(counted, ADDRESS, 3), *enter(counted, "2001:db8::1", 2), object()]:
        counted.left(connection)
        counted.left(connection)
    assert (counted._counts, counted._of) == ({}, {})


def test_an_ipv6_network_is_one_address() -> None:
    counted = addresses(connections_per_address_max=2)
    enter(counted, "2001:db8:1:2::3", 1)
    enter(counted, "2001:db8:1:2:ffff::3", 1)
    assert not counted.has_room("2001:db8:1:2::9")
    enter(counted, "2001:db8:1:3::3", 2)


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    counted = addresses(connections_per_address_max=1)
    enter(counted, ADDRESS, 1)
    assert not counted.has_room(f"::ffff:{ADDRESS}")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "", "unix:", "fe80::x"]
)
def test_proxies_and_what_is_no_address_are_not_counted(address: str) -> None:
    proxies = ("127.0.0.1", "::1", "10.0.0.0/8")
    enter(addresses(connections_per_address_max=1, trusted_proxies=proxies), address, 5)


def test_so_many_come_in_a_second() -> None:
    rate = Rate(100)
    burst = int(100 * BURST_S)
    assert [rate.allows(NOW) for _ in range(burst + 5)] == [True] * burst + [False] * 5
    assert sum(rate.allows(NOW + tick / 1_000) for tick in range(1, 1_001)) == pytest.approx(100, abs=1)
    assert sum(rate.allows(NOW + 60) for _ in range(1_000)) == burst


def test_a_slow_rate_lets_one_in_at_a_time() -> None:
    rate = Rate(0.5)
    assert [rate.allows(NOW + second) for second in range(5)] == [True, False, True, False, True]


def test_who_is_refused_is_told_to_come_at_another_time_than_others() -> None:
    times = {int(retry_after()) for _ in range(500)}
    assert times == set(range(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S + 1))
