"""hub/core/access.py: what the channel's options alone let a client do."""

from __future__ import annotations

from typing import Literal

import pytest
from support.sessions import options

from hub.core.access import may, may_subscribe
from hub.settings import ChannelOptions

NO = options()
USERS = options(allow_subscribe_for_client=True)
ALL = options(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
LIMITED = options(allow_user_limited=True)


@pytest.mark.parametrize(
    ("rules", "channel", "user", "allowed"),
    [
        (NO, "room", "ann", False),
        (NO, "room#ann", "ann", False),
        (USERS, "room", "ann", True),
        (USERS, "room", "", False),
        (ALL, "room", "", True),
        (LIMITED, "room", "ann", False),
        (LIMITED, "room#ann", "ann", True),
        (LIMITED, "room#bob,ann", "ann", True),
        (LIMITED, "room#bob", "ann", False),
        (LIMITED, "room#anna", "ann", False),
        (LIMITED, "room#", "ann", False),
        (LIMITED, "room#", "", False),
        (LIMITED, "room#,", "", False),
        (ALL, "room#bob", "ann", False),
        (ALL, "room#ann", "ann", True),
        (ALL, "room#ann", "", False),
    ],
)
def test_who_may_subscribe(rules: ChannelOptions, channel: str, user: str, allowed: bool) -> None:
    assert may_subscribe(rules, channel, user, insecure=False) is allowed
    assert may_subscribe(rules, channel, user, insecure=True)


@pytest.mark.parametrize("action", ["publish", "history", "presence"])
@pytest.mark.parametrize(
    ("who", "channel", "user", "subscribed", "allowed"),
    [
        ("nobody", "room", "ann", True, False),
        ("client", "room", "ann", False, True),
        ("client", "room", "", True, False),
        ("client", "room#bob", "ann", False, False),
        ("client", "room#bob", "bob", False, True),
        ("subscriber", "room", "ann", False, False),
        ("subscriber", "room", "ann", True, True),
        ("subscriber", "room", "", True, True),
        ("subscriber", "room#bob", "ann", True, True),
    ],
)
def test_who_may_use_a_channel(
    action: Literal["publish", "history", "presence"],
    who: str,
    channel: str,
    user: str,
    subscribed: bool,
    allowed: bool,
) -> None:
    switch = {} if who == "nobody" else {f"allow_{action}_for_{who}": True}
    rules = options(history=True, presence=True, **switch)
    assert may(action, rules, channel, user, subscribed=subscribed, insecure=False) is allowed
    assert may(action, rules, channel, user, subscribed=subscribed, insecure=True)
