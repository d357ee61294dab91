"""The state of a session, and the flows that change it.

A command that needs something from outside the session is a flow: a generator that yields operations and
receives their outcomes, so that it reads from top to bottom. Flows of one channel that change its
subscription or call the app run one after another. All other flows run concurrently.

Times are monotonic seconds unless a name or a docstring says Unix seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from hub.core.channel.deltas import Deltas
from hub.core.channel.replay_buffer import PAGE_BYTES_MAX
from hub.core.channel.subscription import OPEN, Subscription
from hub.core.effects import AnnounceLeave, Close, Effect, Operation, Refused, Run, Send, SubscriptionEnded
from hub.core.hooks import state_json
from hub.core.rates import Bucket, Rates
from hub.core.reconnect import ReconnectTokens, SessionChain
from hub.core.rules import Rules
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Unsubscribe, disconnect_of
from hub.settings import ClientSettings

GRACE_S: Final = 25.0
"""Seconds that a connection or subscription lasts beyond its `ttl`, so that a refresh may be late."""

_TTL_MAX_S: Final = 2**31 - 1
"""The largest `ttl` sent to a client: some clients store it in 32 bits."""

REPLY_ROOM_BYTES: Final = PAGE_BYTES_MAX
"""Bytes of recovered publications that the unsent replies of one client carry together at the most."""

RENEW_SOON_S: Final = 1.0
"""Seconds between a change of a client's rights and the reconnect token that contains the change. Several
changes in this time share one token."""

Flow: TypeAlias = Generator[Operation, Any, None]


@dataclass(frozen=True, slots=True)
class Context:
    """What all sessions of a node share.

    Args:
        client: limits and times.
        rates: rate limits.
        rules: the options of channels.
        hooks: names of the events that the app handles.
        node: id of the node.
        version: version of the hub.
        wall_clock: Unix seconds. It is read whenever Unix time is needed, because the wall clock may jump.
        deltas: computes deltas for subscribers.
        reconnect: signs reconnect tokens; None disables them.
        is_handled: whether a handler of the app is for a channel or a method, by the event, which is one of
            `hooks`, and by the name of the channel or method.
        read_state: reads a connection's state, which is JSON, from a reconnect token.
    """

    client: ClientSettings
    rates: Rates
    rules: Rules
    hooks: frozenset[str]
    node: str
    version: str
    wall_clock: Callable[[], float]
    deltas: Deltas = field(default_factory=Deltas)
    reconnect: ReconnectTokens | None = None
    is_handled: Callable[[str, str], bool] = lambda hook, name: True
    read_state: Callable[[bytes], Any] = msgspec.json.decode
    serial_publishes: bool = field(init=False)
    """Whether a client's publishes to a channel run one after another, since handlers see their order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "serial_publishes", not self.hooks.isdisjoint(("publish", "after_publish")))


class SessionState:
    """The state of one client. `Session` adds the events that change it.

    Args:
        context: what the node's sessions share.
        client: id of the client, as other clients see it. A reconnect token replaces it with the earlier id.
        session: id of the socket, which only its client knows.
        headers: HTTP headers of the handshake, for the connect hook.
        now: monotonic seconds.
        jitter: 0 to 1, spreads the pings of connections.
        one_way: whether the client sends only a connect command, and receives only pushes.
    """

    __slots__ = (
        "_busy",
        "_effects",
        "_ticket",
        "app_state",
        "app_state_sent",
        "chain",
        "client",
        "closed",
        "connected",
        "connecting",
        "context",
        "deadline",
        "ends_at",
        "expires_at",
        "expires_at_unix",
        "flows",
        "headers",
        "heard",
        "info",
        "is_held",
        "left",
        "login_channels",
        "moved",
        "next_ping",
        "now",
        "one_way",
        "opening",
        "ping_period_s",
        "ping_sent",
        "pong_due",
        "pongs_owed",
        "presented",
        "publishes",
        "reads",
        "renew_at",
        "reply_room",
        "restorable",
        "restorable_until",
        "resumed_at",
        "session",
        "subscribes",
        "subscriptions",
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
        self.user = ""
        self.info = m.ClientInfo(client=client)
        self.app_state: Any = None
        """What the app keeps of the connection; None until a handler is called."""
        self.app_state_sent = b""
        """JSON of the state in the last reconnect token."""
        self.connecting = False
        self.connected = False
        self.closed = False
        self.subscriptions: dict[str, Subscription] = {}
        self.chain: SessionChain | None = None
        """The sockets that the session has been on; None before the connect, and without reconnect tokens."""
        self.login_channels = ""
        """`ConnectionClaims.channels_digest` of the token that the client logged in with."""
        self.presented: tuple[str, ...] = ()
        """The owners in the reconnect token that the client connected with; empty after a login."""
        self.resumed_at = 0.0
        """Unix seconds at which this socket became the session's owner; 0 after a login."""
        self.heard = False
        """Whether the client sent anything after its connect reply, so that it has the reply."""
        self.left = False
        """Whether the client itself closed its socket."""
        self.moved = False
        """Whether the session goes on on another socket."""
        self.is_held = False
        """Whether the connection holds commands back because of the hub's own work. A pong may be among them,
        so the client is not disconnected for a late pong meanwhile."""
        self.reads = 0
        """Reads of history and presence that are in progress."""
        self.restorable: dict[str, Subscription] = {}
        """Subscriptions from before the reconnect that the client may restore until `restorable_until`."""
        self.restorable_until = math.inf
        self.renew_at = math.inf
        self.opening = 0
        """Subscriptions in progress, which count towards the limit."""
        self.reply_room = REPLY_ROOM_BYTES
        """Bytes of recovered publications that replies may still carry. The node resets it after a write."""
        self.publishes: Bucket | None = None
        self.subscribes: Bucket | None = None
        self.expires_at = math.inf
        """When the connection expires."""
        self.expires_at_unix = 0.0
        """The same in Unix seconds, 0 for never: a reconnect token contains it."""
        # Not shorter than the time limit of a pong, so that a pong always answers the last ping.
        self.ping_period_s = max(interval_s * (0.9 + 0.1 * jitter), context.client.pong_timeout_s)
        self.next_ping = now + interval_s * (0.5 + 0.5 * jitter)
        self.ping_sent: float | None = None
        """When the unanswered ping was sent."""
        self.pongs_owed = 0
        """Pings that were not answered: several, while commands of the client wait for the hub."""
        self.pong_due = math.inf
        """When its pong is late."""
        self.ends_at = math.inf
        """When the connection or its first subscription ends, unless it is refreshed."""
        self.deadline = now + context.client.connect_timeout_s
        """When the node must call `tick`."""
        self._effects: list[Effect] = []
        self.flows: dict[int, tuple[Flow, str | None]] = {}
        """Commands in progress, by the ticket of the operation that each waits for."""
        self._busy: dict[str, deque[Callable[[], Flow]]] = {}
        self._ticket = 0

    @property
    def in_progress(self) -> int:
        """Commands that are not answered yet."""
        queued = sum(map(len, self._busy.values())) if self._busy else 0
        return len(self.flows) + queued

    def handles(self, hook: str, name: str) -> bool:
        """Whether the app handles this event of this channel or method."""
        return hook in self.context.hooks and self.context.is_handled(hook, name)

    def shared_state(self) -> Any:
        """The connection's state, which all events of the connection share."""
        if self.app_state is None:
            self.app_state = {}
        return self.app_state

    def state_json(self) -> bytes:
        """JSON of the connection's state. Of a state without such a form, the last JSON that was sent."""
        try:
            return state_json(self.app_state)
        except Exception:  # the handler that made the state so has failed, which was logged
            return self.app_state_sent

    def after_handler(self) -> None:
        """Renew the reconnect token soon if a handler changed the connection's state."""
        if self.app_state and self.chain is not None and self.state_json() != self.app_state_sent:
            self.renew_soon()

    # Effects

    def take(self) -> list[Effect]:
        """Return the effects since the last call."""
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
            self.record(refusal)
            refusal = refusal.explained(insecure=self.context.client.insecure)
            error = m.ErrorMessage(refusal.code, refusal.message, refusal.temporary)
            self.send(m.Reply(command_id, error))

    def record(self, refusal: Error | Disconnect) -> None:
        """Have the cause of a refusal logged, if it has one."""
        if refusal.cause is not None:
            self.emit(Refused(refusal.code, refusal.cause))

    def publish_wait_s(self) -> float:
        """Count one publish against the limits of connection and user. Returns the seconds to wait, or 0."""
        rates = self.context.rates
        if rates.publish.per_s:
            self.publishes = self.publishes or Bucket()
            if wait_s := self.publishes.take(rates.publish, self.now):
                return wait_s
        return rates.user_publish.take(self.user, self.now)

    def reserve_room(self, size: int) -> bool:
        """Reserve bytes of recovered publications in a reply. Returns whether there is room for them."""
        if size > self.reply_room:
            return False
        self.reply_room -= size
        return True

    def subscribe_wait_s(self) -> float:
        """Count one subscribe against the limit of the connection. Returns the seconds to wait, or 0."""
        rate = self.context.rates.subscribe
        if not rate.per_s:
            return 0.0
        self.subscribes = self.subscribes or Bucket()
        return self.subscribes.take(rate, self.now)

    def leave(self, subscription: Subscription, unsubscribe: Unsubscribe | None = None) -> None:
        """End a subscription. With a reason, tell the client."""
        del self.subscriptions[subscription.channel]
        self.emit(SubscriptionEnded(subscription))
        self.changed(subscription)
        if unsubscribe:
            push = m.UnsubscribePush(unsubscribe.code, unsubscribe.reason)
            self.push(m.Push(channel=subscription.channel, unsubscribe=push))

    def drop_restorable(self, channel: str) -> None:
        """Give up a subscription from before the reconnect, which the client does not restore."""
        subscription = self.restorable.pop(channel, None)
        if subscription is not None and subscription.is_back:
            self.emit(AnnounceLeave(subscription))

    def changed(self, subscription: Subscription) -> None:
        """Renew the reconnect token soon, if it contains this subscription, which began or ended."""
        if self.chain is not None and not self.closed and is_in_token(subscription):
            self.renew_soon()

    def renew_soon(self) -> None:
        """Send the client a new reconnect token within `RENEW_SOON_S`."""
        self.renew_at = min(self.renew_at, self.now + RENEW_SOON_S)
        self.deadline = min(self.deadline, self.renew_at)

    def end(self, disconnect: Disconnect) -> None:
        """End the session: end every subscription, then close."""
        self.record(disconnect)
        self.closed = True
        self.flows.clear()
        self._busy.clear()
        for subscription in list(self.subscriptions.values()):
            self.leave(subscription)
        self.emit(Close(disconnect))

    # Times

    def ttl(self, expires_at: float) -> tuple[bool, int]:
        """The fields `expires` and `ttl` of a result, for an expiry in Unix seconds, 0 for never."""
        if not expires_at:
            return False, 0
        left_s = math.ceil(min(expires_at - self.context.wall_clock(), _TTL_MAX_S))
        return True, max(1, left_s)

    def monotonic(self, expires_at: float) -> float:
        """Convert an expiry from Unix seconds, 0 for never, to monotonic seconds."""
        return self.now + (expires_at - self.context.wall_clock()) if expires_at else math.inf

    def set_expiry(self, expires_at: float) -> None:
        """Set when the connection expires, in Unix seconds, 0 for never."""
        self.expires_at_unix = expires_at
        self.expires_at = self.monotonic(expires_at)

    def reschedule(self) -> None:
        """Set the time of the next `tick`."""
        ends = min((s.deadline for s in self.subscriptions.values()), default=math.inf)
        self.ends_at = min(self.expires_at, ends) + GRACE_S
        self.deadline = min(self.next_ping, self.pong_due, self.ends_at, self.renew_at, self.restorable_until)

    def ping(self) -> None:
        """Send a ping. A one-way client does not answer it."""
        self.next_ping = self.now + self.ping_period_s
        if not self.one_way:
            self.ping_sent = self.now
            self.pongs_owed += 1
            self.pong_due = self.now + self.context.client.pong_timeout_s
        self.send(m.PING)

    def pong(self) -> None:
        """Record the answer to a ping."""
        self.pongs_owed -= 1
        if self.pongs_owed:
            return
        self.ping_sent = None
        self.pong_due = math.inf
        self.deadline = min(self.next_ping, self.ends_at, self.renew_at, self.restorable_until)

    # Flows

    def start(self, flow: Callable[[], Flow], key: str | None = None) -> None:
        """Start a flow, after the flows of the same key."""
        if key is None:
            self.run(flow())
        elif key in self._busy:
            self._busy[key].append(flow)
        else:
            self._busy[key] = deque()
            self._step(flow(), key, None)

    def run(self, flow: Flow) -> None:
        """Start a flow at once, concurrently with all others."""
        self._step(flow, None, None)

    def is_busy(self, key: str) -> bool:
        """Whether a flow with this key is in progress."""
        return key in self._busy

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
                self.flows[self._ticket] = (flow, key)
                self._effects.append(Run(operation, self._ticket))
                return


def is_in_token(subscription: Subscription) -> bool:
    """Whether a reconnect token contains a subscription.

    One that the channel's own rules allow, and that other clients do not see, is left out: the rules allow it
    again.
    """
    return (
        subscription.server_side
        or subscription.grant is not OPEN
        or subscription.presence
        or subscription.announces
    )
