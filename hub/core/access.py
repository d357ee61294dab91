"""What a channel's options permit. Tokens and hooks may permit more, never less."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final, Literal

from hub.core.rules import is_open_to, users_of
from hub.settings import ChannelOptions

_OPTIONS: Final[dict[str, Callable[[ChannelOptions], tuple[bool, bool]]]] = {
    action: attrgetter(f"allow_{action}_for_subscriber", f"allow_{action}_for_client")
    for action in ("publish", "history", "presence")
}


def may_subscribe(options: ChannelOptions, channel: str, user: str, *, insecure: bool) -> bool:
    """Whether a client may subscribe without a token, and without a hook that permits it.

    Args:
        options: of the channel.
        channel: name of the channel, which may limit it to some users.
        user: the client's user; empty for an anonymous client.
        insecure: whether every client may do everything.
    """
    if insecure:
        return True
    if users_of(channel) is not None:
        return is_open_to(channel, user) and (
            options.allow_user_limited or options.allow_subscribe_for_client
        )
    return options.allow_subscribe_for_client and (bool(user) or options.allow_subscribe_for_anonymous)


def may(
    action: Literal["publish", "history", "presence"],
    options: ChannelOptions,
    channel: str,
    user: str,
    *,
    subscribed: bool,
    insecure: bool,
) -> bool:
    """Whether a client may publish to a channel, or read its history or presence.

    `…_for_client` permits every client that has a user, `…_for_subscriber` every client that is subscribed.
    """
    if insecure:
        return True
    for_subscriber, for_client = _OPTIONS[action](options)
    return (for_subscriber and subscribed) or (for_client and bool(user) and is_open_to(channel, user))
