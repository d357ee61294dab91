"""What a handler, a timer, a task or the broker raises ends at most the connection or task it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio import Future
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from support import sdk
from support.faults import count, serving, shorten, until
from support.limits import WAIT_S
from support.nodes import call
from support.peer import Peer, command, connected, unconnected
from support.redis import RedisServer
from websockets.frames import Opcode

from hub import Hub, RPCEvent, RPCReply, StartupError, SubscribeEvent
from hub.broker.memory import MemoryBroker
from hub.core.session.session import Session
from hub.protocol.codes import Disconnects

INTERNAL = 100


class StopRaised(BaseException):
    """An exception outside the tree of `Exception`, as `KeyboardInterrupt` is."""


FAILURES: dict[str, Callable[[], BaseException]] = {
    "an Exception": lambda: RuntimeError("the handler failed"),
    "CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "a BaseException": lambda: StopRaised("the handler failed"),
}

COMMANDS: dict[str, str] = {
    "subscribe": command(2, "subscribe", channel="chat:a"),
    "publish": command(2, "publish", channel="plain:a", data=1),
    "rpc": command(2, "rpc", method="m", data=1),
}


def raising(failure: str, *, sync: bool) -> Callable[[Any], Any]:
    """A handler that raises for the user `ann`, and leaves everybody else to the settings."""

    def handle(event: Any) -> None:
        if event.user == "ann":
            raise FAILURES[failure]()

    async def handle_later(event: Any) -> None:
        await asyncio.sleep(0)
        handle(event)

    return handle if sync else handle_later


async def answers(peer: Peer, number: int = 900) -> None:
    """Check that the connection is still served."""
    [reply] = await peer.ask(command(number, "ping"))
    assert reply["id"] == number


# Handlers


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("event", COMMANDS)
async def test_a_handler_that_raises_anything_is_answered_with_an_internal_error(
    event: str, failure: str, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(**{event: raising(failure, sync=sync)}) as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        assert await ann.error(COMMANDS[event]) == INTERNAL
        await answers(ann)
        [reply] = await ben.ask(COMMANDS[event])
        assert "error" not in reply or event == "rpc", reply
        assert "hook.failed" in caplog.text
        assert count(hub, "hub_errors_total", code="100") == 1


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_connect_handler_that_raises_anything_is_answered_with_an_internal_error(
    failure: str, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(connect=raising(failure, sync=sync)) as (_, server):
        async with unconnected(server.port) as ann:
            assert await ann.error(command(1, "connect", token=sdk.token("ann"))) == INTERNAL
        async with connected(server.port, sdk.token("ben")) as ben:
            await answers(ben)
    assert "hook.failed" in caplog.text


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_message_handler_that_raises_anything_is_logged_and_the_client_goes_on(
    failure: str, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(message=raising(failure, sync=sync)) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        ann.send(json.dumps({"send": {"data": 1}}))
        await answers(ann)
        await until(lambda: "hook.failed" in caplog.text, "the failure is logged")
        await answers(ann, 901)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_disconnect_handler_that_raises_anything_is_logged_and_the_hub_stops_in_time(
    failure: str, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(disconnect=raising(failure, sync=sync)) as (_, server):
        async with connected(server.port, sdk.token("ann")):
            pass
        await until(lambda: "hook.failed" in caplog.text, "the failure is logged")
        async with connected(server.port, sdk.token("ben")) as ben:
            await answers(ben)


@pytest.mark.parametrize("failure", FAILURES)
async def test_an_rpc_over_the_api_is_answered_whatever_the_handler_raises(failure: str) -> None:
    def handle(event: Any) -> None:
        raise FAILURES[failure]()

    async with (
        serving(rpc=handle) as (_, server),
        httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as client,
    ):
        for _ in range(2):
            response = await client.post(
                "/api/rpc", json={"method": "m", "data": 1}, headers={"X-API-Key": sdk.API_KEY}
            )
            assert (response.status_code, response.json()["error"]["code"]) == (200, INTERNAL)


async def test_a_handler_that_awaits_a_cancelled_task_fails_alone() -> None:
    """A time limit cancelled a task that several handlers share; each of them gets `CancelledError`."""
    shared: list[asyncio.Task[None]] = []

    async def handle(event: Any) -> None:
        if event.channel == "plain:shared":
            await shared[0]

    async with (
        serving(publish=handle) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        shared.append(asyncio.create_task(asyncio.sleep(60)))
        shared[0].cancel()
        for number in range(2, 5):
            assert await ann.error(command(number, "publish", channel="plain:shared", data=1)) == INTERNAL
        assert await ann.error(command(5, "publish", channel="plain:a", data=1)) == 0


async def test_a_channel_whose_handler_was_cancelled_can_be_used_and_left() -> None:
    calls: list[str] = []

    def handle(event: Any) -> None:
        calls.append(event.channel)
        if len(calls) == 1:
            raise asyncio.CancelledError

    async with (
        serving(publish=handle) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        [joined] = await ann.ask(command(2, "subscribe", channel="plain:a"))
        assert "subscribe" in joined
        assert await ann.error(command(3, "publish", channel="plain:a", data=1)) == INTERNAL
        ann.send(command(4, "publish", channel="plain:a", data=2))
        came = [await ann.reply(), await ann.reply()]
        assert {reply.get("id", 0) for reply in came} == {0, 4}, "the publication, and the answer"
        assert not any("error" in reply for reply in came), came
        [left] = await ann.ask(command(5, "unsubscribe", channel="plain:a"))
        assert "unsubscribe" in left


async def test_failed_handlers_take_no_place_among_the_commands_under_way() -> None:
    configured = sdk.settings({"commands_max": 2})
    async with (
        serving(configured, rpc=raising("CancelledError", sync=False)) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        for number in range(2, 12):
            assert await ann.error(command(number, "rpc", method="m", data=1)) == INTERNAL


async def test_a_handler_that_takes_too_long_is_answered_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.node.callbacks.HOOK_TIMEOUT_S", 0.1)

    async def handle(event: Any) -> None:
        await asyncio.sleep(60)

    async with (
        serving(rpc=handle) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        assert await ann.error(COMMANDS["rpc"]) == INTERNAL
        assert "hook.failed" in caplog.text


async def test_a_handler_that_ignores_its_cancellation_is_answered_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub.node.callbacks.HOOK_TIMEOUT_S", 0.1)
    release = asyncio.Event()

    async def handle(event: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with (
        serving(rpc=handle) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        try:
            assert await ann.error(COMMANDS["rpc"]) == INTERNAL
        finally:
            release.set()


async def test_a_client_that_leaves_during_a_handler_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    begun, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(event: Any) -> RPCReply:
        begun.set()
        await release.wait()
        ended.set()
        return RPCReply(1)

    async with serving(rpc=handle) as (hub, server):
        async with connected(server.port, sdk.token("ann")) as ann:
            ann.send(COMMANDS["rpc"])
            await asyncio.wait_for(begun.wait(), WAIT_S)
        await until(lambda: count(hub, "hub_connections") == 0, "the connection is gone")
        release.set()
        await asyncio.wait_for(ended.wait(), WAIT_S)
        async with connected(server.port, sdk.token("ben")) as ben:
            await answers(ben)
        assert count(hub, "hub_boundary_errors_total") == 0
    assert "hook.failed" not in caplog.text


async def test_a_hub_that_stops_during_a_handler_logs_no_failure_of_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def handle(event: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    async with contextlib.AsyncExitStack() as stack:
        _, server = await stack.enter_async_context(serving(rpc=handle))
        async with connected(server.port, sdk.token("ann")) as ann:
            ann.send(COMMANDS["rpc"])
            await asyncio.wait_for(begun.wait(), WAIT_S)
            await stack.aclose()
    assert "hook.failed" not in caplog.text


# The broker


def failing_call(kind: str) -> Callable[..., Future[Any]]:
    """A call of the broker that raises, or returns a future that failed or was cancelled."""

    def call(*args: Any, **options: Any) -> Future[Any]:
        if kind == "raises":
            raise RuntimeError("the broker failed")
        future: Future[Any] = asyncio.get_running_loop().create_future()
        if kind == "cancelled":
            future.cancel()
        elif kind == "fails":
            future.set_exception(RuntimeError("the broker failed"))
        else:
            asyncio.get_running_loop().call_later(0.01, future.cancel)
        return future

    return call


async def answer_or_close(peer: Peer, line: str) -> int:
    """Send a command. Returns the code of the error that answers it, or of the close of the connection."""
    peer.send(line)
    while (received := await peer.socket.read_frame()) is not None:
        opcode, payload = received
        if opcode == Opcode.CLOSE:
            return int.from_bytes(payload[:2], "big")
        for text in payload.split(b"\n"):
            reply = json.loads(text)
            if "id" in reply:
                return int(reply.get("error", {}).get("code", 0))
    return 1006


@pytest.mark.parametrize("kind", ["fails", "cancelled", "is cancelled later", "raises"])
@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("publish", command(3, "publish", channel="chat:a", data=1)),
        ("history", command(3, "history", channel="chat:a", limit=1)),
        ("presence", command(3, "presence", channel="chat:a")),
        ("presence", command(3, "presence_stats", channel="chat:a")),
        ("subscribe", command(3, "subscribe", channel="news:a")),
    ],
    ids=["publish", "history", "presence", "presence_stats", "subscribe"],
)
async def test_a_failed_call_of_the_broker_is_an_internal_error_to_the_client_that_asked(
    method: str, line: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()
    async with (
        serving(None, broker) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        [joined] = await ann.ask(command(2, "subscribe", channel="chat:a"))
        assert "subscribe" in joined
        with monkeypatch.context() as patched:
            patched.setattr(broker, method, failing_call(kind))
            code = await answer_or_close(ann, line)
        # A broker whose call raises breaks its own promise: that may end the connection.
        assert code == INTERNAL or (kind == "raises" and code == Disconnects.INTERNAL_ERROR.code)
        if code == INTERNAL:
            await answers(ann)
        await answers(ben)


async def test_a_failed_delivery_is_counted_and_the_next_publication_arrives(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving() as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        [joined] = await ann.ask(command(2, "subscribe", channel="plain:a"))
        assert "subscribe" in joined

        def fail(*args: Any) -> None:
            raise RuntimeError("a fan-out failed")

        with monkeypatch.context() as patched:
            patched.setattr("hub.node.fanout.Fanout.publish", fail)
            for number in range(50):
                await hub.publish("plain:a", number)
        await hub.publish("plain:a", "next")
        assert (await ann.reply())["push"]["pub"]["data"] == "next"
        assert count(hub, "hub_boundary_errors_total") == 50
    assert 1 <= caplog.text.count("boundary.failed") <= 2, "the log line is rate-limited"


# Sockets


@pytest.mark.parametrize("error", [RuntimeError, StopRaised, asyncio.CancelledError])
async def test_a_session_that_raises_on_a_command_ends_alone(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = Session.receive

    def fail_for_ann(session: Session, *args: Any) -> Any:
        if session.user == "ann":
            raise error
        return receive(session, *args)

    async with (
        serving() as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        monkeypatch.setattr(Session, "receive", fail_for_ann)
        ann.send(command(2, "ping"))
        assert (await ann.closed())[0] == Disconnects.INTERNAL_ERROR.code
        await answers(ben)
        assert count(hub, "hub_boundary_errors_total") == 1
        await until(lambda: count(hub, "hub_clients") == 1, "the connection at fault is gone")
    assert "boundary.failed" in caplog.text


async def test_a_session_that_raises_on_the_end_of_a_call_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    resume = Session.resume
    faulty: list[str] = []

    def fail_for_ann(session: Session, *args: Any) -> Any:
        if session.user in faulty:
            raise RuntimeError("the session failed")
        return resume(session, *args)

    async def handle(event: Any) -> RPCReply:
        await asyncio.sleep(0.01)
        return RPCReply(event.user)

    monkeypatch.setattr(Session, "resume", fail_for_ann)
    async with (
        serving(rpc=handle) as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        faulty.append("ann")
        ann.send(COMMANDS["rpc"])
        [reply] = await ben.ask(COMMANDS["rpc"])
        assert reply["rpc"]["data"] == "ben"
        assert (await ann.closed())[0] == Disconnects.INTERNAL_ERROR.code
        assert count(hub, "hub_boundary_errors_total") == 1


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("disconnect", {}),
        ("unsubscribe", {"channel": "chat:a"}),
        ("subscribe", {"channel": "chat:a"}),
        ("refresh", {"expired": True}),
        ("refresh", {"expire_at": 4_000_000_000}),
    ],
    ids=["disconnect", "unsubscribe", "subscribe", "expire", "refresh"],
)
async def test_a_session_that_raises_on_a_request_of_a_backend_ends_alone(
    method: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has two connections, and the request reaches the second one although the first one raises."""
    name = "disconnect" if method == "disconnect" or "expired" in fields else method
    change, faulty, reached = getattr(Session, name), list[Session](), list[Session]()

    def fail_once(session: Session, *args: Any) -> Any:
        if not faulty:
            faulty.append(session)
            raise RuntimeError("the session failed")
        reached.append(session)
        return change(session, *args)

    async with (
        serving() as (hub, server),
        connected(server.port, sdk.token("ann")),
        connected(server.port, sdk.token("ann")),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(Session, name, fail_once)
            await call(hub, method, user="ann", **fields)
            assert len(faulty) == 1
            assert [session for session in reached if session not in faulty], (
                "the other connection was reached"
            )
        assert count(hub, "hub_boundary_errors_total") == 1
        await until(lambda: count(hub, "hub_clients") <= 1, "the connection at fault is gone")


async def test_a_session_that_raises_at_its_end_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disconnect = Session.disconnect

    def fail_for_ann(session: Session, *args: Any) -> Any:
        if session.user == "ann":
            raise RuntimeError("the session failed")
        return disconnect(session, *args)

    async with (
        serving() as (hub, server),
        connected(server.port, sdk.token("ben")) as ben,
    ):
        with monkeypatch.context() as patched:
            async with connected(server.port, sdk.token("ann")):
                patched.setattr(Session, "disconnect", fail_for_ann)
            await until(lambda: count(hub, "hub_connections") == 1, "the connection at fault is gone")
            await answers(ben)


# Timers


async def test_a_session_whose_timer_raises_is_closed_and_the_others_are_still_checked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Many sessions are due in each slot of the timer wheel, and one of them raises."""
    tick = Session.tick

    def fail_for_bad(session: Session, now: float) -> Any:
        if session.user == "bad":
            raise RuntimeError("the session failed")
        return tick(session, now)

    async def pings(peer: Peer) -> None:
        """Wait for three pings of the server, and answer each."""
        for _ in range(3):
            while await peer.socket.read_text() != "{}":
                pass
            peer.send("{}")

    monkeypatch.setattr(Session, "tick", fail_for_bad)
    configured = sdk.settings({"ping_interval_s": 3.0, "pong_timeout_s": 2.5})
    async with serving(configured) as (hub, server), contextlib.AsyncExitStack() as stack:
        users = ["bad" if number == 20 else f"user-{number}" for number in range(60)]
        peers = {
            user: await stack.enter_async_context(connected(server.port, sdk.token(user))) for user in users
        }
        bad = peers.pop("bad")
        closed = asyncio.create_task(bad.closed())
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(pings(peer) for peer in peers.values()))
        assert (await closed)[0] == Disconnects.INTERNAL_ERROR.code
        assert count(hub, "hub_boundary_errors_total") == 1
        assert count(hub, "hub_clients") == len(peers)
    assert "boundary.failed" in caplog.text


async def test_a_session_whose_grace_ends_with_an_error_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = MemoryBroker()
    leave = broker.session_leave
    configured = sdk.settings({"reconnect": {"presence_grace_s": 0.3}})

    def fail_for_ann(user: str, *args: Any, **options: Any) -> Future[bool]:
        if user == "ann":
            raise RuntimeError("the broker failed")
        return leave(user, *args, **options)

    monkeypatch.setattr(broker, "session_leave", fail_for_ann)
    async with (
        serving(configured, broker) as (hub, server),
        connected(server.port, sdk.token("watcher")) as watcher,
    ):
        await watcher.ask(command(2, "subscribe", channel="chat:a", join_leave=True))
        assert (await watcher.reply())["push"]["join"]["info"]["user"] == "watcher"
        async with contextlib.AsyncExitStack() as stack:
            for user in ("ann", "ben", "eve"):
                peer = await stack.enter_async_context(connected(server.port, sdk.token(user)))
                await peer.ask(command(2, "subscribe", channel="chat:a"))
                assert (await watcher.reply())["push"]["join"]["info"]["user"] == user
        left: set[str] = set()
        while not {"ben", "eve"} <= left:
            left.add((await watcher.reply())["push"]["leave"]["info"]["user"])
        assert hub.node.state == "healthy"


# Tasks and the start


@pytest.mark.parametrize(
    ("method", "period"),
    [
        ("presence_add", "PRESENCE_PERIOD_S"),
        ("positions", "COMPARE_PERIOD_S"),
        ("send_bus", "HELLO_PERIOD_S"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError("the broker failed"), asyncio.CancelledError()], ids=repr)
async def test_a_background_task_that_dies_is_counted_and_restarted(
    method: str, period: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, period, 0.1)
    broker = MemoryBroker()
    works = getattr(broker, method)
    calls: list[str] = []
    failing: list[bool] = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append("fails" if failing else "works")
        if failing:
            raise error
        return works(*args, **options)

    monkeypatch.setattr(broker, method, call)
    async with (
        serving(None, broker) as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        await ann.ask(command(2, "subscribe", channel="chat:a"))
        await until(lambda: calls.count("works") > 1, f"{method} is called periodically")
        failing.append(True)
        await until(lambda: "fails" in calls, f"{method} fails")
        failing.clear()
        calls.clear()
        await until(lambda: calls.count("works") > 1, f"{method} is called again")
        assert count(hub, "hub_boundary_errors_total") >= 1
        await answers(ann)


def timers() -> int:
    """How many timers the event loop holds."""
    scheduled: list[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled")  # noqa: B009 - private
    return sum(not handle.cancelled() for handle in scheduled)


async def fail_to_start(hub: Hub, error: type[BaseException]) -> None:
    """Start a hub in an app that embeds it, and check that the failed start leaves no task and no timer."""
    tasks, before = asyncio.all_tasks(), timers()
    app = Starlette()
    hub.install(app)
    with pytest.raises(error):
        async with asyncio.timeout(WAIT_S), app.router.lifespan_context(app):
            pytest.fail("the hub started")
    await until(lambda: asyncio.all_tasks() <= tasks, "every task of the failed start has ended")
    assert timers() <= before


@pytest.mark.parametrize("error", [StartupError("no"), RuntimeError("no")], ids=repr)
async def test_a_failed_start_ends_everything_it_began(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()

    async def fail(*args: Any) -> None:
        raise error

    hub = Hub(sdk.settings(), broker=broker)
    with monkeypatch.context() as patched:
        patched.setattr(broker, "start", fail)
        await fail_to_start(hub, type(error))
    async with hub.lifespan():
        assert (await hub.publish("news:a", 1)).offset == 1


async def test_a_start_that_is_cancelled_ends_everything_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()

    async def hang(*args: Any) -> None:
        starting.cancel()
        await asyncio.Event().wait()

    monkeypatch.setattr(broker, "start", hang)
    starting = asyncio.create_task(fail_to_start(Hub(sdk.settings(), broker=broker), asyncio.CancelledError))
    await starting


async def test_a_start_that_fails_after_the_broker_started_ends_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = MemoryBroker()
    stop: Callable[[], Awaitable[None]] = broker.stop
    stopped: list[bool] = []

    async def keep_stop() -> None:
        stopped.append(True)
        await stop()

    async def fail(*args: Any) -> None:
        raise StartupError("no")

    monkeypatch.setattr("hub.node.bus.Bus.start", fail)
    monkeypatch.setattr(broker, "stop", keep_stop)
    await fail_to_start(Hub(sdk.settings(), broker=broker), StartupError)
    assert stopped == [True]


async def test_a_redis_that_refuses_the_hub_fails_the_start_and_leaves_no_connection() -> None:
    with RedisServer() as redis:
        redis.call("CONFIG", "SET", "requirepass", "right")
        url = f"redis://:wrong@127.0.0.1:{redis.port}"
        await fail_to_start(Hub(sdk.settings(redis={"url": url})), StartupError)
        _, clients = redis.calls([("AUTH", "right"), ("CLIENT", "LIST")])
        assert clients.decode().count("\n") == 1, clients


async def test_an_app_that_fails_to_start_ends_the_hub_in_it() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        raise RuntimeError("the app has no database")
        yield

    tasks, before = asyncio.all_tasks(), timers()
    app = Starlette(lifespan=lifespan)
    Hub(sdk.settings()).install(app)
    with pytest.raises(RuntimeError, match="no database"):
        async with app.router.lifespan_context(app):
            pytest.fail("the app started")
    await until(lambda: asyncio.all_tasks() <= tasks, "every task has ended")
    assert timers() <= before


async def test_a_handlers_failure_names_method_channel_and_function(caplog: pytest.LogCaptureFixture) -> None:
    async def broken_subscribe(event: SubscribeEvent) -> None:
        raise ValueError("no database")

    def broken_rpc(event: RPCEvent) -> None:
        raise ValueError("no database")

    handlers: dict[str, Any] = {"subscribe": broken_subscribe, "rpc": broken_rpc}
    async with sdk.live(**handlers) as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        for number in range(2, 12):
            assert await peer.error(command(number, "subscribe", channel="chat:a")) == 100
        assert await peer.error(command(12, "rpc", method="pay", data=1)) == 100
        assert count(hub, "hub_boundary_errors_total") == 11
    lines: list[Any] = [record.msg for record in caplog.records if "hook.failed" in str(record.msg)]
    subscribe, rpc = lines  # a line for each hook
    assert (subscribe["hook"], subscribe["channel"], subscribe["user"]) == ("subscribe", "chat:a", "ann")
    assert subscribe["function"].endswith("broken_subscribe")
    assert "test_boundary" in subscribe["function"]
    assert (rpc["hook"], rpc["method"]) == ("rpc", "pay")
    assert rpc["function"].endswith("broken_rpc")


class _Handlers:
    def bound(self, event: object) -> None: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (lambda: None, "<lambda>()"),
        (lambda event, more: None, "<lambda>(event, more)"),
        (lambda *, event: None, "<lambda>(*, event)"),
        (_Handlers.bound, "_Handlers.bound(self, event"),
        (_Handlers(), "_Handlers()"),
        (partial(lambda event: None, 1), "<lambda>()"),
        (5, "a function of one event, not 5"),
    ],
)
@pytest.mark.parametrize("event", ["connect", "subscribe", "publish", "rpc", "message", "disconnect"])
def test_a_handler_that_takes_no_event_is_refused_at_once(event: str, handler: Any, name: str) -> None:
    hub = Hub(sdk.settings())
    with pytest.raises(TypeError, match=f"on_{event} ") as refused:
        getattr(hub, f"on_{event}")(handler)
    assert name in str(refused.value)
    assert event not in hub._handlers


@pytest.mark.parametrize(
    "handler",
    [
        lambda event: None,
        lambda event, more=1: None,
        lambda *events: None,
        _Handlers().bound,
        partial(lambda more, event: None, 1),
        dict,
    ],
)
def test_a_handler_that_takes_one_event_is_taken(handler: Any) -> None:
    Hub(sdk.settings()).on_rpc(handler)
