"""hub/core/rules.py: names of channels, and where their options come from."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import options

from hub.core.rules import FOUND_MAX, Rules, is_open_to, users_of
from hub.protocol.codes import Errors

DEFAULT = options()
CHAT = options(presence=True)
RULES = Rules({"default": DEFAULT, "chat": CHAT}, channel_bytes_max=20)
ALLOWED = string.ascii_letters + string.digits + "_-.:#,/@=+~$&!%|"


@given(st.text(ALLOWED, min_size=1, max_size=20))
def test_names_that_are_allowed(name: str) -> None:
    assert RULES.is_valid(name)


@given(st.text(ALLOWED, max_size=9), st.characters(exclude_characters=ALLOWED), st.text(ALLOWED, max_size=9))
def test_one_character_spoils_a_name(before: str, bad: str, after: str) -> None:
    assert not RULES.is_valid(before + bad + after)


@pytest.mark.parametrize("name", ["", "x" * 21, "x\n", "é" * 3])
def test_names_that_are_refused(name: str) -> None:
    assert not RULES.is_valid(name)


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("room", DEFAULT),
        ("room#7", DEFAULT),
        ("chat:room", CHAT),
        ("chat:room:1", CHAT),
        ("chat:", CHAT),
        ("chat", DEFAULT),
        ("Chat:room", None),
        ("room#chat:7", None),
        ("news:room", None),
        (":room", None),
        ("default:room", None),
    ],
)
def test_options_by_namespace(channel: str, expected: object) -> None:
    assert RULES.options(channel) is expected


def test_no_options_at_all() -> None:
    assert Rules({}, 20).options("room") is None


@pytest.mark.parametrize(
    ("channel", "users"),
    [
        ("room", None),
        ("room#7", {"7"}),
        ("room#7,8", {"7", "8"}),
        ("#7", {"7"}),
        ("a#b#7", {"7"}),
        ("room#", {""}),
    ],
)
def test_users_that_a_channel_is_for(channel: str, users: set[str] | None) -> None:
    assert users_of(channel) == users


@pytest.mark.parametrize(
    ("channel", "user", "is_open"),
    [
        ("room", "", True),
        ("room", "7", True),
        ("room#7", "7", True),
        ("room#7", "8", False),
        ("room#", "", False),
    ],
)
def test_whom_a_name_lets_in(channel: str, user: str, is_open: bool) -> None:
    assert is_open_to(channel, user) is is_open


def test_what_a_client_named_is_found_or_refused() -> None:
    assert RULES.find("chat:x") is RULES.find("chat:x") is CHAT
    assert RULES.find("not valid") == RULES.find("x" * 21) == Errors.BAD_REQUEST
    assert RULES.find("news:x") == Errors.UNKNOWN_CHANNEL


def test_only_so_many_names_are_remembered() -> None:
    rules = Rules({"chat": CHAT}, channel_bytes_max=20)
    for number in range(2 * FOUND_MAX):
        rules.find(f"chat:{number}")
        rules.find(f"bad {number}")
    assert len(rules._found) <= FOUND_MAX
