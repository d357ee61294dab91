"""The app that a chaos run serves: its handlers fail on request, and a route reports a node's levels.

`python -m loadtests.chaos.app serve --port P --config FILE --redis URL` runs one node.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections import Counter
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hub import (
    ConnectEvent,
    DisconnectEvent,
    Hub,
    MessageEvent,
    PublishEvent,
    RPCEvent,
    RPCReply,
    SubscribeEvent,
)
from hub.config import load
from hub.server import run
from hub.settings import Settings
from hub.telemetry import configure_logging

MOODS = ("raise", "cancel", "cancel-shared", "base", "sleep", "type")
"""How a handler may fail: raise an exception, raise `CancelledError`, await a task that is cancelled, raise
another `BaseException`, answer late, or return a value of a wrong type."""

ODD = "odd"
"""Namespace of the channels whose handlers fail, and the first part of such a user's name."""

SLEEP_S = 1.0
LEVELS = "/debug/levels"
SLEEPING = "<TimerHandle _set_result_unless_cancelled>"


class OddError(BaseException):
    """Derives from `BaseException`, which `except Exception` does not catch."""


async def fail(mood: str) -> Any:
    """Fail as the mood says; another mood does nothing."""
    match mood:
        case "raise":
            raise RuntimeError("the handler fails on request")
        case "cancel":
            raise asyncio.CancelledError
        case "cancel-shared":
            shared = asyncio.ensure_future(asyncio.sleep(SLEEP_S))
            asyncio.get_running_loop().call_soon(shared.cancel)
            await shared
        case "base":
            raise OddError
        case "sleep":
            await asyncio.sleep(SLEEP_S)
        case "type":
            return object()
    return None


def mood_of(channel: str) -> str:
    """The mood of a channel such as `odd:raise.7`; empty for a channel of another namespace."""
    namespace, _, rest = channel.partition(":")
    return rest.partition(".")[0] if namespace == ODD else ""


def add_handlers(hub: Hub) -> None:
    """Add the handlers that fail on request."""

    @hub.on_connect
    async def connect(event: ConnectEvent) -> Any:
        return await fail(event.data.get("mood", "") if isinstance(event.data, dict) else "")

    @hub.on_subscribe
    async def subscribe(event: SubscribeEvent) -> Any:
        return await fail(mood_of(event.channel))

    @hub.on_publish
    async def publish(event: PublishEvent) -> Any:
        return await fail(mood_of(event.channel))

    @hub.on_rpc
    async def rpc(event: RPCEvent) -> Any:
        return await fail(event.method) or RPCReply({"method": event.method})

    @hub.on_message
    async def message(event: MessageEvent) -> None:
        await fail(event.data.get("mood", "") if isinstance(event.data, dict) else "")

    @hub.on_disconnect
    async def disconnect(event: DisconnectEvent) -> None:
        await fail(mood_of(event.user))


async def levels(request: Request) -> JSONResponse:
    """Count what must not grow: tasks by their coroutine, timers by their callback, and open descriptors.

    The timer of a task that sleeps is left out: the task counts.
    """
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    gc.unfreeze()  # the hub's collector freezes what it has visited, and get_objects() leaves that out
    timers = Counter(
        _callback(each)
        for each in gc.get_objects()
        if type(each).__name__ == "TimerHandle" and not each.cancelled()
    )
    del timers[SLEEPING]
    # The folder's own descriptor is open while it is listed.
    descriptors = await asyncio.to_thread(lambda: len(list(Path("/proc/self/fd").iterdir())) - 1)
    return JSONResponse({"tasks": tasks, "timers": timers, "descriptors": descriptors})


def _callback(handle: Any) -> str:
    """The name of a timer's callback, from its representation, which holds addresses and times too."""
    words = [
        word for word in repr(handle).replace("(", " ").split() if "when=" not in word and "0x" not in word
    ]
    return " ".join(words[:4])


def settings_of(module: str) -> Settings:
    """Read the command line of a node, and make its log ready.

    Args:
        module: that runs, for the help.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--redis", required=True)
    arguments = parser.parse_args()
    settings = load(
        arguments.config,
        overrides={"server": {"port": arguments.port}, "redis": {"url": arguments.redis}},
    )
    configure_logging(settings.dev)
    return settings


def main() -> None:
    """Run a node."""
    settings = settings_of("loadtests.chaos.app")
    hub = Hub(settings)
    add_handlers(hub)
    app = Starlette(routes=[Route(LEVELS, levels)])
    hub.install(app, "")
    run(app, settings)


if __name__ == "__main__":
    main()
