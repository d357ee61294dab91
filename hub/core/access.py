"""What a channel's options permit, and why they do not. Tokens and hooks may permit more, never less."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final, Literal, TypeAlias

from hub.core.rules import is_open_to, users_of
from hub.protocol.codes import Disconnect, Error, Errors
from hub.settings import ChannelOptions, namespace_of

Action: TypeAlias = Literal["publish", "history", "presence"]

_SHOWN_MAX: Final = 100
"""Characters of a method's name that an error shows."""

_DOING: Final = {
    "publish": "publish to",
    "history": "read the history of",
    "presence": "read the presence of",
}

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
    action: Action,
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


def subscribe_refusal(options: ChannelOptions, channel: str, user: str) -> Error:
    """The error where `may_subscribe` does not permit it, with the rule that does not."""
    table = f"[channels.{namespace_of(channel)}]"
    remedy = "set it, or give the client a subscription token"
    if users_of(channel) is not None:
        if not is_open_to(channel, user):
            why = "the channel's name limits it to other users"
        else:
            why = f"{table} does not set allow_user_limited: {remedy}"
    elif not options.allow_subscribe_for_client:
        why = f"{table} does not set allow_subscribe_for_client: {remedy}"
    else:
        why = f"{table} does not set allow_subscribe_for_anonymous: set it, or let the client log in"
    return Errors.PERMISSION_DENIED.because(
        "not_allowed", f"{named(user)} may not subscribe to {channel}: {why}", channel
    )


def refusal(action: Action, options: ChannelOptions, channel: str, user: str, *, subscribed: bool) -> Error:
    """The error where `may` does not permit an action, with the rule that does not."""
    table = f"[channels.{namespace_of(channel)}]"
    for_subscriber, for_client = _OPTIONS[action](options)
    reasons = []
    if for_client and not user:
        reasons.append(f"allow_{action}_for_client is for clients with a user")
    elif for_client:
        reasons.append("the channel's name limits it to other users")
    if for_subscriber and not subscribed:
        reasons.append("the client is not subscribed to it")
    if not reasons:
        reasons.append(
            f"{table} sets neither allow_{action}_for_subscriber nor allow_{action}_for_client: set one"
        )
    why = ", and ".join(reasons)
    return Errors.PERMISSION_DENIED.because(
        "not_allowed", f"{named(user)} may not {_DOING[action]} {channel}: {why}", channel
    )


def switched_off(channel: str, what: str, remedy: str) -> Error:
    """The error for a request of what the channel's options switch off.

    Args:
        channel: name of the channel.
        what: what was asked for.
        remedy: the options that switch it on.
    """
    text = f"{what} of {channel} is switched off: set {remedy} in [channels.{namespace_of(channel)}]"
    return Errors.NOT_AVAILABLE.because("switched_off", text, channel)


def unrecoverable(channel: str, options: ChannelOptions) -> Error:
    """The error, for the log alone, where a client asked for recovery and got a subscription without it.

    Args:
        channel: name of the channel.
        options: of the channel.
    """
    if not options.history_size:
        return switched_off(channel, "the recovery", "history_size, history_ttl_s and force_recovery")
    remedy = "force_recovery or allow_history_for_subscriber"
    return switched_off(channel, "the recovery", remedy)


def unknown_method(method: str) -> Error:
    """The error for a method that no handler of the app answers."""
    text = f"no handler of the app answers {method[:_SHOWN_MAX]!r}"
    return Errors.METHOD_NOT_FOUND.because("bad_request", text)


def refused_by_app(
    refusal: Error | Disconnect, hook: str, user: str, action: str, channel: str = ""
) -> Error | Disconnect:
    """What the app's handler refused with, and that it was the handler.

    Args:
        refusal: of the handler.
        hook: name of the event.
        user: the client's user; empty for an anonymous client.
        action: what the client asked for, after "may not".
        channel: name of the channel, if any.
    """
    if refusal.code == Errors.INTERNAL.code:
        return refusal  # the handler failed, which is logged where it failed
    if refusal.cause is not None:
        return refusal  # the hub refused for the handler, which was not called
    said = refusal.message if isinstance(refusal, Error) else refusal.reason
    text = f"{named(user)} may not {action}: on_{hook} said {refusal.code}{f' ({said})' if said else ''}"
    return refusal.because("handler", text, channel)


def named(user: str) -> str:
    """How a sentence names the user of a client."""
    return user or "an anonymous client"
