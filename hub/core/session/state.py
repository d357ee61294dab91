"""What a session knows, and what its flows do to it.

A command that needs something from outside is a flow: a generator that yields operations and is sent their
outcomes, so that it reads from top to bottom. Flows with the same key, a channel's name, run one after
another where they change its subscription or ask the app; everything else goes on beside them.

Times are monotonic seconds; Unix time is derived from them by the offset given at the start.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hub.core.channel.deltas import Deltas
from hub.core.channel.replay_buffer import PAGE_BYTES_MAX
from hub.core.channel.subscription import OPEN, Subscription
from hub.core.effects import Close, Effect, Lapsed, Left, Operation, Run, Send
from hub.core.rates import Bucket, Rates
from hub.core.reconnect import ReconnectTokens, SessionChain
from hub.core.rules import Rules
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Unsubscribe, disconnect_of
from hub.settings import ClientSettings

GRACE_S: Final = 25.0
"""How long a connection or subscription outlives its `ttl`, so that a refresh may be late."""

_TTL_MAX_S: Final = 2**31 - 1
"""Longest `ttl` that a client is told: some hold it in 32 bits."""

REPLY_ROOM_BYTES: Final = PAGE_BYTES_MAX
"""What replies that are under way to one client may carry of recovered publications, all together."""

RENEW_SOON_S: Final = 1.0
"""How long after a change of its rights a client gets a reconnect token that holds it: several make one."""

Flow: TypeAlias = Generator[Operation, Any, None]


@dataclass(frozen=True, slots=True)
class Context:
    """What all sessions of a node share.

    Args:
        client: limits and times.
        rates: how often what may be done.
        rules: the channels' options.
        hooks: names of the events that the app handles.
        node: id of the node.
        version: of the hub.
        deltas: made for subscribers.
        reconnect: makes reconnect tokens; None where none are handed out.
    """

    client: ClientSettings
    rates: Rates
    rules: Rules
    hooks: frozenset[str]
    node: str
    version: str
    deltas: Deltas = field(default_factory=Deltas)
    reconnect: ReconnectTokens | None = None


class SessionState:
    """One client's state. `Session` adds what happens to it.

    Args:
        context: what the node's sessions share.
        client: id of the client, as others see it; with a reconnect token it gets back the one that it had.
        session: id of the socket, known to its client alone.
        headers: HTTP headers of the handshake, for the connect hook.
        now: monotonic seconds.
        unix_offset_s: Unix time less monotonic time.
        jitter: 0 to 1, spreads the pings of connections.
        one_way: whether the client sends a connect command and nothing else, and gets pushes alone.
    """

    __slots__ = (
        "_busy",
        "_effects",
        "_flows",
        "_ticket",
        "chain",
        "client",
        "closed",
        "connected",
        "connecting",
        "context",
        "deadline",
        "ends_at",
        "expires_at",
        "headers",
        "heard",
        "info",
        "is_held",
        "kept",
        "kept_until",
        "left",
        "moved",
        "next_ping",
        "now",
        "one_way",
        "opening",
        "ping_period_s",
        "ping_sent",
        "pong_due",
        "presented",
        "publishes",
        "reads",
        "renew_at",
        "reply_room",
        "session",
        "subscribes",
        "subscriptions",
        "unix_offset_s",
        "user",
    )

    def __init__(
        self,
        context: Context,
        *,
        client: str,
        session: str,
        headers: Mapping[str, str],
        now: float,
        unix_offset_s: float,
        jitter: float,
        one_way: bool = False,
    ) -> None:
        interval_s = context.client.ping_interval_s
        self.context = context
        self.client = client
        self.session = session
        self.headers = headers
        self.one_way = one_way
        self.now = now
        self.unix_offset_s = unix_offset_s
        self.user = ""
        self.info = m.ClientInfo(client=client)
        self.connecting = False
        self.connected = False
        self.closed = False
        self.subscriptions: dict[str, Subscription] = {}
        self.chain: SessionChain | None = None
        """Where the session comes from; None before it is connected, and where it cannot be resumed."""
        self.presented: tuple[str, ...] = ()
        """The owners that its reconnect token named, which is used by now; none after a login."""
        self.heard = False
        """Whether anything came from the client since it was told that it is connected."""
        self.left = False
        """Whether the client closed its socket of its own will."""
        self.moved = False
        """Whether the session goes on on another socket."""
        self.kept: dict[str, Subscription] = {}
        """What the reconnect token grants and the client has not subscribed to again, until `kept_until`."""
        self.kept_until = math.inf
        self.renew_at = math.inf
        self.reads = 0
        """Reads of history and presence under way: their replies may be large."""
        self.is_held = False
        """Whether commands of the client wait for the hub, so that its pong may be among them."""
        self.opening = 0
        """Subscriptions that are being made; they count towards the limit already."""
        self.reply_room = REPLY_ROOM_BYTES
        """Bytes of recovered publications that replies may still carry; whoever has sent them resets it."""
        self.publishes: Bucket | None = None
        self.subscribes: Bucket | None = None
        self.expires_at = math.inf
        # Not shorter than the wait for a pong, so that each answers the last ping.
        self.ping_period_s = max(interval_s * (0.9 + 0.1 * jitter), context.client.pong_timeout_s)
        self.next_ping = now + interval_s * (0.5 + 0.5 * jitter)
        self.ping_sent: float | None = None
        """When the ping was sent that was not answered yet."""
        self.pong_due = math.inf
        """When the answer to it is too late."""
        self.ends_at = math.inf
        """When the connection, or the first of its subscriptions, ends unless it is refreshed."""
        self.deadline = now + context.client.connect_timeout_s
        self._effects: list[Effect] = []
        self._flows: dict[int, tuple[Flow, str | None]] = {}
        self._busy: dict[str, deque[Callable[[], Flow]]] = {}
        self._ticket = 0

    @property
    def in_progress(self) -> int:
        """Commands begun or held back, and not yet answered."""
        held_back = sum(map(len, self._busy.values())) if self._busy else 0
        return len(self._flows) + held_back

    def allows(self, hook: str) -> bool:
        """Whether the app handles this event."""
        return hook in self.context.hooks

    # Effects

    def take(self) -> list[Effect]:
        """The effects since the last time."""
        taken, self._effects = self._effects, []
        return taken

    def emit(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def send(self, reply: m.Reply) -> None:
        """Send a reply."""
        self._effects.append(Send(reply))

    def push(self, push: m.Push) -> None:
        """Send a push."""
        self._effects.append(Send(m.Reply(push=push)))

    def refuse(self, command_id: int, refusal: Error | Disconnect) -> None:
        """Answer a command with an error, or end the connection for it."""
        if isinstance(refusal, Error) and self.one_way:
            refusal = disconnect_of(refusal)
        if isinstance(refusal, Disconnect):
            self.end(refusal)
        else:
            error = m.ErrorMessage(refusal.code, refusal.message, refusal.temporary)
            self.send(m.Reply(command_id, error))

    def publish_wait_s(self) -> float:
        """Take one publish of what connection and user may. Returns seconds to wait where it is none."""
        rates = self.context.rates
        if not rates.limits_publishes:
            return 0.0
        if rates.publish.per_s:
            self.publishes = self.publishes or Bucket()
            if wait_s := self.publishes.take(rates.publish, self.now):
                return wait_s
        return rates.user_publish.take(self.user, self.now)

    def has_room(self, size: int) -> bool:
        """Take the room for so many bytes of recovered publications in a reply, if there is as much."""
        if size > self.reply_room:
            return False
        self.reply_room -= size
        return True

    def subscribe_wait_s(self) -> float:
        """Take one subscribe of what the connection may. Returns the seconds to wait where it is none."""
        rate = self.context.rates.subscribe
        if not rate.per_s:
            return 0.0
        self.subscribes = self.subscribes or Bucket()
        return self.subscribes.take(rate, self.now)

    def leave(self, subscription: Subscription, unsubscribe: Unsubscribe | None = None) -> None:
        """End a subscription; with a reason, tell the client."""
        del self.subscriptions[subscription.channel]
        self.emit(Left(subscription))
        self.changed(subscription)
        if unsubscribe:
            push = m.UnsubscribePush(unsubscribe.code, unsubscribe.reason)
            self.push(m.Push(channel=subscription.channel, unsubscribe=push))

    def drop_kept(self, channel: str) -> None:
        """The client does not take up a subscription that was kept for it."""
        kept = self.kept.pop(channel, None)
        if kept is not None and kept.is_back:
            self.emit(Lapsed(kept))

    def changed(self, subscription: Subscription) -> None:
        """A subscription began or ended: the client's reconnect token is to say so, if it is in there."""
        if self.chain is not None and not self.closed and is_in_token(subscription):
            self.renew_soon()

    def renew_soon(self) -> None:
        """Hand out another reconnect token before long."""
        self.renew_at = min(self.renew_at, self.now + RENEW_SOON_S)
        self.deadline = min(self.deadline, self.renew_at)

    def end(self, disconnect: Disconnect) -> None:
        """End the session: leave every channel, then close."""
        self.closed = True
        self._flows.clear()
        self._busy.clear()
        for subscription in list(self.subscriptions.values()):
            self.leave(subscription)
        self.emit(Close(disconnect))

    # Times

    def ttl(self, expires_at: float) -> tuple[bool, int]:
        """The `expires` and `ttl` to answer with for an end in Unix seconds, 0 for none."""
        if not expires_at:
            return False, 0
        left_s = math.ceil(min(expires_at - self.now - self.unix_offset_s, _TTL_MAX_S))
        return True, max(1, left_s)

    def monotonic(self, expires_at: float) -> float:
        """An end in Unix seconds, 0 for none, as monotonic seconds."""
        return expires_at - self.unix_offset_s if expires_at else math.inf

    def unix(self, time: float) -> float:
        """Monotonic seconds, or `math.inf`, as Unix seconds, 0 for none."""
        return 0 if time == math.inf else time + self.unix_offset_s

    def reschedule(self) -> None:
        """Work out when the session must be looked at next."""
        ends = min((s.deadline for s in self.subscriptions.values()), default=math.inf)
        self.ends_at = min(self.expires_at, ends) + GRACE_S
        self.deadline = min(self.next_ping, self.pong_due, self.ends_at, self.renew_at, self.kept_until)

    def ping(self) -> None:
        """Send a ping. One who only listens owes no answer."""
        self.next_ping = self.now + self.ping_period_s
        if not self.one_way:
            self.ping_sent = self.now
            self.pong_due = self.now + self.context.client.pong_timeout_s
        self.send(m.PING)

    def pong(self) -> None:
        """The answer to the last ping came."""
        self.ping_sent = None
        self.pong_due = math.inf
        self.deadline = min(self.next_ping, self.ends_at, self.renew_at, self.kept_until)

    # Flows

    def start(self, flow: Callable[[], Flow], key: str | None = None) -> None:
        """Start a flow, or hold it back behind those of the same key."""
        if key is None:
            self.run(flow())
        elif key in self._busy:
            self._busy[key].append(flow)
        else:
            self._busy[key] = deque()
            self._step(flow(), key, None)

    def run(self, flow: Flow) -> None:
        """Start a flow that waits for no other, and that none waits for."""
        self._step(flow, None, None)

    def is_busy(self, key: str) -> bool:
        """Whether a flow with this key is under way."""
        return key in self._busy

    def step(self, ticket: int, outcome: Any) -> None:
        """Go on with the flow that waits for the operation with this ticket."""
        flow, key = self._flows.pop(ticket)
        self._step(flow, key, outcome)

    def _step(self, flow: Flow, key: str | None, outcome: Any) -> None:
        while True:
            try:
                operation = flow.send(outcome)
            except StopIteration:
                if key is None or self.closed:
                    return
                waiting = self._busy[key]
                if not waiting:
                    del self._busy[key]
                    return
                flow, outcome = waiting.popleft()(), None
            else:
                self._ticket += 1
                self._flows[self._ticket] = (flow, key)
                self.emit(Run(operation, self._ticket))
                return


def is_in_token(subscription: Subscription) -> bool:
    """Whether a reconnect token names a subscription: what the channel's rules allow, they allow again."""
    return (
        subscription.server_side
        or subscription.grant is not OPEN
        or subscription.presence
        or subscription.announces
    )
