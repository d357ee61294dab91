"""hub.node.admission: how many connections an address has, and how fast new ones come."""

from __future__ import annotations

from typing import Any

import pytest

from hub.node.admission import BURST_S, RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S, Admission, retry_after
from hub.settings import ServerSettings

ADDRESS = "198.51.100.7"
NOW = 1_000.0


def admission(**limits: Any) -> Admission:
    return Admission(ServerSettings(**limits))


def enter(to: Admission, address: str, count: int) -> list[object]:
    connections = [object() for _ in range(count)]
    for connection in connections:
        assert to.refusal(address, NOW) == ""
        to.entered(connection, address)
    return connections


def test_nothing_is_limited_by_default() -> None:
    enter(admission(), ADDRESS, 10_000)


def test_an_address_has_so_many() -> None:
    door = admission(connections_per_address_max=3)
    connections = enter(door, ADDRESS, 3)
    assert door.refusal(ADDRESS, NOW) == "connections_per_address_max"
    enter(door, "198.51.100.8", 3)
    door.left(connections.pop())
    enter(door, ADDRESS, 1)
    assert door.refusal(ADDRESS, NOW)


def test_nothing_is_kept_of_those_who_left() -> None:
    door = admission(connections_per_address_max=3)
    for connection in [*enter(door, ADDRESS, 3), *enter(door, "2001:db8::1", 2), object()]:
        door.left(connection)
        door.left(connection)
    assert (door._of_address, door._addresses) == ({}, {})


def test_an_ipv6_network_is_one_address() -> None:
    door = admission(connections_per_address_max=2)
    enter(door, "2001:db8:1:2::3", 1)
    enter(door, "2001:db8:1:2:ffff::3", 1)
    assert door.refusal("2001:db8:1:2::9", NOW)
    enter(door, "2001:db8:1:3::3", 2)


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    door = admission(connections_per_address_max=1)
    enter(door, ADDRESS, 1)
    assert door.refusal(f"::ffff:{ADDRESS}", NOW)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "", "unix:", "fe80::x"]
)
def test_proxies_and_what_is_no_address_are_not_counted(address: str) -> None:
    proxies = ("127.0.0.1", "::1", "10.0.0.0/8")
    enter(admission(connections_per_address_max=1, trusted_proxies=proxies), address, 5)


def test_so_many_come_in_a_second() -> None:
    door = admission(accepts_per_s=100)
    burst = int(100 * BURST_S)
    asked = [door.refusal(ADDRESS, NOW) for _ in range(burst + 5)]
    assert asked == [""] * burst + ["accepts_per_s"] * 5
    taken = sum(not door.refusal(ADDRESS, NOW + tick / 1_000) for tick in range(1, 1_001))
    assert taken == pytest.approx(100, abs=1)
    assert sum(not door.refusal(ADDRESS, NOW + 60) for _ in range(1_000)) == burst


def test_a_slow_rate_lets_one_in_at_a_time() -> None:
    door = admission(accepts_per_s=0.5)
    assert [bool(door.refusal("", NOW + second)) for second in range(5)] == [False, True, False, True, False]


def test_who_is_refused_is_told_to_come_at_another_time_than_others() -> None:
    times = {int(retry_after()) for _ in range(500)}
    assert times == set(range(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S + 1))
