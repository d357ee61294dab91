"""The nodes of a hub, and what they ask of each other over the broker's control channel."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from hub.errors import BrokerError
from hub.protocol import api
from hub.telemetry import get_logger

ANNOUNCE_PERIOD_S: Final = 3.0
"""How often a node says that it is there."""

FORGET_AFTER_S: Final = 10.0
"""How long after its last word a node counts as gone."""

SURVEY_TIMEOUT_S: Final = 1.0
"""How long the answers of the other nodes are waited for."""

_log = get_logger("hub.peers")


class Hello(Struct, tag="hello"):
    """A node is there."""

    node: str


class Bye(Struct, tag="bye"):
    """A node ends."""

    node: str


class Call(Struct, tag="call"):
    """Every node is to do this to the connections that it holds."""

    node: str
    method: str
    request: Raw


class Over(Struct, tag="over"):
    """A session is on another socket now, the `owner`, or ended, where there is none."""

    node: str
    client: str
    owner: str


class Survey(Struct, tag="survey"):
    """Every node is to answer with what it knows."""

    node: str
    id: int
    method: str
    request: Raw


class Answer(Struct, tag="answer"):
    """What a node knows, for the one that asked."""

    node: str
    to: str
    id: int
    result: Raw


class Relay(Struct, tag="relay"):
    """One node is to take this as if the client had sent it there."""

    node: str
    session: str
    data: bytes


Word: TypeAlias = Hello | Bye | Call | Over | Survey | Answer | Relay
_DECODER: Final = msgspec.json.Decoder(Word)


class ControlChannel(Protocol):
    """The part of a broker that peers use."""

    def send_bus(self, message: bytes, node: str = "") -> Future[int]: ...


class Bus:
    """The other nodes.

    Args:
        node: id of this one.
        channel: the broker.
        perform: runs a method of the server API on what this node holds, and returns its result.
        take: takes what a client of this node sent to another, by its session.
        over: is told of sessions that are no longer where they were, by client and owner.
    """

    def __init__(
        self,
        node: str,
        channel: ControlChannel,
        perform: Callable[[str, api.Request], Awaitable[Any]],
        take: Callable[[str, bytes], object],
        over: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._channel = channel
        self._perform = perform
        self._take = take
        self._over = over
        self._heard: dict[str, float] = {}
        self._came = asyncio.Event()
        """Set when one is heard of that was not there before."""
        self._surveys: dict[int, _Answers] = {}
        self._last_survey = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to announce this node, and wait for word of those who heard it, though not for long."""
        self._loop = asyncio.get_running_loop()
        hello = self._say(Hello(self._node))
        self._spawn(self._announce())
        # Else the first request to a new node could be about another that it does not know yet.
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(SURVEY_TIMEOUT_S):
                others = await hello - 1
                while len(self._heard) < others:
                    self._came.clear()
                    await self._came.wait()

    async def stop(self) -> None:
        """Say good-bye."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.wait([self._say(Bye(self._node))], timeout=SURVEY_TIMEOUT_S)

    @property
    def others(self) -> list[str]:
        """The other nodes that were heard of lately."""
        since = self._loop.time() - FORGET_AFTER_S
        self._heard = {node: heard for node, heard in self._heard.items() if heard > since}
        return list(self._heard)

    def tell_over(self, client: str, owner: str) -> Future[int]:
        """Tell every other node that a session is on another socket now, or ended where `owner` is empty."""
        return self._say(Over(self._node, client, owner))

    def call(self, method: str, request: api.Request) -> Future[int]:
        """Have every other node do this."""
        return self._say(Call(self._node, method, Raw(msgspec.json.encode(request))))

    def relay(self, node: str, session: str, data: bytes) -> Future[int]:
        """Pass on what a client sent here to the node that holds its connection."""
        return self._channel.send_bus(msgspec.json.encode(Relay(self._node, session, data)), node)

    async def ask(self, method: str, request: api.Request) -> list[Raw]:
        """The answers of the other nodes, as JSON: of all who are there, or of those who were in time."""
        expected = set(self.others)
        if not expected:
            return []
        self._last_survey += 1
        survey = self._surveys[self._last_survey] = _Answers(expected)
        try:
            await self._say(Survey(self._node, self._last_survey, method, Raw(msgspec.json.encode(request))))
            async with asyncio.timeout(SURVEY_TIMEOUT_S):
                await survey.complete.wait()
        except TimeoutError:
            _log.warning("peers.silent", nodes=sorted(expected - survey.results.keys()))
        finally:
            del self._surveys[self._last_survey]
        return list(survey.results.values())

    def heard(self, message: bytes, entry: str) -> None:
        """The control channel brought a message."""
        word = _DECODER.decode(message)
        if word.node == self._node:
            return
        match word:
            case Bye():
                self._heard.pop(word.node, None)
                return
            case Call():
                self._spawn(self._obey(word))
            case Over():
                self._over(word.client, word.owner)
            case Survey():
                self._spawn(self._reply(word))
            case Answer() if word.to == self._node and word.id in self._surveys:
                self._surveys[word.id].add(word.node, word.result)
            case Relay():
                self._take(word.session, word.data)
        if word.node not in self._heard:
            self._say(Hello(self._node))  # it is new, and need not wait to know of this one
            self._came.set()
        self._heard[word.node] = self._loop.time()

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_PERIOD_S)
            self._say(Hello(self._node))

    async def _obey(self, call: Call) -> None:
        request_type, _ = api.METHODS[call.method]
        await self._perform(call.method, msgspec.json.decode(call.request, type=request_type))

    async def _reply(self, survey: Survey) -> None:
        request_type, _ = api.METHODS[survey.method]
        result = await self._perform(survey.method, msgspec.json.decode(survey.request, type=request_type))
        await self._say(Answer(self._node, survey.node, survey.id, Raw(msgspec.json.encode(result))))

    def _say(self, word: Word) -> Future[int]:
        return self._channel.send_bus(msgspec.json.encode(word))

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Answers:
    def __init__(self, expected: set[str]) -> None:
        self._missing = set(expected)
        self.results: dict[str, Raw] = {}
        self.complete = asyncio.Event()

    def add(self, node: str, result: Raw) -> None:
        self.results[node] = result
        self._missing.discard(node)
        if not self._missing:
            self.complete.set()
