"""The connections of a node, by client, user and channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from hub.core.channel.filter import Filter
from hub.core.channel.subscription import Subscription
from hub.protocol.encoding import Encoding
from hub.protocol.messages import Publication
from hub.settings import SlowReader

M = TypeVar("M")
"""A connection, which is only compared by identity here."""


class Audience(NamedTuple):
    """The properties that subscribers with the same bytes share."""

    encoding: Encoding
    filter: Filter | None
    delta: bool


class DeltaChain(Generic[M]):
    """The state of a group that gets deltas: each delta is relative to the publication before it."""

    __slots__ = ("base", "lacking", "pending")

    def __init__(self) -> None:
        self.base: Publication | None = None
        """The last publication, sent or pending."""
        self.lacking: set[M] = set()
        """Members that lack the publication before the pending ones, and get a whole publication first."""
        self.pending: list[Publication] = []
        """The publications that the group's pending bytes contain."""


class Group(Generic[M]):
    """The subscribers of one channel that get the same bytes.

    Encoded publications wait in `pending` for up to two turns of the event loop. Then they are joined once,
    and all members get the same bytes.
    """

    __slots__ = ("chain", "channel", "encoding", "filter", "members", "pending", "pending_since")

    def __init__(self, channel: Channel[M], audience: Audience) -> None:
        self.channel: Final = channel
        self.encoding: Final = audience.encoding
        self.filter: Final = audience.filter
        self.chain: Final[DeltaChain[M] | None] = DeltaChain() if audience.delta else None
        self.members: dict[M, Subscription] = {}
        self.pending: list[bytes] = []
        self.pending_since = 0.0


class Channel(Generic[M]):
    """A channel with subscribers on this node, or with subscriptions in progress.

    Args:
        name: name of the channel.
        slow_reader: what happens to publications for a member that reads slowly.
    """

    __slots__ = ("behind", "groups", "is_uniform", "name", "opening", "slow_reader")

    def __init__(self, name: str, slow_reader: SlowReader = "disconnect") -> None:
        self.name: Final = name
        self.slow_reader: Final = slow_reader
        self.groups: dict[Audience, Group[M]] = {}
        self.is_uniform = True
        """Whether all members get the same whole publications, without filters and deltas."""
        self.opening: dict[M, list[Publication]] = {}
        """Members whose subscription is in progress, with the publications that wait for each."""
        self.behind: dict[M, Subscription] = {}
        """Members in backfill. Until it ends, they get no publications of the history live."""

    @property
    def subscribers(self) -> int:
        """The number of subscribers on this node."""
        return sum(len(group.members) for group in self.groups.values()) + len(self.behind)

    def group(self, encoding: Encoding, subscription: Subscription) -> Group[M]:
        """The group of the members with an encoding and a kind of subscription. It is created if needed."""
        audience = Audience(encoding, subscription.filter, subscription.delta)
        group = self.groups.get(audience)
        if group is None:
            group = self.groups[audience] = Group(self, audience)
            self._look_uniform()
        return group

    def add(self, member: M, encoding: Encoding, subscription: Subscription) -> None:
        """Add a member to its group, which must have no pending publications."""
        group = self.group(encoding, subscription)
        group.members[member] = subscription
        if group.chain:
            group.chain.lacking.add(member)

    def remove(self, member: M, encoding: Encoding, subscription: Subscription) -> None:
        """Remove a member, and its group if that is empty then."""
        if self.behind.pop(member, None):
            return
        group = self.group(encoding, subscription)
        del group.members[member]
        if group.chain:
            group.chain.lacking.discard(member)
        if not group.members:
            del self.groups[Audience(encoding, subscription.filter, subscription.delta)]
            self._look_uniform()

    def _look_uniform(self) -> None:
        self.is_uniform = not any(group.filter or group.chain for group in self.groups.values())

    def members(self) -> Iterator[tuple[M, Subscription]]:
        """All members of the channel, with their subscriptions."""
        for group in self.groups.values():
            yield from group.members.items()
        yield from self.behind.items()

    @property
    def is_empty(self) -> bool:
        """Whether the node has no more use for the channel."""
        return not (self.groups or self.opening or self.behind)


class Registry(Generic[M]):
    """The connections of a node, by client and by user, and its channels."""

    def __init__(self) -> None:
        self.clients: dict[str, M] = {}
        self.users: dict[str, dict[str, M]] = {}
        self.channels: dict[str, Channel[M]] = {}
        self.subscriptions = 0

    def add(self, member: M, client: str, user: str) -> None:
        """Add the connection of a client that connected as a user."""
        self.clients[client] = member
        self.users.setdefault(user, {})[client] = member

    def discard(self, member: M, client: str, user: str) -> None:
        """Remove the connection of a client. It is no error if it was never added, or was replaced."""
        if self.clients.get(client) is not member:
            return
        del self.clients[client]
        of_user = self.users[user]
        del of_user[client]
        if not of_user:
            del self.users[user]

    def of_user(self, user: str) -> list[M]:
        """The connections of a user."""
        return list(self.users.get(user, {}).values())

    def channel(self, name: str, slow_reader: SlowReader = "disconnect") -> Channel[M]:
        """The channel of a name. It is created if needed."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, slow_reader)
        return channel

    def release(self, channel: Channel[M]) -> bool:
        """Remove a channel if it is empty. Returns whether it was."""
        if not channel.is_empty:
            return False
        del self.channels[channel.name]
        return True
