"""hub/core/session under arbitrary clients, and operations that end in any order, fail or return garbage.

`Peer` checks each effect: nothing follows the end; what is opened is joined or abandoned, and left once.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw
from support.sessions import LATER, UNIX_NOW, Peer, options, stream

from hub.core import effects as e
from hub.core import hooks as h
from hub.core.channel.subscription import Grant
from hub.core.session.state import GRACE_S
from hub.core.tokens import ConnectionClaims, Expired, Invalid, SubscriptionClaims, SubscriptionGrant
from hub.protocol import messages as m
from hub.protocol.codes import (
    DISCONNECTS,
    ERRORS,
    UNSUBSCRIBES,
    Disconnect,
    Disconnects,
    Errors,
    Unsubscribes,
)
from hub.protocol.json import JSONCodec

CODEC = JSONCodec()
CHANNELS_MAX = 3
OPERATIONS = (
    e.Verify,
    e.CallHandler,
    e.OpenChannel,
    e.OpenChannels,
    e.Publish,
    e.ReadHistory,
    e.ReadPresence,
)

good_channels = st.sampled_from(["a", "b", "c", "d", "kept:x", "kept:y", "room#ann"])
bad_channels = st.sampled_from(["room#bob", "off:x", "unknown:x", "no name", ""])
channels = st.one_of(good_channels, good_channels, good_channels, bad_channels)
users = st.sampled_from(["", "ann", "bob"])
offsets = st.integers(0, 5)
epochs = st.sampled_from(["", "epoch", "another"])
texts = st.sampled_from(["", "token", "x" * 60])
payloads = st.sampled_from([m.NO_PAYLOAD, Raw(b"null"), Raw(b'{"a":[1,2]}'), Raw(b'"text"')])
positions = st.builds(m.StreamPosition, offsets, epochs)
unix_times = st.integers(-5, 60).map(lambda seconds: UNIX_NOW + seconds) | st.just(0)
bools = st.booleans()

# Half of the tokens name the channel that they are used for.
channels_and_tokens = channels.flatmap(lambda name: st.tuples(st.just(name), texts | st.just(name)))
subscribes = st.builds(
    lambda names, **fields: m.SubscribeRequest(*names, **fields),
    channels_and_tokens,
    recover=bools,
    epoch=epochs,
    offset=offsets,
    data=payloads,
    positioned=bools,
    recoverable=bools,
    join_leave=bools,
    tf=st.sampled_from([None, None, m.FilterNode()]),
    flag=st.integers(0, 3),
)
connects = st.builds(
    m.ConnectRequest, texts, payloads, st.dictionaries(channels, subscribes, max_size=3), texts, texts
)
requests: dict[str, st.SearchStrategy[Any]] = {
    "connect": connects,
    "subscribe": subscribes,
    "unsubscribe": st.builds(m.UnsubscribeRequest, channels),
    "publish": st.builds(m.PublishRequest, channels, payloads),
    "presence": st.builds(m.PresenceRequest, channels),
    "presence_stats": st.builds(m.PresenceStatsRequest, channels),
    "history": st.builds(m.HistoryRequest, channels, st.integers(-2, 2_000), st.none() | positions, bools),
    "ping": st.just(m.PingRequest()),
    "send": st.builds(m.SendRequest, payloads),
    "rpc": st.builds(m.RPCRequest, payloads, texts),
    "refresh": st.builds(m.RefreshRequest, texts),
    "sub_refresh": channels_and_tokens.map(lambda names: m.SubRefreshRequest(*names)),
}
one_request = st.sampled_from(sorted(requests)).flatmap(
    lambda name: st.fixed_dictionaries({name: requests[name]})
)
two_requests = st.tuples(one_request, one_request).map(lambda pair: pair[0] | pair[1])
in_a_channel = st.sampled_from(["subscribe", "unsubscribe", "publish", "sub_refresh"]).flatmap(
    lambda name: st.fixed_dictionaries({name: requests[name]})
)

errors = st.sampled_from(ERRORS)
refusals = st.one_of(errors, st.sampled_from(DISCONNECTS))
rarely = st.integers(0, 29).map(lambda number: number == 29)
replaced = st.none() | bools
times_to_live = st.none() | st.integers(0, 60)
streams = st.builds(
    lambda first, count, gone, epoch: stream(
        *range(first, first + count), top=first + count - 1 + gone, epoch=epoch
    ),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 1),
    st.sampled_from(["epoch", "another"]),
)
subscribe_replies = st.builds(
    h.SubscribeReply, replaced, replaced, times_to_live, replaced, replaced, replaced, replaced, replaced
)
answers: dict[type, st.SearchStrategy[Any]] = {
    h.ConnectEvent: st.builds(
        h.ConnectReply,
        st.none() | users,
        replaced,
        replaced,
        st.dictionaries(channels, subscribe_replies, max_size=CHANNELS_MAX),
        times_to_live,
    ),
    h.SubscribeEvent: subscribe_replies,
    h.PublishEvent: st.builds(h.PublishReply, replaced, st.none() | st.just({"tag": "1"}), bools),
    h.RPCEvent: st.builds(h.RPCReply, replaced),
    h.MessageEvent: st.none(),
}
connection_claims = st.builds(
    ConnectionClaims,
    users,
    unix_times,
    payloads,
    channels=st.lists(channels, max_size=CHANNELS_MAX + 1).map(tuple),
    subs=st.dictionaries(channels, st.builds(SubscriptionGrant, payloads, payloads), max_size=1),
)
bad_tokens = st.sampled_from([Expired(), Invalid("forged"), Errors.INTERNAL])


def outcomes(operation: e.Operation) -> st.SearchStrategy[Any]:
    """Whatever may become of an operation."""
    match operation:
        case e.Verify(kind="connection"):
            return connection_claims | bad_tokens
        case e.Verify(token):
            names = st.just(token)
            return (
                st.builds(SubscriptionClaims, st.just("ann") | users, names, unix_times, payloads)
                | bad_tokens
            )
        case e.CallHandler(event):
            return st.one_of(answers[type(event)], answers[type(event)], st.none(), refusals)
        case e.OpenChannels(opens):
            each = st.one_of(streams, streams, errors)
            return st.lists(each, min_size=len(opens), max_size=len(opens)) | errors
        case e.Publish():
            return positions | errors
        case e.ReadPresence():
            return st.dictionaries(texts, st.builds(m.ClientInfo, users, texts), max_size=3) | errors
        case _:
            return streams | errors


class Garbage:
    """An outcome without any attribute."""


class Anything(RuleBasedStateMachine):
    """A session from its first command to its end."""

    peer: Peer

    @initialize(
        hooks=st.sets(st.sampled_from(sorted(h.HOOKS.values()))),
        client=st.fixed_dictionaries(
            {"insecure": bools, "anonymous": bools, "user_personal_channel": st.sampled_from(["", "#{user}"])}
        ),
        jitter=st.floats(0, 1),
        connects=st.sampled_from(["at once", "at once", "slowly", "never"]),
    )
    def accepted(self, hooks: set[str], client: dict[str, Any], jitter: float, connects: str) -> None:
        allowed = {
            f"allow_{action}_for_{who}": True
            for action in ("publish", "history", "presence")
            for who in ("client", "subscriber")
        }
        some = options(allow_subscribe_for_client=True, allow_publish_for_subscriber=True)
        kept = options(
            history=True, presence=True, join_leave=True, allow_subscribe_for_client=True, **allowed
        )
        self.peer = Peer(
            {"default": some, "kept": kept, "off": options()},
            hooks=dict.fromkeys(hooks),
            tokens={"token": ConnectionClaims("ann")},
            ping_interval_s=30,
            pong_timeout_s=29,
            outcomes=dict.fromkeys(OPERATIONS, LATER),
            jitter=jitter,
            channels_max=CHANNELS_MAX,
            **client,
        )
        self.expected: set[int] = set()
        self.behind_connect: set[int] = set()
        self.encoded = 0
        if connects != "never":
            self.command({"connect": m.ConnectRequest("token")})
        while self.peer.held and connects == "at once":
            self.finish(0)

    @property
    def session(self) -> Any:
        return self.peer.session

    # The client

    @rule(request=connects)
    @precondition(lambda self: not (self.session.connecting or self.session.connected or self.session.closed))
    def connect(self, request: m.ConnectRequest) -> None:
        self.command({"connect": request})

    @rule(request=in_a_channel)
    @precondition(lambda self: self.session.connected or self.session.connecting)
    def use_a_channel(self, request: dict[str, Any]) -> None:
        self.command(request)

    @rule(request=subscribes)
    @precondition(lambda self: self.session.connected or self.session.connecting)
    def subscribe(self, request: m.SubscribeRequest) -> None:
        self.command({"subscribe": request})

    @rule(request=one_request | two_requests | st.just({}))
    def command(self, request: dict[str, Any]) -> None:
        command_id = self.peer.next_id()
        if list(request) != ["send"]:
            self.expected.add(command_id)
            if self.session.connecting and len(request) == 1:
                self.behind_connect.add(command_id)
        self.peer.receive(m.Command(command_id, **request))

    @rule(message=st.builds(m.SendRequest, payloads))
    def a_message(self, message: m.SendRequest) -> None:
        self.peer.receive(m.Command(send=message))

    @rule(now=rarely, request=one_request)
    def a_command_without_an_id(self, now: bool, request: dict[str, Any]) -> None:
        if now:
            self.peer.receive(m.Command(**request))

    @rule(now=rarely, has_id=bools)
    def a_fault(self, now: bool, has_id: bool) -> None:
        if has_id:
            command_id = self.peer.next_id()
            self.expected.add(command_id)
            self.peer.receive(m.Fault(command_id, "unreadable"))
        elif now:
            self.peer.receive(m.Fault(0, "unreadable"))

    @rule(now=rarely)
    def pong(self, now: bool) -> None:
        if now or self.session.ping_sent is not None:
            self.peer.receive(m.Command())

    # The node

    @rule(data=st.data())
    @precondition(lambda self: self.peer.held)
    def an_operation_ends(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.peer.held) - 1))
        self.finish(index, data.draw(outcomes(self.peer.held[index].operation)))

    @rule(data=st.data(), now=rarely)
    @precondition(lambda self: self.peer.held)
    def an_operation_returns_garbage(self, data: st.DataObject, now: bool) -> None:
        """The session raises or answers. The node ends a session that raises, and no other."""
        index = data.draw(st.integers(0, len(self.peer.held) - 1))
        if not now or isinstance(self.peer.held[index].operation, e.ReadPresence):
            return
        try:
            self.finish(index, data.draw(st.sampled_from([None, 7, "text", [], Garbage()])))
        except (AttributeError, TypeError, ValueError):
            self.peer.carry_out(self.session.disconnect(Disconnects.INTERNAL_ERROR))

    @rule()
    def all_operations_end(self) -> None:
        for _ in range(len(self.peer.held)):
            self.finish(0)

    @rule(seconds=st.none() | st.integers(0, 30), answers=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: not self.session.closed)
    def time_goes_on(self, seconds: int | None, answers: bool) -> None:
        """Some seconds, or to the deadline; the client answers a ping, or does not."""
        now = self.peer.now
        self.peer.tick(max(now, self.session.deadline) if seconds is None else now + seconds)
        if answers and self.session.ping_sent is not None:
            self.peer.receive(m.Command())
        assert self.session.closed or self.session.deadline > self.peer.now

    @rule(channel=channels, since=st.none() | positions, data=payloads)
    def the_server_subscribes(self, channel: str, since: m.StreamPosition | None, data: m.Payload) -> None:
        self.peer.carry_out(self.session.subscribe(channel, Grant(data=data), since, self.peer.now))

    @rule(channel=channels, unsubscribe=st.sampled_from(UNSUBSCRIBES), times=st.integers(1, 2))
    def the_server_unsubscribes(self, channel: str, unsubscribe: Any, times: int) -> None:
        """Messages between nodes may be repeated."""
        subscription = self.session.subscriptions.get(channel)
        for _ in range(times):
            self.peer.carry_out(self.session.unsubscribe(channel, unsubscribe, self.peer.now))
        if subscription and subscription.server_side and unsubscribe is Unsubscribes.INSUFFICIENT_STATE:
            busy = self.session.is_busy(channel)
            assert busy or self.peer.closed == Disconnects.INSUFFICIENT_STATE, "the client is told"

    @rule(expires_at=unix_times, times=st.integers(1, 2))
    def the_server_refreshes(self, expires_at: int, times: int) -> None:
        for _ in range(times):
            self.peer.carry_out(self.session.refresh(expires_at, self.peer.now))

    @rule(now=rarely, times=st.integers(1, 2))
    def another_socket_has_the_session(self, now: bool, times: int) -> None:
        for _ in range(times if now else 0):
            self.peer.carry_out(self.session.move())

    @rule(now=rarely, disconnect=st.sampled_from(DISCONNECTS))
    def the_server_disconnects(self, now: bool, disconnect: Disconnect) -> None:
        if now:
            self.peer.carry_out(self.session.disconnect(disconnect))

    # What always holds

    @invariant()
    def the_node_knows_the_subscriptions(self) -> None:
        assert self.peer.joined == self.session.subscriptions
        assert all(subscription.channel == name for name, subscription in self.peer.joined.items())

    @invariant()
    def the_limit_of_subscriptions_holds(self) -> None:
        opening = sum(isinstance(run.operation, e.OpenChannel) for run in self.peer.held)
        assert self.session.closed or self.session.opening == opening
        assert len(self.peer.joined) + opening <= CHANNELS_MAX

    @invariant()
    def it_is_looked_at_in_time(self) -> None:
        session = self.session
        assert math.isfinite(session.deadline)
        if session.connected and not session.closed:
            ends = [session.expires_at, *(each.deadline for each in session.subscriptions.values())]
            assert session.deadline <= min(session.next_ping, session.pong_due, min(ends) + GRACE_S)

    @invariant()
    def no_command_has_two_replies(self) -> None:
        replied = [reply.id for reply in self.peer.sent if reply.id]
        assert len(replied) == len(set(replied))
        assert set(replied) <= self.expected

    @invariant()
    def a_client_that_is_not_connected_hears_of_errors_alone(self) -> None:
        assert self.session.connected or all(reply.error for reply in self.peer.sent)

    @invariant()
    def what_is_sent_can_be_encoded(self) -> None:
        for reply in self.peer.sent[self.encoded :]:
            assert b"\n" not in CODEC.encode(reply)
        self.encoded = len(self.peer.sent)

    def teardown(self) -> None:
        """Once all outcomes are in, an open session has answered everything, and has nothing left to do."""
        while self.peer.held:
            self.finish(0)
        assert self.session.in_progress == 0
        if self.session.closed:
            assert isinstance(self.peer.effects[-1], e.Close)
            assert self.session.subscriptions == {}
        else:
            assert self.peer.opening == {}
            assert self.expected == {reply.id for reply in self.peer.sent if reply.id}

    def finish(self, index: int, *outcome: Any) -> None:
        note(f"{self.peer.held[index]} ends with {outcome or 'what the peer says'}")
        was_connecting = self.session.connecting
        self.peer.finish(*outcome, index=index)
        if was_connecting and not self.session.connecting:
            if not self.session.connected:  # refused: what was sent behind it is dropped
                self.expected -= self.behind_connect
            self.behind_connect = set()


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
