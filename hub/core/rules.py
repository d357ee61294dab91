"""Channel names, and the options of channels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hub.protocol.codes import Error, Errors
from hub.settings import ChannelOptions

DEFAULT_NAMESPACE: Final = "default"
"""The options of channels without a namespace."""

FOUND_MAX: Final = 4096
"""Channel names whose options are cached."""

_NAME: Final = re.compile(r"[A-Za-z0-9_\-.:#,/@=+~$&!%|]+")


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
        return 0 < len(channel) <= self._bytes_max and _NAME.fullmatch(channel) is not None

    def find(self, channel: str) -> ChannelOptions | Error:
        """The options of a channel that a client named, or the error for the client."""
        found = self._found.get(channel)
        if found is None:
            if not self.is_valid(channel):
                return Errors.BAD_REQUEST
            found = self.options(channel)
            if found is None:
                return Errors.UNKNOWN_CHANNEL
            if len(self._found) == FOUND_MAX:
                self._found.clear()
            self._found[channel] = found
        return found

    def options(self, channel: str) -> ChannelOptions | None:
        """The options of a channel with a valid name; None if its namespace is not configured."""
        namespace = namespace_of(channel)
        if namespace == DEFAULT_NAMESPACE and ":" in channel:
            return None
        return self._channels.get(namespace)


def namespace_of(channel: str) -> str:
    """The namespace that a channel's name begins with, or `DEFAULT_NAMESPACE`."""
    namespace, colon, _ = channel.partition(":")
    return namespace if colon else DEFAULT_NAMESPACE


def users_of(channel: str) -> frozenset[str] | None:
    """The user ids to which a name such as `news#ann,bob` limits its channel; None without a limit."""
    _, mark, users = channel.rpartition("#")
    return frozenset(users.split(",")) if mark else None


def is_open_to(channel: str, user: str) -> bool:
    """Whether the channel's name permits this user."""
    users = users_of(channel)
    return users is None or (bool(user) and user in users)
