"""Who is connected to a node, and who of them is in which channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from hub.core.channel.filter import Filter
from hub.core.channel.subscription import Subscription
from hub.protocol.encoding import Encoding
from hub.protocol.messages import Publication
from hub.settings import SlowReader


class Member(Protocol):
    """What the registry needs to know of a connection."""

    @property
    def client(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def encoding(self) -> Encoding: ...


M = TypeVar("M", bound=Member)


class Audience(NamedTuple):
    """What subscribers that get the same bytes have in common."""

    encoding: Encoding
    filter: Filter | None
    delta: bool


class Chain(Generic[M]):
    """What makes deltas of a group's publications possible: each is one of the publication before."""

    __slots__ = ("base", "lacking", "pending")

    def __init__(self) -> None:
        self.base: Publication | None = None
        """The last publication, sent or pending."""
        self.lacking: set[M] = set()
        """Members that were not sent the one before what is pending: they begin with a whole one."""
        self.pending: list[Publication] = []
        """What the group's pending bytes are of."""


class Group(Generic[M]):
    """The subscribers of one channel that get the same bytes.

    What is published within two turns of the event loop waits in `pending`, encoded, and leaves after them:
    the messages are joined once, and all members get the same bytes.
    """

    __slots__ = ("chain", "channel", "encoding", "filter", "members", "pending", "pending_since")

    def __init__(self, channel: Channel[M], audience: Audience) -> None:
        self.channel: Final = channel
        self.encoding: Final = audience.encoding
        self.filter: Final = audience.filter
        self.chain: Final[Chain[M] | None] = Chain() if audience.delta else None
        self.members: dict[M, Subscription] = {}
        self.pending: list[bytes] = []
        self.pending_since = 0.0


class Channel(Generic[M]):
    """A channel that somebody on this node is in, or is about to be.

    Args:
        name: of the channel.
        slow_reader: what becomes of publications for a member that is behind.
    """

    __slots__ = ("behind", "groups", "is_uniform", "name", "opening", "slow_reader")

    def __init__(self, name: str, slow_reader: SlowReader = "disconnect") -> None:
        self.name: Final = name
        self.slow_reader: Final = slow_reader
        self.groups: dict[Audience, Group[M]] = {}
        self.is_uniform = True
        """Whether everybody gets the same publications, whole: there are no filters and no deltas."""
        self.opening: dict[M, list[Publication]] = {}
        """Members whose subscription is being made, and what is held back for each."""
        self.behind: dict[M, Subscription] = {}
        """Members who are sent what they missed, and until then hear nothing that is in the history."""

    @property
    def subscribers(self) -> int:
        """How many connections of this node are in the channel."""
        return sum(len(group.members) for group in self.groups.values()) + len(self.behind)

    def group(self, member: M, subscription: Subscription) -> Group[M]:
        """The group of a member, made where there is none."""
        audience = Audience(member.encoding, subscription.filter, subscription.delta)
        group = self.groups.get(audience)
        if group is None:
            group = self.groups[audience] = Group(self, audience)
            self._look_uniform()
        return group

    def add(self, member: M, subscription: Subscription) -> None:
        """Put a member into its group. Nothing may be pending there."""
        group = self.group(member, subscription)
        group.members[member] = subscription
        if group.chain:
            group.chain.lacking.add(member)

    def remove(self, member: M, subscription: Subscription) -> None:
        """Take a member out of its group, which goes with its last one."""
        if self.behind.pop(member, None):
            return
        group = self.group(member, subscription)
        del group.members[member]
        if group.chain:
            group.chain.lacking.discard(member)
        if not group.members:
            del self.groups[Audience(member.encoding, subscription.filter, subscription.delta)]
            self._look_uniform()

    def _look_uniform(self) -> None:
        self.is_uniform = not any(group.filter or group.chain for group in self.groups.values())

    def members(self) -> Iterator[tuple[M, Subscription]]:
        """Everybody in the channel, with their subscription."""
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

    def add(self, member: M) -> None:
        """A client connected, and its user is known."""
        self.clients[member.client] = member
        self.users.setdefault(member.user, {})[member.client] = member

    def discard(self, member: M) -> None:
        """A client is gone. One that never connected is no fault."""
        if self.clients.get(member.client) is not member:
            return
        del self.clients[member.client]
        of_user = self.users[member.user]
        del of_user[member.client]
        if not of_user:
            del self.users[member.user]

    def of_user(self, user: str) -> list[M]:
        """The connections of a user."""
        return list(self.users.get(user, {}).values())

    def channel(self, name: str, slow_reader: SlowReader = "disconnect") -> Channel[M]:
        """The channel, made where there is none."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, slow_reader)
        return channel

    def release(self, channel: Channel[M]) -> bool:
        """Forget a channel that is empty. Returns whether it was."""
        if not channel.is_empty:
            return False
        del self.channels[channel.name]
        return True
