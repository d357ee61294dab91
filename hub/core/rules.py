"""Channel names, and the options of channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from hub.protocol.codes import Error, Errors
from hub.settings import CHANNEL_NAME, DEFAULT_NAMESPACE, ChannelOptions, namespace_of

FOUND_MAX: Final = 4096
"""Channel names whose options are cached."""

_SAFE_IN_ID: Final = "@:+=$&!|/"
"""Characters, besides letters, digits and `_-.~`, that a user id keeps in a channel's name. All others are
percent-encoded, above all the comma, which separates user ids, and the percent sign."""


_SHARED_POLL: Final = 4
"""The `type` of requests about a channel that clients poll together."""

_SHOWN_MAX: Final = 255
"""Characters of a channel's name that an error shows."""


class Rules:
    """The options of every channel.

    Args:
        channels: options by namespace; `default` for channels without a namespace.
        channel_bytes_max: longest name of a channel, in bytes.
    """

    def __init__(self, channels: Mapping[str, ChannelOptions], channel_bytes_max: int) -> None:
        self._channels = channels
        self._bytes_max = channel_bytes_max
        self._found: dict[str, ChannelOptions] = {}

    def is_valid(self, channel: str) -> bool:
        """Whether this is a valid channel name: allowed ASCII characters only, and not too long."""
        return 0 < len(channel) <= self._bytes_max and CHANNEL_NAME.fullmatch(channel) is not None

    def find(self, channel: str) -> ChannelOptions | Error:
        """The options of a channel that a client named, or the error for the client."""
        found = self._found.get(channel)
        if found is None:
            found = self.options(channel) if self.is_valid(channel) else None
            if found is None:
                return self.refusal(channel)
            if len(self._found) == FOUND_MAX:
                self._found.clear()
            self._found[channel] = found
        return found

    def refusal(self, channel: str) -> Error:
        """The error for a channel that has no options, with its cause."""
        if not channel:
            return Errors.BAD_REQUEST.because("channel_name", "the channel is missing")
        shown = channel[:_SHOWN_MAX]
        if not self.is_valid(channel):
            rule = f"a name is at most {self._bytes_max} letters, digits and characters of _-.:#,/@=+~$&!%|"
            return Errors.BAD_REQUEST.because(
                "channel_name", f"{shown!r} is not the name of a channel: {rule}", shown
            )
        namespace, _, rest = channel.partition(":")
        if namespace == DEFAULT_NAMESPACE:
            remedy = f"[channels.{DEFAULT_NAMESPACE}] is for names without a namespace: write {rest}"
        else:
            remedy = "add the table, or correct the name"
        text = f"no [channels.{namespace}] is configured for the channel {shown}: {remedy}"
        return Errors.UNKNOWN_CHANNEL.because("unknown_channel", text, shown)

    def options(self, channel: str) -> ChannelOptions | None:
        """The options of a channel with a valid name; None if its namespace is not configured."""
        namespace = namespace_of(channel)
        if namespace == DEFAULT_NAMESPACE and ":" in channel:
            return None
        return self._channels.get(namespace)


def wrong_type(type: int) -> Error:
    """The error for a request about a channel of another type. Every channel is a stream, of type 0."""
    return Errors.NOT_AVAILABLE if type == _SHARED_POLL else Errors.BAD_REQUEST


def personal_channel(template: str, user: str) -> str:
    """The channel of one user.

    Args:
        template: a name with `{user}` in place of the user's id.
        user: the id, of which characters that a name does not allow are percent-encoded.
    """
    has_namespace = ":" in template.partition("{user}")[0]
    safe = _SAFE_IN_ID if has_namespace else _SAFE_IN_ID.replace(":", "")  # a colon would end a namespace
    return template.replace("{user}", quote(user, safe=safe))


def users_of(channel: str) -> frozenset[str] | None:
    """The user ids to which a name such as `news#ann,bob%20lee` limits its channel; None without a limit.

    Each id is percent-encoded once in the name. An id that is not UTF-8 is nobody's.
    """
    _, mark, users = channel.rpartition("#")
    if not mark:
        return None
    if "%" not in users:
        return frozenset(users.split(","))
    return frozenset(user for each in users.split(",") if (user := _decoded(each)) is not None)


def _decoded(user: str) -> str | None:
    try:
        return unquote(user, errors="strict")
    except UnicodeDecodeError:
        return None


def is_open_to(channel: str, user: str) -> bool:
    """Whether the channel's name permits this user."""
    users = users_of(channel)
    return users is None or (bool(user) and user in users)
