"""hub/core/rules.py: names of channels, and where their options come from."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import options

from hub.core.rules import FOUND_MAX, Rules, is_open_to, personal_channel, users_of
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
        ("room#ann%20lee,bob", {"ann lee", "bob"}),
        ("room#ann%2520lee", {"ann%20lee"}),
        ("room#google:123,google%3A4", {"google:123", "google:4"}),
        ("room#a%2Cb", {"a,b"}),
        ("room#100%", {"100%"}),
        ("room#%C3%A9", {"é"}),
        ("room#%FF,7", {"7"}),
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
        ("room#%FF", "%FF", False),
        ("room#%FF", "\N{REPLACEMENT CHARACTER}", False),
        ("room#ann%20lee", "ann lee", True),
        ("room#ann%20lee", "ann%20lee", False),
    ],
)
def test_whom_a_name_lets_in(channel: str, user: str, is_open: bool) -> None:
    assert is_open_to(channel, user) is is_open


@pytest.mark.parametrize(
    ("template", "user", "channel"),
    [
        ("#{user}", "ann", "#ann"),
        ("#{user}", "google:123", "#google%3A123"),
        ("user-{user}", "google:123", "user-google%3A123"),
        ("chat:#{user}", "google:123", "chat:#google:123"),
        ("chat:{user}/{user}", "a b@x.y", "chat:a%20b@x.y/a%20b@x.y"),
        ("#{user}", "{user}", "#%7Buser%7D"),
    ],
)
def test_a_personal_channel(template: str, user: str, channel: str) -> None:
    assert personal_channel(template, user) == channel


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["#{user}", "chat:{user}#{user}"]))
def test_a_personal_channel_is_one_users(user: str, other: str, template: str) -> None:
    rules = Rules({"default": DEFAULT, "chat": CHAT}, channel_bytes_max=10_000)
    channel = personal_channel(template, user)
    assert rules.find(channel) is (CHAT if "chat:" in template else DEFAULT)
    assert users_of(channel) == frozenset({user})
    assert is_open_to(channel, user)
    assert is_open_to(channel, other) == (other == user)


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
