"""Names in Redis. All of the hub's begin with one prefix, and all of a channel are in one hash slot."""

from __future__ import annotations

import hashlib
from typing import Final


class Names:
    """Keys and channels of one hub.

    A channel's own name is in braces, which make the hash slot and which no channel's name may hold.

    Args:
        prefix: of all of them.
        node: id of this node.
    """

    def __init__(self, prefix: str, node: str) -> None:
        self._head: Final = prefix.encode() + b"{"
        self._sessions: Final = prefix.encode() + b".session"
        self.control: Final = prefix.encode() + b".control"
        self.bus_log: Final = b"{%b}.log" % self.control
        self.probe: Final = b"%b.probe.%b" % (prefix.encode(), node.encode())

    def inbox(self, node: str) -> bytes:
        """Where control messages to one node are published, by the id that it told."""
        return self.control + b"." + node.encode()

    def channel(self, channel: str) -> bytes:
        """Where a channel's messages are published; its keys begin with it."""
        return self._head + channel.encode() + b"}"

    def session(self, user: str, client: str) -> tuple[bytes, bytes, bytes]:
        """The keys of a session, of the socket that may come back to it, and of the user's revocation.

        They are in one hash slot. A user may be called anything, and so goes by a digest. An anonymous client
        is alone in its slot.
        """
        owner = hashlib.blake2b((user or f"\0{client}").encode(), digest_size=12).hexdigest().encode()
        name = b"%b{%b}" % (self._sessions, owner)
        session = b"%b.%b" % (name, client.encode())
        return session, session + b".b", name

    def channel_of(self, name: bytes) -> str:
        """The channel that a name is of."""
        return name[len(self._head) : -1].decode()


def position_key(name: bytes) -> bytes:
    return name + b".m"


def stream_key(name: bytes) -> bytes:
    return name + b".s"


def idempotency_key(name: bytes, key: str) -> bytes:
    """Of a key that a caller chose."""
    return name + b".i." + key.encode()


def repeat_key(name: bytes, number: bytes) -> bytes:
    """Of a publish without such a key, so that it can be repeated."""
    return name + b".r." + number


def presence_keys(name: bytes) -> tuple[bytes, bytes]:
    """Infos and expiries, by client."""
    return name + b".p", name + b".e"
