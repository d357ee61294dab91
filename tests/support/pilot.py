"""A client's machine driven by hand: an app, a socket and a hub that do as a test says."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeVar

from hub.client import effects as e
from hub.client import values
from hub.client.codec import CODECS
from hub.client.machine import ClientMachine
from hub.client.state import ClientOptions
from hub.client.subscription import SubscriptionMachine, SubscriptionOptions
from hub.protocol import messages as m
from hub.protocol.json import JSONCodec

NOW: Final = 1_000.0
"""Monotonic seconds at which a client begins."""

T = TypeVar("T")


class Pilot:
    """Around one machine.

    Args:
        chance: what comes of each draw.
        token: the app's first one.
        options: of the client.
    """

    def __init__(self, *, chance: float = 0.5, token: str = "", data: Any = None, **options: Any) -> None:
        codec = CODECS["json"]
        self.machine = ClientMachine(
            codec,
            ClientOptions(**options),
            chance=lambda: chance,
            token=token,
            data=m.NO_PAYLOAD if data is None else codec.payload(data),
        )
        self.now = NOW
        self.link = 0
        """Of the socket that there is, or is being opened; 0 for none."""
        self.commands: deque[m.Command] = deque()
        """Sent, and not yet looked at."""
        self.frames: list[bytes] = []
        self.asked: deque[tuple[int, str]] = deque()
        """Tickets and channels of the tokens that are wanted."""
        self.events: list[values.Event] = []
        self.outcomes: dict[Any, Any] = {}
        self.codec = JSONCodec()

    def do(self, effects: list[e.Effect]) -> None:
        """Carry effects out."""
        for effect in effects:
            match effect:
                case e.OpenSocket(link):
                    assert not self.link, "a second socket beside the first"
                    self.link = link
                case e.Write(data):
                    assert self.link, "nothing is written without a socket"
                    self.frames.append(data)
                    for command in self.codec.decode(data):
                        assert isinstance(command, m.Command), command
                        self.commands.append(command)
                case e.CloseSocket():
                    self.link = 0
                case e.GetToken(ticket, channel):
                    self.asked.append((ticket, channel))
                case e.Emit(event):
                    self.events.append(event)
                case e.Settle(key, outcome):
                    assert key not in self.outcomes, f"{key} has two outcomes"
                    self.outcomes[key] = outcome

    # The socket and the hub

    def open(self) -> None:
        """The socket opens."""
        self.do(self.machine.opened(self.link, self.now))

    def hear(self, *replies: m.Reply) -> None:
        """The hub says this, in one message."""
        self.hear_bytes(b"\n".join(self.codec.encode(reply) for reply in replies))

    def hear_bytes(self, message: bytes) -> None:
        """This comes over the socket."""
        self.do(self.machine.received(self.link, message, self.now))

    def push(self, channel: str = "", **push: Any) -> None:
        """The hub pushes this."""
        self.hear(m.Reply(push=m.Push(channel=channel, **push)))

    def publish(self, channel: str, *offsets: int) -> None:
        """The hub delivers publications that hold their offsets."""
        self.hear(*(m.Reply(push=m.Push(channel=channel, pub=publication(each))) for each in offsets))

    def lose(self, code: int = 1006, reason: str = "") -> None:
        """The socket closes."""
        self.do(self.machine.lost(self.link, code, reason, self.now))

    def command(self) -> m.Command:
        """The next command that was sent."""
        assert self.commands, f"nothing was sent; events: {self.events}"
        return self.commands.popleft()

    def answer(self, **result: Any) -> m.Command:
        """The hub answers to the next command. Returns the command."""
        command = self.command()
        self.hear(m.Reply(command.id, **result))
        return command

    def refuse(self, code: int, *, temporary: bool = False) -> None:
        """The hub answers to the next command with an error."""
        self.answer(error=m.ErrorMessage(code, "no", temporary))

    # The app

    def connect(self, **result: Any) -> m.ConnectRequest:
        """Connect, and be answered. Returns what was asked."""
        self.do(self.machine.connect(self.now))
        return self.enter(**result)

    def enter(self, **result: Any) -> m.ConnectRequest:
        """The socket opens, and the hub lets the client in. Returns what was asked."""
        self.open()
        command = self.answer(
            connect=m.ConnectResult(**{"client": "client-1", "ping": 25, "pong": True, **result})
        )
        assert command.connect
        return command.connect

    def come_back(self, **result: Any) -> m.ConnectRequest:
        """Wait for the next try, which succeeds. Returns what was asked."""
        self.wait()
        return self.enter(**result)

    def register(self, channel: str = "news", **options: Any) -> SubscriptionMachine:
        """A subscription that was begun."""
        subscription = self.machine.new_subscription(channel, SubscriptionOptions(**options))
        self.do(self.machine.subscribe(channel, self.now))
        return subscription

    def subscribe(
        self, channel: str = "news", result: dict[str, Any] | None = None, **options: Any
    ) -> SubscriptionMachine:
        """A subscription that stands."""
        subscription = self.register(channel, **options)
        self.answer(subscribe=m.SubscribeResult(**(result or {})))
        return subscription

    def call(self, key: Any, request: m.Request, channel: str | None = None) -> None:
        """Ask the hub for something."""
        self.do(self.machine.call(key, request, self.now, channel))

    def token(self, outcome: str | Exception) -> str:
        """The app answers when it is asked for a token. Returns the channel."""
        ticket, channel = self.asked.popleft()
        self.do(self.machine.token_fetched(ticket, outcome, self.now))
        return channel

    def pass_time(self, seconds: float) -> None:
        """Let time pass, each timer at its moment."""
        end = self.now + seconds
        while self.machine.deadline <= end:
            self.now = max(self.now, self.machine.deadline)
            self.do(self.machine.tick(self.now))
        self.now = end

    def wait(self) -> float:
        """Let time pass until a socket is to be opened. Returns the seconds."""
        began = self.now
        while not self.link:
            assert self.machine.deadline < float("inf"), f"it waits for nothing; events: {self.events}"
            self.now = self.machine.deadline
            self.do(self.machine.tick(self.now))
        return self.now - began

    # What came of it

    def of(self, kind: type[T]) -> list[T]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def data(self) -> list[Any]:
        """The payloads of all publications so far."""
        return [event.pub.data for event in self.of(values.Published)]


def publication(offset: int) -> m.Publication:
    """A publication that holds its offset."""
    return m.Publication(m.payload(offset), offset=offset)
