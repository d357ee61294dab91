"""`Hub.publish_from_thread`: from threads, other event loops and `def` endpoints, while things fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected
from support.redis import RedisServer
from support.redis_proxy import Proxy
from support.server import running

from hub import EventLoopError, Hub, NotStartedError, RequestError, UnconfirmedError
from hub.process import threads

BROKERS = pytest.mark.parametrize("with_redis", [False, True], ids=["memory", "redis"])


@contextlib.asynccontextmanager
async def hub_with_redis(with_redis: bool) -> AsyncIterator[Hub]:
    """A hub that lives, over Redis or in memory."""
    with contextlib.ExitStack() as stack:
        redis = {"url": stack.enter_context(RedisServer()).url} if with_redis else {}
        hub = Hub(sdk.settings(redis=redis))
        async with hub.lifespan():
            yield hub


@BROKERS
async def test_a_call_from_another_event_loop_is_refused_before_it_is_made(with_redis: bool) -> None:
    async with hub_with_redis(with_redis) as hub:

        def elsewhere() -> None:
            with pytest.raises(EventLoopError, match="publish_from_thread"):
                asyncio.run(hub.publish("chat:a", "lost"))
            for call in (hub.presence("chat:a"), hub.broadcast(["chat:a"], "lost"), hub.drain(0.0)):
                with pytest.raises(EventLoopError):
                    asyncio.run(call)

        await asyncio.to_thread(elsewhere)
        assert (await hub.history("chat:a")).publications == []
        assert (await hub.publish("chat:a", "kept")).offset == 1
        assert hub.node.is_serving


@BROKERS
async def test_threads_publish_and_get_the_position(with_redis: bool) -> None:
    async with hub_with_redis(with_redis) as hub:
        publish = hub.publish_from_thread
        positions = await asyncio.gather(
            *(asyncio.to_thread(publish, "chat:a", number) for number in range(20))
        )
        assert sorted(position.offset for position in positions) == list(range(1, 21))
        again = [await asyncio.to_thread(publish, "chat:b", 1, idempotency_key="k") for _ in range(2)]
        assert [position.offset for position in again] == [1, 1]
        with pytest.raises(RequestError, match=r"no \[channels\.nowhere\] is configured") as failed:
            await asyncio.to_thread(publish, "nowhere:a", 1)
        assert (failed.value.code, failed.value.message) == (102, "unknown channel")
        with pytest.raises(TypeError, match=r"data\.by is of type object"):
            await asyncio.to_thread(publish, "chat:a", {"by": object()})
        with pytest.raises(EventLoopError, match=r"await hub\.publish"):
            publish("chat:a", "would block the loop for ever")
    with pytest.raises(NotStartedError):
        await asyncio.to_thread(publish, "chat:a", "too late")


@BROKERS
async def test_a_def_endpoint_publishes(with_redis: bool) -> None:
    with contextlib.ExitStack() as stack:
        redis = {"url": stack.enter_context(RedisServer()).url} if with_redis else {}
        app, hub = FastAPI(), Hub(sdk.settings(redis=redis))
        hub.install(app)

        @app.post("/orders/{number}")
        def order(number: int) -> int:
            return hub.publish_from_thread("chat:a", {"number": number}).offset

        async with running(app, hub.settings) as server, httpx.AsyncClient(timeout=WAIT_S) as client:
            posts = (client.post(f"{server.url}/orders/{number}") for number in range(20))
            offsets = [answer.json() for answer in await asyncio.gather(*posts)]
            assert sorted(offsets) == list(range(1, 21))


@pytest.mark.parametrize("channel", ["chat:a", "plain:a"], ids=["history", "no history"])
@pytest.mark.parametrize("answers", ["comes late", "is lost"])
async def test_a_publication_that_redis_answers_late_is_sent_once(
    channel: str, answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis took the publication and its answer did not come, a repeat sends nothing."""
    with RedisServer() as redis:
        async with Proxy(redis.port) as proxy:
            settings = sdk.settings(redis={"url": proxy.url})
            app = FastAPI()
            hub = Hub(settings)
            hub.install(app, "/live")
            path = "/live/connection/websocket"
            async with (
                running(app, settings) as server,
                connected(server.port, sdk.token("ann"), path) as ann,
            ):
                await ann.ask(command(2, "subscribe", channel=channel))
                proxy.silences = lambda listening: not listening
                if answers == "is lost":
                    monkeypatch.setattr(threads, "TIMEOUT_S", 0.01)
                    monkeypatch.setattr(threads, "RETRY_FOR_S", 0.0)
                    key = await asyncio.to_thread(unconfirmed, hub, channel)
                else:
                    monkeypatch.setattr(threads, "TIMEOUT_S", WAIT_S)
                    monkeypatch.setattr(threads, "RETRY_FOR_S", WAIT_S)
                    key = ""
                    sending = asyncio.create_task(asyncio.to_thread(hub.publish_from_thread, channel, "once"))
                async with asyncio.timeout(WAIT_S):
                    await proxy.swallowed.wait()
                proxy.silences = lambda listening: False  # the connection ends with its next answer
                if key:
                    sending = asyncio.create_task(repeat(hub, channel, key))
                assert (await sending).offset == (1 if channel == "chat:a" else 0)
                await repeat(hub, channel, "end", "end")
                assert await heard(ann) == ["once"]


def unconfirmed(hub: Hub, channel: str) -> str:
    """Publish while Redis does not answer. Returns the key of a repeat."""
    while True:
        try:
            hub.publish_from_thread(channel, "once")
        except UnconfirmedError as error:
            return error.idempotency_key
        except RequestError:
            continue  # the event loop was too busy to begin


async def repeat(hub: Hub, channel: str, key: str, data: str = "once") -> Any:
    """Publish with a key, again until Redis is back."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await hub.publish(channel, data, idempotency_key=key)
            except RequestError:
                await asyncio.sleep(0.05)  # until the connections stand again


async def heard(peer: Any) -> list[Any]:
    """The data of all publications up to `end`."""
    data: list[Any] = []
    while data[-1:] != ["end"]:
        push = (await peer.reply()).get("push", {})
        if "pub" in push:
            data.append(push["pub"]["data"])
    return data[:-1]


async def test_a_hub_that_stops_answers_threads_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TIMEOUT_S", WAIT_S)
    monkeypatch.setattr(threads, "RETRY_FOR_S", WAIT_S)
    with RedisServer() as redis:
        async with Proxy(redis.port) as proxy:
            hub = Hub(sdk.settings(redis={"url": proxy.url}))
            async with hub.lifespan():
                proxy.silences = lambda listening: not listening
                waiting = asyncio.create_task(asyncio.to_thread(hub.publish_from_thread, "chat:a", 1))
                async with asyncio.timeout(WAIT_S):
                    await proxy.swallowed.wait()
            with pytest.raises(UnconfirmedError, match="may have been sent: repeat it with idempotency_key="):
                await waiting


FORK = """
import asyncio, os
from support import sdk
from hub import Hub

async def live():
    hub = Hub(sdk.settings())
    async with hub.lifespan():
        child = os.fork()
        if not child:
            try:
                hub.publish_from_thread("chat:a", 1)
            except BaseException as error:
                print(type(error).__name__, error, flush=True)
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        print((await hub.publish("chat:a", 1)).offset)

asyncio.run(live())
"""


async def test_a_fork_of_a_running_hub_is_told_to_use_a_publisher() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORK),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    fork, parent = said.decode().splitlines()
    assert fork.startswith("NotStartedError the hub runs in process ")
    assert fork.endswith("this is a fork of it: use a Publisher here")
    assert parent == "1"
