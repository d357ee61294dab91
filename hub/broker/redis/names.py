"""Names in Redis. All of the hub's begin with one prefix, and all of a channel are in one hash slot.

These names are version 1 of what nodes of different releases share. A release that must keep something in
another form gives it another name.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final


class Names:
    """Keys and channels of one hub.

    A channel's own name is in braces, which make the hash slot and which no channel's name may hold.

    Args:
        prefix: of all of them.
        node: id of this node.
    """

    def __init__(self, prefix: str, node: str) -> None:
        self.head: Final = prefix.encode() + b"{"
        """What the name of every channel begins with; `}` ends it."""
        self._sessions: Final = prefix.encode() + b".session"
        self.bus: Final = prefix.encode() + b".control"
        """Where messages to all nodes are published."""
        self.bus_log: Final = b"%b%b}.log" % (self.head, self.bus)
        """In the hash slot of `bus`."""
        self.inbox: Final = self.inbox_of(node)
        self.probe: Final = b"%b.probe.%b" % (prefix.encode(), node.encode())
        self._repeats: Final = b".r." + node.encode()

    def inbox_of(self, node: str) -> bytes:
        """Where bus messages to one node are published."""
        return self.bus + b"." + node.encode()

    def channel(self, channel: str) -> bytes:
        """Where a channel's messages are published; its keys begin with it."""
        return b"%b%b}" % (self.head, channel.encode())

    def channel_of(self, name: bytes) -> str:
        """The channel that a name is of."""
        return name[len(self.head) : -1].decode()

    def probe_keys(self, slot: int, probe: int) -> tuple[bytes, bytes, bytes]:
        """Position, stream and repeat key of a probe.

        Args:
            slot: chooses their hash slot.
            probe: its number.
        """
        name = b"%b%d}.probe" % (self.head, slot)
        return name + b".m", name + b".s", b"%b%b.%d" % (name, self._repeats, probe)

    def session(self, user: str, client: str) -> tuple[bytes, bytes, bytes]:
        """The keys of a session, of the socket that may come back to it, and of the user's revocation.

        They are in one hash slot. A user may be called anything, and so goes by a digest. An anonymous client
        is alone in its slot.
        """
        owner = hashlib.blake2b((user or f"\0{client}").encode(), digest_size=12).hexdigest().encode()
        name = b"%b{%b}" % (self._sessions, owner)
        session = b"%b.%b" % (name, client.encode())
        return session, session + b".b", name


def position_key(name: bytes) -> bytes:
    return name + b".m"


def stream_key(name: bytes) -> bytes:
    return name + b".s"


def idempotency_key(name: bytes, key: str) -> bytes:
    """The key that remembers a publish by the key that its caller chose."""
    return name + b".i." + key.encode()


def presence_keys(name: bytes) -> tuple[bytes, bytes]:
    """Infos and expiries, by client."""
    return name + b".p", name + b".e"


def new_epoch() -> bytes:
    """An epoch for a channel that has none; Redis takes it or leaves it."""
    return b"%08x" % random.getrandbits(32)
