"""hub.checks: what is doubtful in a configuration that works."""

from __future__ import annotations

from typing import Any

import pytest

from hub.checks import doubts
from hub.config import load
from hub.settings import Settings

SECRET = "0123456789abcdef0123456789abcdef"
TOKEN = {"token": {"hmac_secret": SECRET}}
CLOSED = (
    "channels.news: no rule lets a client subscribe: set allow_subscribe_for_client = true, or give clients"
    " subscription tokens"
)
NO_USERS = (
    "channels.news: no client can subscribe, since clients have no user without a token: set"
    " allow_subscribe_for_anonymous = true"
)


def found(handlers: tuple[str, ...] = (), **settings: Any) -> list[str]:
    return list(doubts(load(overrides=settings, env={}), handlers))


def test_nothing_is_doubtful_without_settings() -> None:
    assert found() == []
    assert found(dev=True) == []


@pytest.mark.parametrize("options", [{}, {"presence": True}, {"allow_publish_for_client": True}])
def test_a_namespace_that_no_rule_opens(options: dict[str, Any]) -> None:
    channels = {"news": options, "chat": {"allow_subscribe_for_client": True}}
    assert found(client=TOKEN, channels=channels) == [CLOSED]
    assert found(client={"anonymous": True}, channels=channels)[0] == CLOSED
    assert found(channels=channels) == [CLOSED]


def test_channels_without_a_namespace_count_where_they_are_configured() -> None:
    (line,) = found(client=TOKEN, channels={"default": {"presence": True}})
    assert line.startswith("channels.default: no rule lets a client subscribe")


def test_a_namespace_that_a_rule_or_anything_else_opens() -> None:
    news: dict[str, Any] = {"channels": {"news": {}}}
    assert found(client=TOKEN, channels={"news": {"allow_user_limited": True}}) == []
    assert found(client=TOKEN | {"subscription_token": {"hmac_secret": SECRET}}, **news) == []
    assert found(client={"insecure": True}, **news) == []
    assert found(client=TOKEN | {"user_personal_channel": "news:#{user}"}, **news) == []
    assert found(client={"user_personal_channel": "#{user}"}, channels={"default": {"presence": True}}) == []
    for handler in ("connect", "subscribe"):
        assert found((handler,), **news) == []
    assert found(("publish",), **news) == [CLOSED]


def test_a_namespace_for_users_where_no_client_has_a_user() -> None:
    news = {"news": {"allow_subscribe_for_client": True}}
    assert found(client={"anonymous": True}, channels=news) == [NO_USERS]
    assert found(client={"anonymous": True} | TOKEN, channels=news) == []
    assert found(("connect",), client={"anonymous": True}, channels=news) == []
    open_to_all = {"news": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}}
    assert found(client={"anonymous": True}, channels=open_to_all) == []


def test_variables_that_settings_in_code_do_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_OTHER", "of another program")
    monkeypatch.setenv("HUBS", "1")
    assert list(doubts(Settings())) == []
    for name in ("HUB_PORT", "HUB_CLIENT__ANONYMOUS"):
        monkeypatch.setenv(name, "1")
    assert list(doubts(Settings())) == [
        "HUB_CLIENT__ANONYMOUS, HUB_PORT: set in the environment and ignored, since Settings(…) in code"
        " reads no variables: use hub.config.load(overrides={…})"
    ]
    assert found() == []


def test_short_secrets_in_development() -> None:
    client = {
        "token": {"hmac_secret": "secret"},
        "subscription_token": {"hmac_secret": "other"},
        "reconnect": {"keys": ["a" * 31, "b" * 32]},
    }
    assert found(dev=True, client=client) == [
        "client.token.hmac_secret must be at least 32 bytes long, not 6: openssl rand -hex 32 makes one;"
        " production refuses this one",
        "client.subscription_token.hmac_secret must be at least 32 bytes long, not 5: openssl rand -hex 32"
        " makes one; production refuses this one",
        "client.reconnect.keys must be at least 32 bytes long each, not 31: openssl rand -hex 32 makes one;"
        " production refuses this one",
    ]
