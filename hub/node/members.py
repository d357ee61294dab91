"""The nodes of a hub: which there are, and asking all of them, with a bound to how long that takes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from hub.errors import BrokerError
from hub.node.bus import Bus
from hub.node.bus_messages import Answer, BusCommand, BusMessage, Bye, Confirm, Hello, Survey
from hub.node.tasks import Tasks
from hub.protocol.codes import Error
from hub.telemetry import get_logger

HELLO_PERIOD_S: Final = 3.0
"""How often a node says that it is there."""

SILENT_S: Final = 10.0
"""How long after its last message a node is not asked any more."""

LOST_S: Final = 60.0
"""How long a node that fell silent, and said no goodbye, counts as one that has not confirmed."""

ANSWER_TIMEOUT_S: Final = 1.0
"""How long the answers of the other nodes are waited for."""

_log = get_logger("hub.bus")


_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What came of a call. It is in the log in any case, and no node will miss it.

    Args:
        confirmed: how many nodes did it within the time limit.
        total: how many nodes the call is for, those included that fell silent a short while ago.
        refusal: why a node refused; None where no node did.
    """

    confirmed: int
    total: int
    refusal: Error | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every node did it."""
        return self.confirmed >= self.total


class _Answers(Generic[_R]):
    """The answers that one question is still waiting for."""

    def __init__(self, expected: set[str]) -> None:
        self.missing = set(expected)
        self.results: dict[str, _R] = {}
        self.complete = asyncio.Event()
        if not expected:
            self.complete.set()

    def add(self, node: str, result: _R) -> None:
        self.results[node] = result
        self.missing.discard(node)
        if not self.missing:
            self.complete.set()


class Members:
    """Knows the other nodes.

    Args:
        bus: to reach them.
        tasks: own what nobody waits for.
        perform: runs a method of the server API on what this node holds; takes its name and its request as
            JSON, returns its result as JSON, or an error.
    """

    def __init__(
        self, bus: Bus, tasks: Tasks, perform: Callable[[str, bytes], Awaitable[bytes | Error]]
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._bus = bus
        self._tasks = tasks
        self._perform = perform
        self._heard: dict[str, float] = {}
        """When each node was last heard of."""
        self._came = asyncio.Event()
        """Set when a node is heard of for the first time."""
        self._surveys: dict[int, _Answers[bytes]] = {}
        self._calls: dict[str, _Answers[Error | None]] = {}
        self._numbers = itertools.count(1)
        self._is_leaving = False
        bus.handle(Hello, self._on_hello)
        bus.handle(Bye, self._on_bye)
        bus.handle(BusCommand, self._on_call)
        bus.handle(Confirm, self._on_confirm)
        bus.handle(Survey, self._on_survey)
        bus.handle(Answer, self._on_answer)

    async def start(self) -> None:
        """Begin to announce this node, and wait until the others answered, though not for long."""
        hello = self._bus.send(Hello())
        self._tasks.supervise("members", self._announce_forever)
        # Else the first request to a new node could be about a node that it does not know yet.
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                others = await hello - 1
                while len(self._heard) < others:
                    self._came.clear()
                    await self._came.wait()

    async def stop(self) -> None:
        """Say goodbye, and nothing after it."""
        self._is_leaving = True
        goodbye = self._bus.send(Bye())
        await asyncio.wait([goodbye], timeout=ANSWER_TIMEOUT_S)
        self._tasks.forget(goodbye)

    @property
    def others(self) -> list[str]:
        """The other nodes that were heard of lately."""
        since = self._now() - SILENT_S
        return [node for node, heard in self._heard.items() if heard > since]

    def _forget_lost(self) -> None:
        """Forget the nodes that fell silent without a goodbye and have not come back for `LOST_S`."""
        since = self._now() - LOST_S
        self._heard = {node: heard for node, heard in self._heard.items() if heard > since}

    async def call_all(self, method: str, request: bytes) -> Confirmation:
        """Have every other node do something. This node has done it, and counts as one that confirmed.

        Raises:
            BrokerError: it is not known whether the other nodes will hear of it.
        """
        self._forget_lost()
        done = await self._call(set(self._heard), method, request)
        return replace(done, confirmed=1 + done.confirmed, total=1 + done.total)

    async def call_one(self, node: str, method: str, request: bytes) -> Confirmation:
        """Have one other node do something that its request names it for. The rest ignore the request.

        Raises:
            BrokerError: it is not known whether the node will hear of it.
        """
        return await self._call({node}, method, request)

    async def _call(self, expected: set[str], method: str, request: bytes) -> Confirmation:
        call = BusCommand(id=self._bus.next_id(), method=method, request=request)
        answers = self._calls[call.id] = _Answers[Error | None](expected)
        try:
            await self._bus.append(call)
            await self._wait(answers)
        finally:
            del self._calls[call.id]
        outcomes = answers.results.values()
        refusal = next((outcome for outcome in outcomes if outcome is not None), None)
        return Confirmation(sum(outcome is None for outcome in outcomes), len(expected), refusal)

    async def survey(self, method: str, request: bytes) -> list[bytes]:
        """What the other nodes know, as JSON: the answers of all, or of those that were in time."""
        answers = _Answers[bytes](set(self.others))
        if not answers.missing:
            return []
        number = next(self._numbers)
        self._surveys[number] = answers
        try:
            await self._bus.send(Survey(id=number, method=method, request=request))
            await self._wait(answers)
        finally:
            del self._surveys[number]
        return list(answers.results.values())

    async def _wait(self, answers: _Answers[Any]) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await answers.complete.wait()
        except TimeoutError:
            _log.warning("peers.silent", nodes=sorted(answers.missing))

    async def _announce_forever(self) -> None:
        while True:
            await asyncio.sleep(HELLO_PERIOD_S)
            self._say_hello()
            self._forget_lost()

    def _say_hello(self) -> None:
        if not self._is_leaving:
            self._tasks.forget(self._bus.send(Hello()))

    # What the bus brings

    def _note(self, message: BusMessage) -> None:
        if message.node not in self._heard:
            self._say_hello()  # it need not wait for the next one to know this node
            self._came.set()
        self._heard[message.node] = self._now()

    def _on_hello(self, message: Hello) -> None:
        self._note(message)

    def _on_bye(self, message: Bye) -> None:
        self._heard.pop(message.node, None)

    def _on_call(self, call: BusCommand) -> None:
        self._note(call)
        self._tasks.spawn(self._obey(call), "bus")

    async def _obey(self, call: BusCommand) -> None:
        outcome = await self._perform(call.method, call.request)
        confirm = Confirm(id=call.id)
        if isinstance(outcome, Error):
            confirm.code, confirm.reason = outcome.code, outcome.message
        await self._bus.send(confirm, call.node)

    def _on_confirm(self, message: Confirm) -> None:
        if answers := self._calls.get(message.id):
            answers.add(message.node, Error(message.code, message.reason) if message.code else None)

    def _on_survey(self, survey: Survey) -> None:
        self._note(survey)
        self._tasks.spawn(self._answer(survey), "bus")

    async def _answer(self, survey: Survey) -> None:
        result = await self._perform(survey.method, survey.request)
        if isinstance(result, Error):
            return  # the node that asks goes on without this node's answer
        await self._bus.send(Answer(id=survey.id, result=result), survey.node)

    def _on_answer(self, message: Answer) -> None:
        if answers := self._surveys.get(message.id):
            answers.add(message.node, message.result)
