"""The decorators with which an app registers its handlers, on a hub or on a group of handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar, overload

from hub.core.hooks import ConnectReply, PublishReply, Refusal, RPCReply, SubscribeReply
from hub.errors import HandlerError, SetupError
from hub.handlers.handler import AppHandler, decorator_of
from hub.handlers.registry import HandlerTable
from hub.handlers.signature import Handler, Hints

_T = TypeVar("_T")
_Answer: TypeAlias = Callable[..., _T | Awaitable[_T]]

_Any = TypeVar("_Any", bound=Handler)
_Connect = TypeVar("_Connect", bound=_Answer[ConnectReply | Refusal | None])
_Subscribe = TypeVar("_Subscribe", bound=_Answer[SubscribeReply | Refusal | None])
_Publish = TypeVar("_Publish", bound=_Answer[PublishReply | Refusal | None])
_RPC = TypeVar("_RPC", bound=_Answer[RPCReply | Refusal | None])


class HandlerDecorators:
    """Decorators of handlers.

    A handler is `async`, or runs in a thread. It takes the event by its annotation, the parameters of its
    pattern by their names, the payload as a parameter of a model's type, and values that `Depends` makes.

    Each decorator raises `HandlerError` for a function that cannot be called so, and `SetupError` where
    another handler is for the same channels or methods.
    """

    def on_connect(self, handler: _Connect, /) -> _Connect:
        """Decorate the function that is asked when a client connects. Its event is a `ConnectEvent`."""
        return self._add("connect", None, handler)

    @overload
    def on_subscribe(self, pattern: str, /) -> Callable[[_Subscribe], _Subscribe]: ...
    @overload
    def on_subscribe(self, handler: _Subscribe, /) -> _Subscribe: ...
    def on_subscribe(self, pattern: Any, /) -> Any:
        """Decorate the function that is asked when a client subscribes. Its event is a `SubscribeEvent`.

        Args:
            pattern: of the channels, such as `orders:{order_id}`. Without a pattern, the function is asked
                about all channels that no pattern matches.
        """
        return self._decorate("subscribe", pattern)

    @overload
    def on_publish(self, pattern: str, /) -> Callable[[_Publish], _Publish]: ...
    @overload
    def on_publish(self, handler: _Publish, /) -> _Publish: ...
    def on_publish(self, pattern: Any, /) -> Any:
        """Decorate the function that is asked when a client publishes. Its event is a `PublishEvent`.

        Args:
            pattern: as of `on_subscribe`.
        """
        return self._decorate("publish", pattern)

    @overload
    def after_publish(self, pattern: str, /) -> Callable[[_Any], _Any]: ...
    @overload
    def after_publish(self, handler: _Any, /) -> _Any: ...
    def after_publish(self, pattern: Any, /) -> Any:
        """Decorate the function that is told of each client's publication. Its event is a `PublishedEvent`.

        The client has its reply after the function ended, so that a slow function slows its own client.

        Args:
            pattern: as of `on_subscribe`.
        """
        return self._decorate("after_publish", pattern)

    def rpc(self, method: str, /) -> Callable[[_Any], _Any]:
        """Decorate the function that answers a method. Its event is an `RPCEvent`.

        The function returns the result, which is any value that JSON can represent, a model among them; or an
        `Error` or a `Disconnect`.

        Args:
            method: the name of the method, such as `orders.cancel`, or a pattern, such as `orders.{action}`.
        """
        if not isinstance(method, str):
            raise HandlerError(
                'rpc takes the name of a method: write @hub.rpc("name"), or @hub.on_rpc for every method'
            )
        return lambda handler: self._add("rpc", method, handler)

    def on_rpc(self, handler: _RPC, /) -> _RPC:
        """Decorate the function that answers all methods that `rpc` does not. Its event is an `RPCEvent`."""
        return self._add("rpc", None, handler)

    def on_message(self, handler: _Any, /) -> _Any:
        """Decorate the function that takes a client's messages. Its event is a `MessageEvent`."""
        return self._add("message", None, handler)

    def on_disconnect(self, handler: _Any, /) -> _Any:
        """Decorate the function that is told when a client is gone. Its event is a `DisconnectEvent`."""
        return self._add("disconnect", None, handler)

    def include_router(self, router: HubRouter) -> None:
        """Add all handlers of a router. Handlers that are registered on the router later are refused.

        Raises:
            SetupError: a handler of the router is for the same channels or methods as another one.
        """
        for handler, pattern in router.close():
            self._register(handler.hook, pattern, handler.function, handler.hints)

    def _decorate(self, hook: str, pattern: Any) -> Any:
        if isinstance(pattern, str):
            return lambda handler: self._add(hook, pattern, handler)
        return self._add(hook, None, pattern)

    def _add(self, hook: str, pattern: str | None, handler: _Any) -> _Any:
        hints = Hints()
        self._register(hook, pattern, handler, hints)
        hints.close()
        return handler

    def _register(self, hook: str, pattern: str | None, function: Handler, hints: Hints) -> None:
        raise NotImplementedError


class HubRouter(HandlerDecorators):
    """A group of handlers, which `hub.include_router(router)` adds to a hub, as FastAPI's `APIRouter` does.

    Args:
        prefix: put before each pattern, as it is: `HubRouter(prefix="orders")` with `@router.rpc(".cancel")`
            answers `orders.cancel`.
    """

    def __init__(self, *, prefix: str = "") -> None:
        self.prefix: Final = prefix
        self._handlers = HandlerTable()
        self._added: list[tuple[AppHandler, str | None]] = []
        self._is_closed = False

    def close(self) -> list[tuple[AppHandler, str | None]]:
        """Take no more handlers. Returns those that there are, each with its pattern."""
        self._is_closed = True
        return self._added

    def _register(self, hook: str, pattern: str | None, function: Handler, hints: Hints) -> None:
        label = decorator_of(hook, pattern)
        if self._is_closed:
            raise SetupError(
                f"{label} comes after include_router: register every handler of a router before it"
            )
        if pattern is None and self.prefix and hook in ("subscribe", "publish", "after_publish", "rpc"):
            raise SetupError(
                f"{label} in a router with the prefix {self.prefix!r} has no pattern: give it a pattern, or"
                " register it on the hub"
            )
        whole = None if pattern is None else self.prefix + pattern
        handler = AppHandler(hook, whole, function, hints)
        self._handlers.add(handler)
        self._added.append((handler, whole))
