"""hub/threads.py: threads that have an event loop publish, and what they are told where it does not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import pytest

from hub.errors import EventLoopError, NotStartedError, RequestError, UnconfirmedError
from hub.process import threads
from hub.process.threads import LoopCalls

WAIT_S = 60.0
AWAY = RequestError(100, "internal server error: Redis is away", temporary=True)


class Sender:
    """Publishes as a script says, and counts its calls; the last line of the script repeats."""

    def __init__(self, *script: BaseException | str) -> None:
        self.script = list(script)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(line, str):
            return line
        raise line


async def publish(send: Callable[[], Awaitable[str]]) -> str:
    """Publish from a thread, to this event loop."""
    return await asyncio.to_thread(LoopCalls(asyncio.get_running_loop()).publish, send, "k")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RETRY_AFTER_S", 0.0)


async def test_the_thread_gets_the_result() -> None:
    assert await publish(Sender("done")) == "done"


@pytest.mark.usefixtures("at_once")
async def test_a_failure_that_may_end_is_tried_again() -> None:
    sender = Sender(AWAY, AWAY, "done")
    assert await publish(sender) == "done"
    assert sender.calls == 3


async def test_a_failure_that_goes_on_may_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RETRY_FOR_S", 0.0)
    with pytest.raises(UnconfirmedError, match="Redis is away; the publication may have been sent") as failed:
        await publish(Sender(AWAY))
    assert (failed.value.idempotency_key, failed.value.code, failed.value.temporary) == ("k", 100, True)


async def test_a_refusal_is_told_at_once() -> None:
    sender = Sender(RequestError(102, "unknown channel"))
    with pytest.raises(RequestError, match="unknown channel"):
        await publish(sender)
    assert sender.calls == 1


async def test_a_hub_that_does_not_run_sent_nothing() -> None:
    with pytest.raises(NotStartedError, match="not running"):
        await publish(Sender(NotStartedError("the hub is not running")))


@pytest.mark.usefixtures("at_once")
async def test_a_hub_that_stops_between_two_tries_may_have_sent_it() -> None:
    with pytest.raises(UnconfirmedError, match="Redis is away"):
        await publish(Sender(AWAY, NotStartedError("the hub is not running")))


async def test_a_loop_that_is_busy_sends_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TIMEOUT_S", 0.05)
    calls = LoopCalls(asyncio.get_running_loop())
    sender = Sender("done")
    failures: list[RequestError] = []

    def work() -> None:
        with pytest.raises(RequestError, match=r"nothing was sent: the hub's event loop was busy") as failed:
            calls.publish(sender, "k")
        failures.append(failed.value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)  # blocks this event loop for as long as the thread waits for it
    [failure] = failures
    assert failure.temporary
    assert not isinstance(failure, UnconfirmedError)
    for _ in range(5):
        await asyncio.sleep(0)
    assert sender.calls == 0


async def test_a_publication_without_an_answer_may_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send() -> str:
        await asyncio.Event().wait()
        return ""

    calls = LoopCalls(asyncio.get_running_loop())

    def until_begun() -> None:
        while True:
            try:
                calls.publish(send, "k")
            except UnconfirmedError:
                raise
            except RequestError:  # the event loop was too busy to begin
                continue

    monkeypatch.setattr(threads, "TIMEOUT_S", 0.05)
    with pytest.raises(UnconfirmedError, match=r"did not answer in 0\.05 s; .* idempotency_key='k'"):
        await asyncio.to_thread(until_begun)


async def test_a_stop_ends_the_calls_that_wait() -> None:
    calls = LoopCalls(asyncio.get_running_loop())
    begun = asyncio.Event()

    async def send() -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    waiting = asyncio.create_task(asyncio.to_thread(calls.publish, send, "k"))
    await asyncio.wait_for(begun.wait(), WAIT_S)
    calls.close()
    with pytest.raises(UnconfirmedError, match="the hub stopped; the publication may have been sent"):
        await waiting


async def test_a_stop_before_the_call_began_sent_nothing() -> None:
    calls = LoopCalls(asyncio.get_running_loop())
    sender = Sender("done")
    failures: list[NotStartedError] = []

    def work() -> None:
        with pytest.raises(
            NotStartedError, match="the hub stopped, and the publication was not sent"
        ) as failed:
            calls.publish(sender, "k")
        failures.append(failed.value)

    thread = threading.Thread(target=work)
    thread.start()
    while not calls._waiting:
        pass
    calls.close()
    thread.join(WAIT_S)
    await asyncio.sleep(0)
    assert (len(failures), sender.calls) == (1, 0)


async def test_a_call_that_comes_with_the_stop_sends_nothing() -> None:
    calls = LoopCalls(asyncio.get_running_loop())
    sender = Sender("done")
    failures: list[NotStartedError] = []

    def work() -> None:
        with pytest.raises(NotStartedError, match="the hub stopped") as failed:
            calls.publish(sender, "k")
        failures.append(failed.value)

    calls.close()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)  # blocks this event loop, so that it cannot begin
    assert len(failures) == 1
    await asyncio.sleep(0)
    assert sender.calls == 0


def test_a_closed_event_loop_sends_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(NotStartedError, match="the hub stopped, and the publication was not sent"):
        LoopCalls(loop).publish(Sender("done"), "k")


async def test_the_event_loop_itself_must_not_block() -> None:
    with pytest.raises(EventLoopError, match=r"await hub\.publish"):
        LoopCalls(asyncio.get_running_loop()).publish(Sender("done"), "k")


async def test_another_event_loop_may_wait() -> None:
    calls = LoopCalls(asyncio.get_running_loop())

    async def elsewhere() -> str:
        return calls.publish(Sender("done"), "k")

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == "done"


async def test_a_fork_of_the_hubs_process_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = LoopCalls(asyncio.get_running_loop())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(NotStartedError, match="this is a fork of it: use a Publisher here"):
        await asyncio.to_thread(calls.publish, Sender("done"), "k")
