"""hub/handlers: what a handler asks for is found at its registration, and made for each call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import threading
import time
import typing
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NewType

import fastapi
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request
from support.limits import WAIT_S

from hub import (
    ClientEvent,
    ConnectEvent,
    ConnectReply,
    Depends,
    Disconnect,
    DisconnectEvent,
    Error,
    Errors,
    HandlerError,
    Hub,
    HubRouter,
    MessageEvent,
    PublishedEvent,
    PublishEvent,
    PublishReply,
    Refusal,
    RefusalError,
    RPCEvent,
    RPCReply,
    Settings,
    SetupError,
    SubscribeEvent,
    SubscribeReply,
)
from hub.handlers import conversion
from hub.handlers.conversion import converter, is_scalar
from hub.handlers.registry import HandlerTable
from hub.node import callbacks as callbacks_module
from hub.node.boundary import Boundary
from hub.node.callbacks import Callbacks
from hub.node.tasks import Tasks
from hub.telemetry import Metrics

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Line(BaseModel):
    amount: int


class Order(BaseModel):
    lines: list[Line]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: uuid.UUID
    color: Color


class Chat(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(max_length=5)]
    lines: list[int] = []


@dataclasses.dataclass
class Move:
    x: int
    y: int = 0


class Note(typing.TypedDict):
    text: str


UserId = NewType("UserId", int)


@contextlib.asynccontextmanager
async def asking(hub: Hub) -> AsyncIterator[Callable[..., Any]]:
    """Call the handlers of a hub, as a node does."""
    metrics = Metrics()
    tasks = Tasks(Boundary(metrics), metrics)
    callbacks = Callbacks(hub._handlers, tasks, metrics)

    async def ask(event: Any) -> Any:
        async with asyncio.timeout(WAIT_S):
            return await callbacks.call(event)

    yield ask
    await tasks.stop()


@pytest.fixture
def hub() -> Hub:
    return Hub(Settings(dev=True))


def said(answer: Any) -> str:
    """The message of error 107."""
    assert isinstance(answer, Error)
    assert answer.code == 107, answer
    return answer.explained(insecure=False).message


def subscribe(channel: str, data: Any = None) -> SubscribeEvent:
    return SubscribeEvent("client", "ann", channel, data)


def publish(channel: str, data: Any) -> PublishEvent:
    return PublishEvent("client", "ann", channel, data)


def rpc(method: str, data: Any = None) -> RPCEvent:
    return RPCEvent("client", "ann", method, data)


# Parameters of the pattern


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "7", 7),
        (str, "7", "7"),
        (bool, "true", True),
        (Color, "red", Color.RED),
        (Level, "2", Level.HIGH),
        (uuid.UUID, "12345678123456781234567812345678", uuid.UUID("12345678123456781234567812345678")),
        (typing.Literal["a", "b"], "a", "a"),
        (Annotated[int, Field(gt=5)], "7", 7),
        (Annotated[int, msgspec.Meta(gt=5)], "7", 7),
        (UserId, "7", 7),
        (int | None, "7", 7),
        (Any, "7", "7"),
    ],
)
async def test_a_parameter_is_converted_by_its_annotation(
    hub: Hub, annotation: Any, text: str, value: Any
) -> None:
    got: list[Any] = []

    async def may(thing) -> None:  # type: ignore[no-untyped-def]
        got.append(thing)

    may.__annotations__["thing"] = annotation
    hub.on_subscribe("things:{thing}")(may)
    async with asking(hub) as ask:
        assert await ask(subscribe(f"things:{text}")) is None
    assert got == [value]
    assert type(got[0]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "order_id: Input should be a valid integer"),
        (Color, "order_id: Input should be 'red' or 'blue'"),
        (Annotated[int, msgspec.Meta(gt=5)], "order_id: Expected `int`"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_error_107(hub: Hub, annotation: Any, text: str) -> None:
    async def may(order_id) -> None:  # type: ignore[no-untyped-def]
        pytest.fail("the handler was called")

    may.__annotations__["order_id"] = annotation
    hub.on_subscribe("orders:{order_id}")(may)
    async with asking(hub) as ask:
        assert said(await ask(subscribe("orders:x"))).startswith(f"bad request: {text}")


async def test_the_event_is_optional_and_has_any_name(hub: Hub) -> None:
    @hub.on_subscribe("a:{x}")
    async def one(x: int, happening: SubscribeEvent) -> SubscribeReply:
        return SubscribeReply(data=[x, happening.channel])

    @hub.on_subscribe("b:{x}")
    async def two(anything: SubscribeEvent | PublishEvent) -> SubscribeReply:
        return SubscribeReply(data=anything.user)

    @hub.on_subscribe("c:{x}")
    async def three() -> SubscribeReply:
        return SubscribeReply(data="three")

    @hub.on_subscribe("d:{x}")
    async def four(event: ClientEvent, /, *, x: str) -> SubscribeReply:
        return SubscribeReply(data=event.user + x)

    async with asking(hub) as ask:
        answers = [await ask(subscribe(channel)) for channel in ("a:1", "b:1", "c:1", "d:1")]
    assert [bytes(answer.data) for answer in answers] == [b'[1,"a:1"]', b'"ann"', b'"three"', b'"ann1"']


# Payloads


@pytest.mark.parametrize(
    ("model", "data", "value"),
    [
        (Order, {"lines": [{"amount": 1}]}, Order(lines=[Line(amount=1)])),
        (Chat, {"text": "hello"}, Chat("hello")),
        (Move, {"x": 1}, Move(1)),
        (Note, {"text": "hello"}, {"text": "hello"}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (list[Chat], [{"text": "a"}], [Chat("a")]),
        (Order | Move, {"x": 1}, Move(1)),
        (Any, {"a": None}, {"a": None}),
        (
            Strict,
            {"id": "12345678-1234-5678-1234-567812345678", "color": "red"},
            Strict(id=uuid.UUID("12345678123456781234567812345678"), color=Color.RED),
        ),
    ],
)
async def test_a_payload_is_a_model(hub: Hub, model: Any, data: Any, value: Any) -> None:
    got: list[Any] = []

    async def take(payload) -> None:  # type: ignore[no-untyped-def]
        got.append(payload)

    take.__annotations__["payload"] = model
    hub.on_publish("a:{b}")(take)
    async with asking(hub) as ask:
        assert await ask(publish("a:1", data)) is None
    assert got == [value]


@pytest.mark.parametrize(
    ("model", "data", "text"),
    [
        (Order, {"lines": [{"amount": "x"}]}, "lines.0.amount: Input should be a valid integer"),
        (Order, {}, "lines: Field required"),
        (Order, None, "data: Input should be an object"),
        (Order, b"\xff", "data: Input should be a valid dictionary"),
        (Order, {"lines": [{}, {}]}, "lines.0.amount: Field required (and 1 more)"),
        (Chat, {"text": "hellohello"}, "text: Expected `str` of length <= 5"),
        (Chat, {"text": "a", "lines": [1, "b"]}, "lines.1: Expected `int`, got `str`"),
        (Chat, None, "data: Expected `object`, got `null`"),
        (Move, {"x": "a"}, "x: Input should be a valid integer"),
        (Note, {}, "text: Field required" if typing.TYPE_CHECKING else "missing"),
        (dict[str, int], {"k" * 500: "a"}, "kkk"),
    ],
)
async def test_a_payload_that_does_not_fit_is_error_107(hub: Hub, model: Any, data: Any, text: str) -> None:
    async def take(payload) -> None:  # type: ignore[no-untyped-def]
        pytest.fail("the handler was called")

    take.__annotations__["payload"] = model
    hub.on_publish("a:{b}")(take)
    async with asking(hub) as ask:
        message = said(await ask(publish("a:1", data)))
    assert text in message
    assert len(message) <= len("bad request: ") + conversion.FAULT_CHARACTERS_MAX
    assert "\n" not in message


async def test_a_payload_of_one_value_is_named_data(hub: Hub) -> None:
    @hub.rpc("double")
    async def double(data: int) -> int:
        return 2 * data

    async with asking(hub) as ask:
        assert bytes((await ask(rpc("double", 4))).data) == b"8"
        assert said(await ask(rpc("double", "x"))).startswith(
            "bad request: data: Input should be a valid int"
        )


async def test_an_absent_payload_takes_the_default(hub: Hub) -> None:
    @hub.on_subscribe("a:{b}")
    async def may(wish: Move = Move(7)) -> SubscribeReply:  # noqa: B008 - a default of a payload
        return SubscribeReply(data=wish.x)

    async with asking(hub) as ask:
        assert bytes((await ask(subscribe("a:1"))).data) == b"7"
        assert bytes((await ask(subscribe("a:1", {"x": 1}))).data) == b"1"


async def test_events_without_a_pattern_have_typed_payloads_too(hub: Hub) -> None:
    got: list[Any] = []

    @hub.on_connect
    async def who(event: ConnectEvent, login: Move) -> ConnectReply:
        return ConnectReply(user=f"{login.x}")

    @hub.on_message
    async def take(move: Move) -> None:
        got.append(move)

    @hub.after_publish
    async def keep(event: PublishedEvent, move: Move) -> None:
        got.append((event.offset, move))

    async with asking(hub) as ask:
        assert (await ask(ConnectEvent("client", "", {"x": 1}))).user == "1"
        assert "x: Field required" in said(await ask(ConnectEvent("client", "", {})))
        await ask(MessageEvent("client", "ann", {"x": 2}))
        await ask(PublishedEvent("client", "ann", "a:1", {"x": 3}, 9, "epoch"))
    assert got == [Move(2), (9, Move(3))]


# Answers


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (Order(lines=[Line(amount=1)]), b'{"lines":[{"amount":1}]}'),
        (Chat("a"), b'{"text":"a","lines":[]}'),
        (Move(1), b'{"x":1,"y":0}'),
        ([Move(1), Line(amount=2)], b'[{"x":1,"y":0},{"amount":2}]'),
        ({"a": Color.RED}, b'{"a":"red"}'),
        (0, b"0"),
        (RPCReply("x"), b'"x"'),
    ],
)
async def test_the_result_of_a_call_is_encoded(hub: Hub, answer: Any, data: bytes) -> None:
    @hub.rpc("m")
    async def method() -> Any:
        return answer

    async with asking(hub) as ask:
        assert bytes((await ask(rpc("m"))).data) == data


@pytest.mark.parametrize("answer", [None, Error(1000, "no"), Disconnect(4500, "go")])
async def test_a_call_without_a_result(hub: Hub, answer: Any) -> None:
    @hub.rpc("m")
    async def method() -> Any:
        return answer

    async with asking(hub) as ask:
        assert await ask(rpc("m")) == answer


async def test_a_result_without_a_json_form_fails_the_call(hub: Hub) -> None:
    @hub.rpc("m")
    async def method() -> Any:
        return object()

    async with asking(hub) as ask:
        assert await ask(rpc("m")) == Errors.INTERNAL


# Which handler


async def test_the_most_specific_handler_is_called_and_the_rest_have_the_bare_one(hub: Hub) -> None:
    called: list[str] = []

    @hub.on_publish
    async def other(event: PublishEvent) -> None:
        called.append("other")

    @hub.on_publish("chat:{room}")
    async def room(event: PublishEvent) -> None:
        called.append("room")

    @hub.on_publish("chat:lobby")
    async def lobby(event: PublishEvent) -> None:
        called.append("lobby")

    async with asking(hub) as ask:
        for channel in ("chat:lobby", "chat:a", "news"):
            await ask(publish(channel, 1))
    assert called == ["lobby", "room", "other"]


async def test_an_event_without_a_handler_is_left_to_the_settings(hub: Hub) -> None:
    async with asking(hub) as ask:
        assert await ask(subscribe("a:1")) is None
    assert not hub._handlers


@pytest.mark.parametrize("decorator", ["on_subscribe", "on_publish", "after_publish", "rpc"])
def test_two_handlers_of_one_pattern_are_refused(hub: Hub, decorator: str) -> None:
    async def first() -> None: ...
    async def second() -> None: ...

    decorate = getattr(hub, decorator)
    decorate("a:{b}")(first)
    with pytest.raises(SetupError, match=r"a:\{c\}.* has a handler already, .*first: remove one") as refused:
        decorate("a:{c}")(second)
    assert "\n" not in str(refused.value)
    decorate("a:{c}-{d}")(second)
    with pytest.raises(SetupError, match=r"match the same names, and neither is more specific"):
        decorate("a:{c}!{d}")(second)


def test_a_second_bare_handler_is_refused(hub: Hub) -> None:
    async def first(event: Any) -> None: ...
    async def second(event: Any) -> None: ...

    hub.on_publish(first)
    with pytest.raises(SetupError, match=r"on_publish has a handler already, .*first: call both from one"):
        hub.on_publish(second)


# What is found at registration


def wrong_parameters() -> Iterator[Any]:
    """Handlers of `chat:{room}`, each with a part of the error."""

    async def unannotated(event) -> None: ...  # type: ignore[no-untyped-def]

    yield unannotated, "its parameter `event` has no annotation: annotate it"

    async def unknown(event: PublishEvent, rom: str) -> None: ...

    yield unknown, "its parameter `rom` is not in the pattern, whose parameters are `room`: correct it"

    async def two_payloads(one: Move, two: Chat) -> None: ...

    yield two_payloads, "its parameters `one` and `two` would both be the payload"

    async def generator(event: PublishEvent) -> AsyncIterator[int]:
        yield 1

    yield generator, "it has a yield: return the answer"

    def plain_generator(event: PublishEvent) -> Iterator[int]:
        yield 1

    yield plain_generator, "it has a yield: return the answer"

    async def other_event(event: SubscribeEvent) -> None: ...

    yield other_event, "its parameter `event` is a SubscribeEvent, and the event is a PublishEvent"

    async def star(*events: PublishEvent) -> None: ...

    yield star, "its parameter `*events` has no name"

    async def stars(**more: Any) -> None: ...

    yield stars, "its parameter `**more` has no name"

    async def unresolved(event: PublishEvent, amount: OnlyForCheckers) -> None: ...

    yield (
        unresolved,
        "cannot be resolved (name 'OnlyForCheckers' is not defined): import its names at the top",
    )

    async def unreadable(event: PublishEvent, thing: Hub) -> None: ...

    yield unreadable, "has a type that cannot be read"

    async def of_request(request: Request) -> None: ...

    yield of_request, "its parameter `request` is of an HTTP request, and a handler has none"

    async def query(room: str = fastapi.Query()) -> None: ...

    yield query, "its parameter `room` is FastAPI's Query, which reads an HTTP request"

    async def header(event: PublishEvent, x: Annotated[str, fastapi.Header()]) -> None: ...

    yield header, "its parameter `x` is FastAPI's Header, which reads an HTTP request"

    async def called(event: PublishEvent, user: Any = Depends(print())) -> None: ...  # noqa: B008

    yield called, "its parameter `user` has a Depends without a function"

    async def coroutine(event: PublishEvent, user: Any = Depends(5)) -> None: ...  # type: ignore[call-overload]

    yield coroutine, "depends on 5, which is not a function: write Depends(function), without calling"

    async def bool_answer(event: PublishEvent) -> bool:
        return True

    yield bool_answer, "it returns bool, and the hub takes PublishReply, Error, Disconnect or None"

    yield 5, "takes a function, not 5"


@pytest.mark.parametrize(
    ("handler", "text"), list(wrong_parameters()), ids=lambda each: getattr(each, "__name__", "")
)
def test_a_handler_that_cannot_be_called_is_refused_in_one_line(hub: Hub, handler: Any, text: str) -> None:
    with pytest.raises(HandlerError) as refused:
        hub.on_publish("chat:{room}")(handler)
    message = str(refused.value)
    assert message.startswith('on_publish("chat:{room}") ')
    assert text in message
    assert "\n" not in message
    if handler != 5:
        assert handler.__qualname__ in message
    assert isinstance(refused.value, TypeError)
    assert "publish" not in hub._handlers


def test_an_event_without_a_payload_has_no_such_parameter(hub: Hub) -> None:
    async def gone(event: DisconnectEvent, move: Move) -> None: ...

    with pytest.raises(HandlerError, match=r"on_disconnect .*`move` is unknown: the event has no payload"):
        hub.on_disconnect(gone)


def test_a_wrong_event_is_found_without_a_pattern_too(hub: Hub) -> None:
    async def may(event: PublishEvent) -> None: ...

    with pytest.raises(HandlerError, match="is a PublishEvent, and the event is a SubscribeEvent"):
        hub.on_subscribe(may)


def test_rpc_without_a_name(hub: Hub) -> None:
    async def cancel() -> None: ...

    with pytest.raises(HandlerError, match=r'write @hub.rpc\("name"\)'):
        hub.rpc(cancel)  # type: ignore[arg-type]


def test_a_malformed_pattern(hub: Hub) -> None:
    async def may() -> None: ...

    with pytest.raises(SetupError, match="has the parameter"):
        hub.on_subscribe("orders:{order id}")(may)


class AnyCallable:
    async def __call__(self, event: PublishEvent, room: str) -> PublishReply:
        return PublishReply(data=room)

    async def method(self, room: str) -> PublishReply:
        return PublishReply(data=room)


async def _of_partial(extra: str, room: str) -> PublishReply:
    return PublishReply(data=room + extra)


@pytest.mark.parametrize(
    ("handler", "data"),
    [
        (AnyCallable(), b'"a"'),
        (AnyCallable().method, b'"a"'),
        (partial(_of_partial, "!"), b'"a!"'),
    ],
    ids=["object", "method", "partial"],
)
async def test_a_handler_may_be_any_callable(hub: Hub, handler: Any, data: bytes) -> None:
    hub.on_publish("chat:{room}")(handler)
    async with asking(hub) as ask:
        assert bytes((await ask(publish("chat:a", 1))).data) == data


@pytest.mark.parametrize(
    "handler",
    [
        lambda event: PublishReply(data=event.user),
        lambda event, more=1: PublishReply(data=event.user),
        lambda *events: PublishReply(data=events[0].user),
        partial(lambda more, event: PublishReply(data=event.user), 1),
    ],
)
async def test_a_bare_handler_takes_the_event_alone(hub: Hub, handler: Any) -> None:
    hub.on_publish(handler)
    async with asking(hub) as ask:
        assert bytes((await ask(publish("a", 1))).data) == b'"ann"'


async def test_a_bare_handler_whose_annotation_is_for_checkers_takes_the_event(hub: Hub) -> None:
    got: list[Any] = []

    @hub.on_publish
    async def take(event: OnlyForCheckers) -> None:
        got.append(event)

    async with asking(hub) as ask:
        await ask(publish("a", 1))
    assert got == [publish("a", 1)]


# Dependencies


async def test_dependencies_are_made_once_and_closed_after_the_answer(hub: Hub) -> None:
    order: list[str] = []

    async def user(event: ClientEvent) -> str:
        order.append("user")
        return event.user

    async def session(who: str = Depends(user)) -> AsyncIterator[str]:
        order.append(f"open for {who}")
        yield "session"
        order.append("close")

    def cursor(room: str, db: Annotated[str, Depends(session)]) -> Iterator[str]:
        order.append(f"cursor in a thread: {threading.current_thread() is not threading.main_thread()}")
        yield f"{db}/{room}"
        order.append("cursor closed")

    class Repo:
        def __init__(self, cursor: str = Depends(cursor), limit: int = 10) -> None:
            self.name = f"{cursor}/{limit}"

    @hub.on_publish("chat:{room}")
    async def say(
        repo: Annotated[Repo, Depends()], who: str = Depends(user), again: str = Depends(user)
    ) -> PublishReply:
        order.append("handler")
        return PublishReply(data=[repo.name, who, again])

    async with asking(hub) as ask:
        assert bytes((await ask(publish("chat:a", 1))).data) == b'["session/a/10","ann","ann"]'
    assert order == [
        "user",
        "open for ann",
        "cursor in a thread: True",
        "handler",
        "cursor closed",
        "close",
    ]


async def test_a_dependency_without_a_cache_is_made_again(hub: Hub) -> None:
    made: list[int] = []

    async def number() -> int:
        made.append(1)
        return len(made)

    @hub.rpc("m")
    async def method(
        one: int = Depends(number, use_cache=False), two: int = Depends(number, use_cache=False)
    ) -> list[int]:
        return [one, two]

    async with asking(hub) as ask:
        assert bytes((await ask(rpc("m"))).data) == b"[1,2]"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_dependency_sees_the_handlers_error_and_is_closed(hub: Hub, kind: str) -> None:
    seen: list[str] = []

    async def in_loop() -> AsyncIterator[int]:
        try:
            yield 1
        except ZeroDivisionError:
            seen.append("rolled back")
            raise
        finally:
            seen.append("closed")

    def in_thread() -> Iterator[int]:
        try:
            yield 1
        except ZeroDivisionError:
            seen.append("rolled back")
            raise
        finally:
            seen.append("closed")

    made: Any = in_loop if kind == "async" else in_thread

    @hub.rpc("m")
    async def method(value: int = Depends(made)) -> float:
        return value / 0

    async with asking(hub) as ask:
        assert await ask(rpc("m")) == Errors.INTERNAL
    assert seen == ["rolled back", "closed"]


async def test_a_dependency_that_keeps_the_handlers_error_does_not_make_it_a_success(hub: Hub) -> None:
    async def swallow() -> AsyncIterator[int]:
        with contextlib.suppress(ZeroDivisionError):
            yield 1

    @hub.on_subscribe("a:{b}")
    async def may(value: int = Depends(swallow)) -> None:
        raise ZeroDivisionError

    async with asking(hub) as ask:
        assert await ask(subscribe("a:1")) == Errors.INTERNAL


async def test_a_dependency_that_fails_after_the_handler_fails_the_command(hub: Hub) -> None:
    async def transaction() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("the commit failed")

    @hub.rpc("m")
    async def method(value: int = Depends(transaction)) -> int:
        return value

    async with asking(hub) as ask:
        assert await ask(rpc("m")) == Errors.INTERNAL


@pytest.mark.parametrize("refusal", [Errors.PERMISSION_DENIED, Error(1000, "no"), Disconnect(4500, "go")])
async def test_a_dependency_refuses(hub: Hub, refusal: Refusal) -> None:
    async def user(event: ClientEvent) -> str:
        raise RefusalError(refusal)

    @hub.rpc("m")
    async def method(who: str = Depends(user)) -> str:
        pytest.fail("the handler was called")

    @hub.on_subscribe
    def bare(event: SubscribeEvent) -> None:
        raise RefusalError(refusal)

    async with asking(hub) as ask:
        assert await ask(rpc("m")) is refusal
        assert await ask(subscribe("a")) is refusal


async def test_the_payload_is_read_before_any_dependency_is_made(hub: Hub) -> None:
    async def user() -> str:
        pytest.fail("the dependency was made")

    @hub.rpc("m")
    async def method(move: Move, who: str = Depends(user)) -> None: ...

    async with asking(hub) as ask:
        said(await ask(rpc("m", {})))


def wrong_dependencies() -> Iterator[Any]:
    """Dependencies of a publish handler of `chat:{room}`, each with a part of the error."""

    async def unknown(event: ClientEvent, rom: str) -> None: ...

    yield unknown, "its parameter `rom` is unknown: a dependency takes the event, parameters of the pattern"

    async def unannotated(event) -> None: ...  # type: ignore[no-untyped-def]

    yield unannotated, "its parameter `event` has no annotation"

    async def of_request(request: Request) -> None: ...

    yield of_request, "`request` is of an HTTP request"

    async def other(event: SubscribeEvent) -> None: ...

    yield other, "annotate it with PublishEvent, or with ClientEvent"


@pytest.mark.parametrize(("dependency", "text"), list(wrong_dependencies()))
def test_a_dependency_that_cannot_be_made_is_refused(hub: Hub, dependency: Any, text: str) -> None:
    async def say(room: str, value: Any = Depends(dependency)) -> None: ...

    with pytest.raises(HandlerError) as refused:
        hub.on_publish("chat:{room}")(say)
    assert text in str(refused.value)
    assert dependency.__qualname__ in str(refused.value)


async def test_dependencies_of_fastapi(hub: Hub) -> None:
    async def database() -> AsyncIterator[str]:
        yield "database"

    async def user(event: ClientEvent, db: str = fastapi.Depends(database)) -> str:
        return f"{event.user} of {db}"

    @hub.rpc("m")
    async def method(
        who: Annotated[str, fastapi.Depends(user)], again: str = fastapi.Security(user)
    ) -> list[str]:
        return [who, again]

    async with asking(hub) as ask:
        assert bytes((await ask(rpc("m"))).data) == b'["ann of database","ann of database"]'

    async def scoped(who: str = fastapi.Security(user, scopes=["admin"])) -> None: ...

    with pytest.raises(HandlerError, match=r"has scopes or max_concurrency, .* use hub\.Depends"):
        hub.rpc("scoped")(scoped)


# Threads, limits and failures


async def test_a_function_that_is_not_async_does_not_hold_up_the_loop(hub: Hub) -> None:
    go_on = threading.Event()

    @hub.rpc("blocking")
    def blocking(data: int) -> int:
        assert go_on.wait(WAIT_S)
        return data

    @hub.on_publish
    def bare(event: PublishEvent) -> PublishReply:
        assert go_on.wait(WAIT_S)
        return PublishReply(data=threading.current_thread() is not threading.main_thread())

    async with asking(hub) as ask:
        asked = [asyncio.ensure_future(ask(rpc("blocking", 1))), asyncio.ensure_future(ask(publish("a", 1)))]
        await asyncio.sleep(0)
        go_on.set()
        one, two = await asyncio.gather(*asked)
    assert (bytes(one.data), bytes(two.data)) == (b"1", b"true")


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), StopIteration(), ValueError("no")]
)
@pytest.mark.parametrize("place", ["async", "thread", "dependency", "bare"])
async def test_whatever_a_handler_raises_fails_its_own_command(
    hub: Hub, error: BaseException, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def asynchronous() -> None:
        raise error

    def in_thread() -> None:
        raise error

    async def with_dependency(value: None = Depends(in_thread)) -> None: ...

    def bare(event: RPCEvent) -> None:
        raise error

    if place == "bare":
        hub.on_rpc(bare)
    else:
        functions = {"async": asynchronous, "thread": in_thread, "dependency": with_dependency}
        hub.rpc("m")(functions[place])

    @hub.rpc("other")
    async def other() -> str:
        return "fine"

    async with asking(hub) as ask:
        assert await ask(rpc("m")) == Errors.INTERNAL
        assert bytes((await ask(rpc("other"))).data) == b'"fine"'
    [line] = [record for record in caplog.records if "hook.failed" in str(record.msg)]
    assert "test_handlers" in str(line.msg["function"])  # type: ignore[index]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_time_limit_and_a_slow_handler_are_logged_by_name(
    hub: Hub, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callbacks_module, "HOOK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(callbacks_module, "HOOK_SLOW_S", 0.05)
    closed = asyncio.Event()
    ended = threading.Event()

    async def resource() -> AsyncIterator[threading.Event]:
        try:
            yield ended
        finally:
            if kind == "thread":
                assert ended.is_set()  # a thread that uses the resource has ended
            closed.set()

    async def slow_async(event: Annotated[threading.Event, Depends(resource)]) -> None:
        await asyncio.sleep(WAIT_S)

    def slow_thread(event: Annotated[threading.Event, Depends(resource)]) -> None:
        time.sleep(0.3)
        event.set()

    hub.rpc("slow")(slow_async if kind == "async" else slow_thread)
    async with asking(hub) as ask:
        assert await ask(rpc("slow")) == Errors.INTERNAL
        async with asyncio.timeout(WAIT_S):
            await closed.wait()
            while not any("hook.slow" in str(record.msg) for record in caplog.records):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    lines: list[Any] = [record.msg for record in caplog.records]
    assert [line["event"] for line in lines] == ["hook.failed", "hook.slow"]
    assert all(line["function"].endswith(f"slow_{kind}") for line in lines)
    assert lines[1]["duration_s"] >= 0.1


async def test_a_model_that_raises_fails_its_own_command(hub: Hub) -> None:
    class Odd(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def check(cls, value: str) -> str:
            if value == "value":
                raise ValueError("not this one")
            raise ZeroDivisionError

    @hub.rpc("m")
    async def method(odd: Odd) -> None: ...

    async with asking(hub) as ask:
        assert said(await ask(rpc("m", {"text": "value"}))) == "bad request: text: Value error, not this one"
        assert await ask(rpc("m", {"text": "x"})) == Errors.INTERNAL


# The connection's state


class Cart(BaseModel):
    items: int = 0


async def test_the_state_is_of_the_type_that_handlers_name(hub: Hub) -> None:
    @hub.on_connect
    async def who(event: ConnectEvent[Cart]) -> ConnectReply:
        return ConnectReply(user="ann", state=Cart(items=1))

    @hub.rpc("items")
    async def items(event: RPCEvent[Cart]) -> int:
        return event.state.items

    assert hub._handlers.read_state(b'{"items":3}') == Cart(items=3)
    with pytest.raises(Exception, match="valid integer"):
        hub._handlers.read_state(b'{"items":"x"}')
    async with asking(hub) as ask:
        answer = await ask(RPCEvent("client", "ann", "items", None, state=Cart(items=2)))
        assert bytes(answer.data) == b"2"
        assert await ask(rpc("items")) == Errors.INTERNAL  # a dict is no Cart

    async def other(event: RPCEvent[Move]) -> None: ...

    with pytest.raises(SetupError, match="handlers name the states Cart and Move"):
        hub.rpc("other")(other)


def test_a_state_without_a_type_is_what_json_says() -> None:
    assert HandlerTable().read_state(b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize("state", [{"a": object()}, {"a": "x" * 5000}])
async def test_a_state_that_a_token_cannot_carry_fails_the_handler(
    hub: Hub, state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.on_connect
    async def who(event: ConnectEvent) -> ConnectReply:
        return ConnectReply(state=state)

    @hub.rpc("m")
    async def method(event: RPCEvent) -> None:
        event.state.update(state)

    async with asking(hub) as ask:
        assert await ask(ConnectEvent("client", "ann")) == Errors.INTERNAL
        assert await ask(rpc("m")) == Errors.INTERNAL
    text = str([record.msg for record in caplog.records])
    assert "state" in text
    assert "4096 at the most" in text or "no JSON form" in text


# Routers


async def test_a_router_groups_handlers_under_a_prefix(hub: Hub) -> None:
    orders = HubRouter(prefix="orders")

    @orders.on_subscribe(":{order_id}")
    async def may(order_id: int) -> SubscribeReply:
        return SubscribeReply(data=order_id)

    @orders.rpc(".cancel")
    async def cancel(move: Move) -> Move:
        return move

    shop = HubRouter()

    @shop.on_publish
    async def other(event: PublishEvent) -> PublishReply:
        return PublishReply(data="other")

    shop.include_router(orders)
    assert not hub._handlers
    hub.include_router(shop)
    async with asking(hub) as ask:
        assert bytes((await ask(subscribe("orders:7"))).data) == b"7"
        assert bytes((await ask(rpc("orders.cancel", {"x": 1}))).data) == b'{"x":1,"y":0}'
        assert bytes((await ask(publish("a", 1))).data) == b'"other"'
    with pytest.raises(SetupError, match="comes after include_router"):
        orders.rpc(".late")(cancel)


def test_a_handler_of_a_router_is_checked_where_it_is_registered(hub: Hub) -> None:
    router = HubRouter(prefix="orders")

    async def may(event: SubscribeEvent, x: str) -> None: ...
    async def fine(event: Any) -> None: ...

    with pytest.raises(HandlerError, match=r"orders:\{order_id\}"):
        router.on_subscribe(":{order_id}")(may)
    with pytest.raises(SetupError, match="in a router with the prefix 'orders' has no pattern"):
        router.on_subscribe(fine)


def test_a_handler_of_a_router_that_the_hub_has_already_is_refused(hub: Hub) -> None:
    router = HubRouter()

    async def one() -> None: ...
    async def two() -> None: ...

    hub.rpc("m")(one)
    router.rpc("m")(two)
    with pytest.raises(SetupError, match=r'rpc\("m"\) has a handler already, .*one'):
        hub.include_router(router)


# Types


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, True),
        (str | None, True),
        (Annotated[int, Field(gt=1)], True),
        (typing.Literal["a"], True),
        (UserId, True),
        (Color, True),
        (dict, False),
        (list[int], False),
        (Move, False),
        (Any, False),
        (int | Move, False),
    ],
)
def test_single_values(annotation: Any, expected: bool) -> None:
    assert is_scalar(annotation) is expected


def test_a_type_of_another_librarys_models_is_converted_or_refused() -> None:
    @dataclasses.dataclass
    class Holder:
        chat: Chat

    assert converter(Holder).from_payload({"chat": {"text": "a"}}) == Holder(Chat("a"))

    @dataclasses.dataclass
    class Odd:
        lock: Hub

    Odd.__annotations__["lock"] = Hub
    with pytest.raises(TypeError, match="Hub"):
        converter(Odd)


def test_a_pattern_that_no_channel_can_have_is_doubtful(hub: Hub) -> None:
    async def may() -> None: ...

    for pattern in ("ordres:{order_id}", "chat:{room}", "lobby", "{namespace}:{name}"):
        hub.on_subscribe(pattern)(may)
    hub.rpc("x:y")(may)
    [line] = hub._handlers.doubts(["chat"])
    assert line.startswith(
        'channels.ordres is not configured, so on_subscribe("ordres:{order_id}") never calls '
    )
    assert line.endswith("add the table, or correct the pattern")
