"""The house: who may import whom. A floor stands on those below it, a room on those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hub"

FLOORS: dict[str, list[str]] = {
    "BASE": ["errors", "settings", "config", "telemetry"],
    "PROTOCOL": [
        "protocol.codes",
        "protocol.payloads",
        "protocol.messages",
        "protocol.client_pb2",
        "protocol.api",
        "protocol.frames",
        "protocol.reader",
        "protocol.handshake",
        "protocol.delta",
        "protocol.json",
        "protocol.protobuf",
        "protocol.msgpack",
        "protocol.pushes",
        "protocol.encoding",
        "protocol.emulation",
        "protocol.streaming",
    ],
    "CLIENT": [
        "client.errors",
        "client.address",
        "client.backoff",
        "client.timers",
        "client.codec",
        "client.values",
        "client.quoted",
        "client.effects",
        "client.calls",
        "client.lease",
        "client.subscription",
        "client.server_side",
        "client.state",
        "client.machine",
        "client.handlers",
        "client.driver",
        "client.client",
    ],
    "CORE": [
        "core.hooks",
        "core.tokens",
        "core.stream",
        "core.window",
        "core.feed",
        "core.rates",
        "core.rules",
        "core.access",
        "core.filter",
        "core.deltas",
        "core.subscription",
        "core.reconnect",
        "core.effects",
        "core.outbox",
        "core.load",
        "core.registry",
        "core.state",
        "core.subscribing",
        "core.resuming",
        "core.connecting",
        "core.calls",
        "core.session",
    ],
    "BROKER": [
        "broker.base",
        "broker.memory",
        "broker.breaker",
        "broker.redis.names",
        "broker.redis.envelope",
        "broker.redis.scripts",
        "broker.redis.link",
        "broker.redis.keeper",
        "broker.redis.publisher",
        "broker.redis.lines",
        "broker.redis.listener",
        "broker.redis.reads",
        "broker.redis.topology",
        "broker.redis.positions",
        "broker.redis.shard",
        "broker.redis.router",
        "broker.redis.broker",
    ],
    "RUNTIME": [
        "node.transport",
        "node.keys",
        "node.auth",
        "node.asking",
        "node.counting",
        "node.wheel",
        "node.lingering",
        "node.outboxes",
        "node.connection",
        "node.fanout",
        "node.load",
        "node.admission",
        "node.door",
        "node.streams",
        "node.catching_up",
        "node.peers",
        "node.node",
        "node.drain",
        "node.local",
        "node.control",
    ],
    "EDGE": [
        "endpoints.handshake",
        "endpoints.body",
        "endpoints.asgi",
        "endpoints.websocket",
        "endpoints.streams",
        "endpoints.emulation",
        "endpoints.api",
        "endpoints.health",
        "endpoints.demo",
        "publisher",
        "roll",
        "listen",
        "app",
        "attached",
        "websocket",
        "websocket_protocol",
        "http_protocol",
        "stream_protocol",
        "workers",
        "server",
        "cli",
    ],
}
"""Rooms by floor, from the ground up; within a floor each may import those before it."""

ENTRANCES = ["", "__main__"]
"""The package itself and its command: they import what they offer."""

DRIVERS = ["client.handlers", "client.driver", "client.client"]
"""The rooms of the client that know an event loop: load tests drive the others by another."""

HEIGHT = {room: index for index, room in enumerate(room for rooms in FLOORS.values() for room in rooms)}
PURE = [room for floor in ("PROTOCOL", "CLIENT", "CORE") for room in FLOORS[floor] if room not in DRIVERS]
IMPURE = {
    "aiohttp",
    "anyio",
    "asyncio",
    "httpx",
    "io",
    "os",
    "random",
    "redis",
    "requests",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "starlette",
    "structlog",
    "subprocess",
    "threading",
    "time",
    "uvicorn",
    "uvloop",
}


def rooms() -> list[str]:
    """Every module of the package, but for the empty fronts of its folders."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if path.name != "__init__.py" or not name:
            names.append(name)
    return names


def path_of(room: str) -> Path:
    return PACKAGE / (room.replace(".", "/") + ".py" if room else "__init__.py")


def imports(source: str) -> Iterator[str]:
    """The full name of each module, or member of one, that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str | None:
    """The room of ours that an imported name is or is in."""
    parts = name.split(".")
    if parts[0] != "hub":
        return None
    for end in range(len(parts), 1, -1):
        room = ".".join(parts[1:end])
        if room in HEIGHT:
            return room
    return ""


def faults_in(room: str, source: str) -> list[str]:
    """The imports of a room that the house does not allow."""
    faults = []
    for name in imports(source):
        imported = room_of(name)
        if imported == "":
            faults.append(f"{room} imports {name}, which is no room")
        elif imported is not None and HEIGHT[imported] >= HEIGHT[room]:
            faults.append(f"{room} imports {imported}, which stands above it")
        elif room in PURE and name.split(".")[0] in IMPURE:
            faults.append(f"{room} is pure and imports {name}")
    return faults


def test_every_room_has_its_floor() -> None:
    assert sorted(room for room in rooms() if room not in ENTRANCES) == sorted(HEIGHT)


@pytest.mark.parametrize("room", HEIGHT)
def test_a_room_imports_only_what_is_below(room: str) -> None:
    assert faults_in(room, path_of(room).read_text()) == []


@pytest.mark.parametrize(
    "room", [room for room in HEIGHT if not room.startswith(("client.", "cli", "listen"))]
)
def test_the_server_knows_nothing_of_its_client(room: str) -> None:
    assert not any(name.startswith("hub.client") for name in imports(path_of(room).read_text()))


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core.session", "import asyncio"),
        ("core.session", "def f():\n    from time import monotonic"),
        ("core.rules", "from hub.core import session"),
        ("client.machine", "import random"),
        ("client.client", "from hub.core.session import Session"),
        ("core.rules", "from hub.node.node import Node"),
        ("protocol.json", "if TYPE_CHECKING:\n    from hub.core.rules import Rules"),
        ("node.node", "from hub import Hub"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(room: str, source: str) -> None:
    assert len(faults_in(room, source)) == 1
