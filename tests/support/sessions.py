"""A session driven by hand: a client and a node whose operations end as a test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hub.broker.base import Resumption, Stream
from hub.core import effects as e
from hub.core.channel.replay_buffer import size_of
from hub.core.channel.stream import Opened, Recovery, is_complete
from hub.core.channel.subscription import Subscription
from hub.core.hooks import HOOKS
from hub.core.rates import Rates
from hub.core.reconnect import ReconnectTokens
from hub.core.rules import Rules
from hub.core.session.session import Session
from hub.core.session.state import Context
from hub.core.tokens import Invalid
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect
from hub.settings import ChannelOptions, ClientSettings

NOW: Final = 1_000.0
"""Monotonic seconds at which a session begins."""

UNIX_NOW: Final = 1_700_000_000
"""The same moment in Unix seconds."""

_ENTER: Final = e.Run(e.WaitForTurn(), 0)

LATER: Final = object()
"""In place of an outcome: it is not known yet, and given with `Peer.finish`."""


def options(**changed: Any) -> ChannelOptions:
    """Options of a channel; `history=True` is short for a history of 10 publications."""
    if changed.pop("history", False):
        changed |= {"history_size": 10, "history_ttl_s": 60.0}
    return ChannelOptions(**changed)


def stream(*offsets: int, top: int | None = None, epoch: str = "epoch") -> Stream:
    """A stream that holds publications with these offsets."""
    publications = [m.Publication(data=m.payload(offset), offset=offset) for offset in offsets]
    return Stream(publications, m.StreamPosition(max(offsets, default=0) if top is None else top, epoch))


class Peer:
    """A client and the node that it is connected to, around one session.

    Args:
        channels: options by namespace; without any, a channel `open` is open to every client.
        hooks: by event, what the app answers: a value, or a function of the event.
        tokens: by token, the verdict.
        streams: by channel, what `Open` finds and `ReadHistory` reads, or the outcome of both.
        outcomes: by type of operation, its outcome, or `LATER`.
        jitter: of the session.
        share: another client of the same node; its settings hold.
        one_way: whether the client only listens, once it has sent its connect command.
        ids: of the client and of the socket.
        reconnect: makes reconnect tokens.
        is_handled: whether the app handles an event of a channel or method.
        read_state: reads a connection's state.
        client: settings of clients; anonymous ones are let in unless it says otherwise.
    """

    def __init__(
        self,
        channels: Mapping[str, ChannelOptions] | None = None,
        *,
        hooks: Mapping[str, Any] | None = None,
        tokens: Mapping[str, Any] | None = None,
        streams: Mapping[str, Any] | None = None,
        outcomes: Mapping[type, Any] | None = None,
        jitter: float = 1.0,
        share: Peer | None = None,
        one_way: bool = False,
        ids: tuple[str, str] = ("client-1", "session-1"),
        reconnect: ReconnectTokens | None = None,
        is_handled: Callable[[str, str], bool] = lambda hook, name: True,
        read_state: Callable[[bytes], Any] = msgspec.json.decode,
        **client: Any,
    ) -> None:
        self.hooks = dict(hooks or {})
        self.tokens = dict(tokens or {})
        self.streams = dict(streams or {})
        self.outcomes = dict(outcomes or {})
        if channels is None:
            channels = {
                "default": options(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
            }
        settings = ClientSettings(**{"anonymous": True, **client})
        rules, hooked = Rules(channels, 50), frozenset(self.hooks)
        self.unix_offset_s = UNIX_NOW - NOW
        context = Context(
            settings,
            Rates(settings),
            rules,
            hooked,
            "node-1",
            "1.2.3",
            lambda: self.now + self.unix_offset_s,
            reconnect=reconnect,
            is_handled=is_handled,
            read_state=read_state,
        )
        if share is not None:
            context = share.session.context
        self.session: Session = Session(
            context,
            client=ids[0],
            session=ids[1],
            headers={"user-agent": "test"},
            now=NOW,
            jitter=jitter,
            one_way=one_way,
        )
        self.now = NOW
        self.held: list[e.Run] = []
        self.operations: list[e.Operation] = []
        self.sent: list[m.Reply] = []
        self.effects: list[e.Effect] = []
        """All but `Refused`."""
        self.refused: list[e.Refused] = []
        self.joined: dict[str, Subscription] = {}
        self.opening: dict[str, int] = {}
        self.closed: Disconnect | None = None
        self._last_id = 0
        self._pending: deque[e.Effect] = deque()
        self._working = False

    # The client

    def send(self, **request: Any) -> int:
        """Send a command with the next id. Returns the id."""
        command_id = self.next_id()
        self.receive(m.Command(command_id, **request))
        return command_id

    def next_id(self) -> int:
        """The next id of a command."""
        self._last_id += 1
        return self._last_id

    def receive(self, command: m.Command | m.Fault) -> None:
        """Send a command as it stands."""
        self.carry_out(self.session.receive(command, self.now))

    def call(self, **request: Any) -> m.Reply:
        """Send a command that is answered at once. Returns its reply."""
        return self.reply(self.send(**request))

    def error(self, **request: Any) -> int:
        """Send a command that is refused at once. Returns the error's code."""
        reply = self.call(**request)
        assert reply.error, f"expected an error, got {reply}"
        return reply.error.code

    def connect(self, token: str = "", **fields: Any) -> m.ConnectResult:
        """Connect, and return the result."""
        result = self.call(connect=m.ConnectRequest(token=token, **fields)).connect
        assert result
        return result

    def subscribe(self, channel: str = "open", **fields: Any) -> m.SubscribeResult:
        """Subscribe, and return the result."""
        reply = self.call(subscribe=m.SubscribeRequest(channel, **fields))
        assert reply.subscribe, f"expected a subscription, got {reply}"
        return reply.subscribe

    def subscribe_error(self, channel: str = "open", **fields: Any) -> int:
        """Ask for a subscription that is refused. Returns the error's code."""
        return self.error(subscribe=m.SubscribeRequest(channel, **fields))

    def reply(self, command_id: int) -> m.Reply:
        """The one reply to a command."""
        replies = self.replies(command_id)
        assert len(replies) == 1, f"{len(replies)} replies to command {command_id}; closed: {self.closed}"
        return replies[0]

    def replies(self, command_id: int) -> list[m.Reply]:
        """The replies to a command so far."""
        return [reply for reply in self.sent if reply.id == command_id]

    @property
    def pushes(self) -> list[m.Push]:
        """What was pushed so far."""
        return [reply.push for reply in self.sent if reply.push]

    # The node

    def tick(self, now: float) -> None:
        """Let the time be `now`, and have the session look at it."""
        self.now = now
        self.carry_out(self.session.tick(now))

    def finish(self, *outcome: Any, index: int = 0) -> None:
        """Give an operation that is held its outcome: this one, or the one in the tables."""
        run = self.held.pop(index)
        value = _found(run.operation, outcome[0] if outcome else self._outcome(run.operation))
        self._settle(run.operation)
        self.carry_out(self.session.resume(run.ticket, value, self.now))

    def carry_out(self, effects: list[e.Effect]) -> None:
        """Do what the session decided, in the order of its decisions, and check that it may decide so."""
        self._pending.extend(effects)
        if self._working:
            return
        self._working = True
        while self._pending:
            effect = self._pending.popleft()
            assert self.closed is None, f"{effect} after the end"
            if isinstance(effect, e.Refused):
                self.refused.append(effect)
            elif effect != _ENTER:  # which every connection begins with
                self.effects.append(effect)
            match effect:
                case e.Send(reply):
                    self.sent.append(reply)
                case e.Close(disconnect):
                    assert not self.joined, f"closed inside {list(self.joined)}"
                    self.closed = disconnect
                case e.SubscriptionStarted(subscription):
                    assert subscription.channel not in self.joined
                    self._opened(subscription.channel)
                    self.joined[subscription.channel] = subscription
                case e.SubscriptionEnded(subscription):
                    assert self.joined.pop(subscription.channel) is subscription
                case e.CancelSubscribe(channel):
                    self._opened(channel)
                case e.Run(operation):
                    self._run(effect, operation)
        self._working = False

    def _run(self, run: e.Run, operation: e.Operation) -> None:
        if not isinstance(operation, e.WaitForTurn | e.Admit):  # which every connection asks for
            self.operations.append(operation)
        for channel in _opens(operation):
            assert channel not in self.opening, f"{channel} is opened twice at once"
            assert channel not in self.joined, f"{channel} is opened again"
            self.opening[channel] = 1
        self.held.append(run)
        if self.outcomes.get(type(operation)) is not LATER:
            self.finish(index=-1)

    def _settle(self, operation: e.Operation) -> None:
        for channel in _opens(operation):
            self.opening[channel] = 0

    def _opened(self, channel: str) -> None:
        assert self.opening.pop(channel) == 0, f"{channel} is decided before its outcome"

    def _outcome(self, operation: e.Operation) -> Any:
        table = self.outcomes.get(type(operation))
        if table is not None and table is not LATER:
            return table
        match operation:
            case e.Verify(token):
                return self.tokens.get(token, Invalid("unknown to the test"))
            case e.WaitForTurn() | e.Admit():
                return None
            case e.ResumeSession():
                return Resumption("resumed")
            case e.CallHandler(event):
                answer = self.hooks[HOOKS[type(event)]]
                return answer(event) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]
            case e.OpenChannel(channel) | e.ReadHistory(channel):
                return self.streams.get(channel, stream())
            case e.OpenChannels(opens):
                return [self.streams.get(each.channel, stream()) for each in opens]
            case e.Publish():
                return m.StreamPosition(1, "epoch")
            case e.ReadPresence():
                return {}


def _found(operation: e.Operation, outcome: Any) -> Any:
    """The outcome of an operation, streams as a subscriber finds them in place of streams."""
    match operation, outcome:
        case e.OpenChannel(_, _, since), Stream():
            return opened(outcome, since)
        case e.OpenChannels(opens), [*outcomes]:
            return [_found(each, found) for each, found in zip(opens, outcomes, strict=True)]
    return outcome


def opened(found: Stream, since: m.StreamPosition | None) -> Opened:
    """What a node makes of a stream for a subscriber."""
    if since is None:
        return Opened(found.top)
    if not is_complete(since, found.publications, found.top):
        return Opened(found.top, Recovery(False, m.NO_PUBLICATIONS, found.top))
    missed = m.Publications(found.publications, sum(map(size_of, found.publications)))
    return Opened(found.top, Recovery(True, missed, m.StreamPosition(since.offset, found.top.epoch)))


def connected(*args: Any, **kwargs: Any) -> Peer:
    """A peer that is connected, as an anonymous client unless its hooks say otherwise."""
    peer = Peer(*args, **kwargs)
    peer.connect()
    return peer


def _opens(operation: e.Operation) -> list[str]:
    match operation:
        case e.OpenChannel(channel):
            return [channel]
        case e.OpenChannels(opens):
            return [each.channel for each in opens]
    return []
