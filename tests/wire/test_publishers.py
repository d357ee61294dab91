"""`Publisher` and `AsyncPublisher`: over the HTTP API of a hub, over faulty connections, and after forks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected
from support.ports import free_port
from support.redis import RedisServer
from support.redis_proxy import Proxy

from hub import AsyncPublisher, Publisher, RequestError, SetupError, UnconfirmedError
from hub.client.exchange import IDLE_S

KINDS = ["sync", "async"]
Use: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class Opened:
    """A publisher of one of the two kinds, whose calls are awaited.

    Args:
        kind: of `KINDS`.
    """

    def __init__(self, kind: str, url: str, key: str = sdk.API_KEY, timeout_s: float = WAIT_S) -> None:
        make = Publisher if kind == "sync" else AsyncPublisher
        self.publisher: Any = make(url, key, timeout_s=timeout_s)

    def __getattr__(self, name: str) -> Use:
        method = getattr(self.publisher, name)

        async def call(*args: Any, **options: Any) -> Any:
            if isinstance(self.publisher, AsyncPublisher):
                return await method(*args, **options)
            return await asyncio.to_thread(method, *args, **options)

        return call

    async def __aenter__(self) -> Opened:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if isinstance(self.publisher, AsyncPublisher):
            await self.publisher.aclose()
        else:
            self.publisher.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of a publisher."""
    name: str = request.param
    return name


@contextlib.asynccontextmanager
async def subscribed(port: int, *channels: str) -> AsyncIterator[Peer]:
    """A client that is in channels."""
    async with connected(port, sdk.token("ann")) as peer:
        for channel in channels:
            await peer.ask(command(2, "subscribe", channel=channel))
        yield peer


async def heard(peer: Peer, end: Any = "end") -> list[Any]:
    """The data of all publications up to one."""
    data: list[Any] = []
    while data[-1:] != [end]:
        data.append((await peer.reply())["push"]["pub"]["data"])
    return data[:-1]


# Over a hub


async def test_publications_arrive(kind: str) -> None:
    async with (
        sdk.live() as (_, server),
        subscribed(server.port, "chat:a") as peer,
        Opened(kind, server.url + "/") as publisher,
    ):
        first = await publisher.publish("chat:a", {"n": 1}, tags={"a": "b"}, idempotency_key="k")
        again = await publisher.publish("chat:a", {"n": 1}, idempotency_key="k")
        assert (first.offset, again, bool(first.epoch)) == (1, first, True)
        assert (await publisher.publish("chat:a", 2, skip_history=True)).offset == 0
        assert [each.offset for each in await publisher.broadcast(["chat:a", "chat:b"], b"\xff")] == [2, 1]
        result = await publisher.request("broadcast", {"channels": ["chat:a"], "data": "end"})
        assert len(result["responses"]) == 1
        publications = [(await peer.reply())["push"]["pub"] for _ in range(4)]
        assert [publication["data"] for publication in publications] == [{"n": 1}, 2, "/w==", "end"]
        assert publications[0]["tags"] == {"a": "b"}


async def failure(kind: str, url: str, key: str = sdk.API_KEY, channel: str = "chat:a") -> RequestError:
    """What a publication raises."""
    async with Opened(kind, url, key, timeout_s=1.0) as publisher:
        with pytest.raises(RequestError) as failed:
            await publisher.publish(channel, 1)
    assert "\n" not in str(failed.value)
    return failed.value


async def test_errors_name_cause_and_remedy(kind: str) -> None:
    async with sdk.live() as (_, server):
        refusal = await failure(kind, server.url, channel="nowhere:a")
        assert (refusal.code, refusal.temporary) == (102, False)
        assert str(refusal) == (
            "unknown channel: no [channels.nowhere] is configured for the channel nowhere:a: add the table,"
            " or correct the name (code 102)"
        )
        assert "give its api.key" in str(await failure(kind, server.url, "another key"))
        assert "HTTP 404" in str(await failure(kind, f"{server.url}/elsewhere"))
        assert "try http:// in place of https://" in str(
            await failure(kind, f"https://127.0.0.1:{server.port}")
        )
        url = server.url
    gone = await failure(kind, url)
    assert gone.temporary
    assert url in str(gone)
    assert "is it running?" in str(gone)
    with pytest.raises(SetupError, match=r"give one such as http://127\.0\.0\.1:8000"):
        Opened(kind, f"ws://127.0.0.1:{server.port}")
    with pytest.raises(SetupError, match="newline"):
        Opened(kind, url, "key\n")
    async with Opened(kind, url) as publisher:
        with pytest.raises(TypeError, match=r"data\.by is of type object"):
            await publisher.publish("chat:a", {"by": object()})


# Over connections that fail


class Scripted:
    """A server that plays a script: what it does with each request that comes.

    Args:
        script: `answer`; `close`, which ends the connection behind the answer; a status; an error code such
            as `error 100`; `drop`, which ends the connection before the answer. The last one repeats.
        port: to serve on; 0 takes a free one.
    """

    def __init__(self, *script: str, port: int = 0) -> None:
        self._script = list(script)
        self._port = port
        self.requests: list[tuple[str, str]] = []
        """The path and the idempotency key of each request."""
        self.connections = 0
        self.closed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WAIT_S)

    @property
    def keys(self) -> set[str]:
        return {key for _, key in self.requests}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.requests.append((head.split(" ")[1], body.get("idempotency_key", "")))
                step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                if step == "drop":
                    break
                answer, status = b'{"result":{"offset":1,"epoch":"e"}}', 200
                if step.startswith("error"):
                    answer = b'{"error":{"code":%s,"message":"refused"}}' % step.split()[1].encode()
                elif step.isdigit():
                    answer, status = b"<html>", int(step)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))
                if step == "close":
                    break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.closed.set()


@pytest.mark.parametrize("step", ["drop", "503", "502", "429", "error 100"])
async def test_a_publication_is_tried_again_with_one_key(kind: str, step: str) -> None:
    peer = Scripted(step, step, "answer")
    async with peer as url, Opened(kind, url) as publisher:
        assert (await publisher.publish("chat:a", 1)).offset == 1
        assert [path for path, _ in peer.requests] == ["/api/publish"] * 3
        assert len(peer.keys) == 1
        await publisher.publish("chat:a", 1)
        assert len(peer.keys) == 2
        assert "" not in peer.keys


@pytest.mark.parametrize("method", ["presence", "history"])
async def test_a_read_is_tried_again(kind: str, method: str) -> None:
    peer = Scripted("drop", "answer")
    async with peer as url, Opened(kind, url) as publisher:
        assert (await publisher.request(method, {"channel": "chat:a"}))["offset"] == 1
    assert peer.requests == [(f"/api/{method}", "")] * 2


@pytest.mark.parametrize("step", ["drop", "502", "error 100"])
async def test_a_command_is_not_repeated_once_it_was_sent(kind: str, step: str) -> None:
    peer = Scripted(step, "answer")
    async with peer as url, Opened(kind, url) as publisher:
        with pytest.raises(UnconfirmedError, match="may have carried out the call") as failed:
            await publisher.disconnect("ann")
    assert (failed.value.temporary, failed.value.idempotency_key) == (True, "")
    assert len(peer.requests) == 1


async def test_a_publication_without_an_answer_may_have_been_sent(kind: str) -> None:
    peer = Scripted("drop")
    async with peer as url, Opened(kind, url, timeout_s=1.0) as publisher:
        with pytest.raises(UnconfirmedError) as failed:
            await publisher.publish("chat:a", 1)
    assert peer.keys == {failed.value.idempotency_key}
    assert len(peer.requests) > 1


async def test_a_refusal_is_not_tried_again(kind: str) -> None:
    peer = Scripted("error 102", "answer")
    async with peer as url, Opened(kind, url) as publisher:
        with pytest.raises(RequestError, match="refused"):
            await publisher.publish("chat:a", 1)
    assert len(peer.requests) == 1


async def test_an_idle_connection_that_the_server_closed_is_no_error(kind: str) -> None:
    peer = Scripted("close", "answer", "drop", "answer")
    async with peer as url, Opened(kind, url) as publisher:
        await publisher.publish("chat:a", 1)
        async with asyncio.timeout(WAIT_S):
            await peer.closed.wait()
        await publisher.publish("chat:a", 2)
        # The server closes the connection at the moment at which the next request comes.
        await publisher.publish("chat:a", 3)
    assert len(peer.requests) == 4
    assert len(peer.keys) == 3


async def test_an_idle_connection_is_given_up_before_the_server_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IDLE_S < 5.0, "what uvicorn keeps a connection by default"
    assert sdk.settings().server.keep_alive_s > IDLE_S
    monkeypatch.setattr("hub.client.posting.IDLE_S", 0.0)
    peer = Scripted("answer")
    async with peer as url, Opened(kind, url) as publisher:
        for _ in range(3):
            await publisher.publish("chat:a", 1)
    assert peer.connections == 3


async def test_a_hub_that_starts_meanwhile_is_reached(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, failed = asyncio.get_running_loop(), asyncio.Event()

    def chances() -> Iterator[float]:
        while True:
            loop.call_soon_threadsafe(failed.set)
            yield 0.0

    monkeypatch.setattr("hub.client.posting.chances", chances)
    port = free_port()
    publisher = Opened(kind, f"http://127.0.0.1:{port}")
    async with asyncio.timeout(WAIT_S):
        sending = asyncio.create_task(publisher.publish("chat:a", 1))
        await failed.wait()
        async with Scripted("answer", port=port), publisher:
            assert (await sending).offset == 1


@pytest.fixture(params=["memory", "redis"])
def broker(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The settings of a broker."""
    with contextlib.ExitStack() as stack:
        is_redis = request.param == "redis"
        yield {"redis": {"url": stack.enter_context(RedisServer()).url}} if is_redis else {}


@pytest.mark.parametrize("channel", ["chat:a", "plain:a"], ids=["history", "no history"])
async def test_a_publication_whose_answer_is_lost_is_sent_once(
    kind: str, broker: dict[str, Any], channel: str
) -> None:
    async with (
        sdk.live(sdk.settings(**broker)) as (hub, server),
        subscribed(server.port, channel) as peer,
        Proxy(server.port) as proxy,
        Opened(kind, f"http://127.0.0.1:{proxy.port}") as publisher,
    ):
        lost = iter([True])
        proxy.silences = lambda listening: next(lost, False)
        sending = asyncio.create_task(publisher.publish(channel, "once"))
        async with asyncio.timeout(WAIT_S):
            await proxy.swallowed.wait()
            proxy.cut()
            position = await sending
        assert position.offset == (1 if channel == "chat:a" else 0)
        await hub.publish(channel, "end")
        assert await heard(peer) == ["once"]


# Event loops and forks


async def test_an_async_publisher_serves_one_event_loop_after_another() -> None:
    async with sdk.live() as (_, server):
        publisher = AsyncPublisher(server.url, sdk.API_KEY)

        async def publish() -> list[int]:
            offsets = [(await publisher.publish("chat:a", number)).offset for number in range(2)]
            await publisher.aclose()
            return offsets

        assert await asyncio.to_thread(asyncio.run, publish()) == [1, 2]
        assert await asyncio.to_thread(asyncio.run, publish()) == [3, 4]
        assert await publish() == [5, 6]


FORKS = """
import asyncio, json, os, sys, threading
from hub import AsyncPublisher, Publisher
kind, url, key = sys.argv[1:]

if kind == "sync":
    publisher = Publisher(url, key)
    def publish_all(channel, count):
        offsets = []
        def work():
            offsets.extend(publisher.publish(channel, number).offset for number in range(count // 2))
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        return sorted(offsets)
else:
    publisher = AsyncPublisher(url, key)
    def publish_all(channel, count):
        async def work():
            positions = await asyncio.gather(*(publisher.publish(channel, number) for number in range(count)))
            await publisher.aclose()
            return sorted(position.offset for position in positions)
        return asyncio.run(work())

publish_all("chat:before", 2)
children = []
for number in range(4):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = publish_all(f"chat:{number}", 50)
        except BaseException as error:
            said = repr(error)
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    children.append((child, reader))
mine = publish_all("chat:parent", 50)
said = []
for _, reader in children:
    with open(reader, "rb") as pipe:
        said.append(json.loads(pipe.read()))
if kind == "sync":
    publisher.close()
print(json.dumps([mine, *said]))
"""


async def test_each_fork_has_connections_of_its_own(kind: str) -> None:
    async with sdk.live() as (_, server):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", FORKS, kind, server.url, sdk.API_KEY),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert errors == b""
    assert json.loads(said) == [list(range(1, 51))] * 5


def test_a_publisher_keeps_its_connections_where_there_is_no_fork() -> None:
    with Publisher("http://127.0.0.1:1", "key") as publisher:
        assert publisher._connections() is publisher._connections()


WEB = """
import os, sys
from hub import Publisher
publisher = Publisher(os.environ["URL"], os.environ["KEY"])
publisher.publish("chat:preload", "from the parent, so that it has a connection")

def app(environ, start_response):
    position = publisher.publish("chat:web", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{position.offset} {os.getpid()}".encode()]
"""

HUB_IN_A_THREAD = """
import asyncio, os, threading
from support import sdk
from hub import Hub
hub = Hub(sdk.settings(redis={"url": os.environ["REDIS"]}))
started = threading.Event()

async def live():
    async with hub.lifespan():
        started.set()
        await asyncio.Event().wait()

threading.Thread(target=asyncio.run, args=(live(),), daemon=True).start()
started.wait()

def app(environ, start_response):
    position = hub.publish_from_thread("chat:web", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{position.offset} {os.getpid()}".encode()]
"""


@contextlib.asynccontextmanager
async def gunicorn(folder: Path, source: str, *options: str, **env: str) -> AsyncIterator[str]:
    """A WSGI app under gunicorn, with two workers of four threads. Gives its URL."""
    (folder / "web.py").write_text(source)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", "-k", "gthread", "--workers", "2", "--threads", "4"),
        *("--bind", f"127.0.0.1:{port}", "--chdir", str(folder), *options, "web:app"),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **env},
    )
    try:
        async with httpx.AsyncClient(timeout=WAIT_S) as client, asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.get(f"http://127.0.0.1:{port}/first")
                    break
                assert process.returncode is None, "gunicorn ended"
                await asyncio.sleep(0.05)  # of another process
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), WAIT_S)


async def offsets_of(url: str, count: int) -> list[int]:
    """The offsets that so many requests at once get, in order."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        answers = await asyncio.gather(*(client.get(f"{url}/{number}") for number in range(count)))
    assert {answer.status_code for answer in answers} == {200}
    return sorted(int(answer.text.split()[0]) for answer in answers)


async def test_threads_of_gunicorn_share_a_publisher_that_was_preloaded(tmp_path: Path) -> None:
    async with (
        sdk.live() as (_, server),
        gunicorn(tmp_path, WEB, "--preload", URL=server.url, KEY=sdk.API_KEY) as url,
    ):
        assert await offsets_of(url, 40) == list(range(2, 42))


async def test_threads_of_gunicorn_publish_to_a_hub_in_their_process(tmp_path: Path) -> None:
    with RedisServer() as redis:
        async with gunicorn(tmp_path, HUB_IN_A_THREAD, REDIS=redis.url) as url:
            assert await offsets_of(url, 40) == list(range(2, 42))
