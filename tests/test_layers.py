"""The layers of the package: a package imports only from those below it, and modules form no cycle."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "hub"

LAYERS = [
    *("base", "protocol", "client", "core", "broker", "handlers", "node", "endpoints", "app", "server"),
    *("load", "cli", "testing"),
]
"""From the bottom up. `base` is what lies at the top of the package: settings, errors, telemetry."""

BASE = {"checks", "config", "errors", "process", "redis_url", "settings", "telemetry", "version"}
ENTRANCES = {"", "__main__"}
"""The package itself and its command, which import what they offer."""

CLIENT_USERS = {"cli", "load", "testing"}
"""The only layers above the client that may import it: a server does not depend on a client of its own."""

EXTRAS = {
    "httptools": {"server"},
    "uvicorn": {"server"},
    "uvloop": {"server"},
    "typer": {"cli"},
    "rich": {"cli", "load"},
    "gevent": {"load"},
    "locust": {"load"},
    "psutil": {"load"},
}
"""Libraries of the extras, and the layers that may import them. Other layers work without an extra."""

UVICORN_USERS = {"server._uvicorn"}
"""The only module that may import uvicorn: the adapter that names what the hub uses of it."""

PURE = {"protocol", "core"}
"""Packages whose modules do no I/O and read no clock: time and messages are arguments."""

CLIENT_DRIVERS = {
    *{"client.handlers", "client.driver", "client.client", "client.publisher", "client.async_publisher"},
    "client.posting",
}
"""The modules of the client that use an event loop or the network. The others are pure."""

IMPURE = {
    *{"aiohttp", "anyio", "asyncio", "httpx", "io", "os", "random", "redis", "requests", "secrets", "select"},
    *{"selectors", "signal", "socket", "ssl", "starlette", "structlog", "subprocess", "threading", "time"},
    *{"uvicorn", "uvloop"},
}

WIRE_MODULES = {"protocol.messages", "protocol.api", "protocol.codes", "protocol.values", "client.values"}
"""Modules whose classes have the names that the protocol, the server API or the public client gives them."""

SHARED_NAMES = {"Subscription"}
"""Names that a class of the public client shares with a class of the server, which never meets it."""


def modules() -> Iterator[str]:
    """Every module of the package, as a dotted name below `hub`."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix("__init__").rstrip(".")


MODULES = list(modules())


def path_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def layer_of(module: str) -> str:
    top = module.partition(".")[0]
    return "base" if top in BASE else top


def imports(source: str) -> Iterator[str]:
    """The full name of each module, or member of a module, that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The module of this package that an imported name is, or is in; None for other packages."""
    parts = name.split(".")
    if parts[0] != "hub":
        return None
    return next(module for end in range(len(parts), 0, -1) if (module := ".".join(parts[1:end])) in MODULES)


def faults_in(module: str, source: str) -> list[str]:
    """The imports of a module that its layer does not allow."""
    layer = layer_of(module)
    is_pure = layer in PURE or (layer == "client" and module not in CLIENT_DRIVERS)
    faults = []
    for name in imports(source):
        imported = module_of(name)
        top = name.partition(".")[0]
        if imported is None:
            if is_pure and top in IMPURE:
                faults.append(f"{module} must be pure and imports {name}")
            if layer not in EXTRAS.get(top, {layer}):
                faults.append(f"{module} imports {name}, which only an extra installs")
            elif top == "uvicorn" and module not in UVICORN_USERS:
                faults.append(f"{module} imports uvicorn; only hub.server._uvicorn may")
        elif imported in ENTRANCES:
            faults.append(f"{module} imports {name} through the front of the package")
        elif LAYERS.index(layer_of(imported)) > LAYERS.index(layer):
            faults.append(f"{module} imports {imported}, of a higher layer")
        elif layer_of(imported) == "client" and layer not in {"client", *CLIENT_USERS}:
            faults.append(f"{module} imports {imported}; the server side does not use the client")
    return faults


def test_every_module_has_a_layer() -> None:
    assert {layer_of(module) for module in MODULES if module not in ENTRANCES} == set(LAYERS)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ENTRANCES])
def test_a_module_imports_only_from_its_layer_and_below(module: str) -> None:
    assert faults_in(module, path_of(module).read_text()) == []


@pytest.mark.parametrize("module", sorted(ENTRANCES))
def test_the_package_is_imported_without_an_extra(module: str) -> None:
    tops = {name.partition(".")[0] for name in imports(path_of(module).read_text())}
    assert tops.isdisjoint(EXTRAS)


def test_no_modules_import_each_other() -> None:
    graph = {
        module: {found for name in imports(path_of(module).read_text()) if (found := module_of(name))}
        for module in MODULES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle of imports: {' -> '.join((*path, module))}"
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.session.session", "import asyncio"),
        ("core.session.session", "def f():\n    from time import monotonic"),
        ("client.machine", "import random"),
        ("client.client", "from hub.core.session.session import Session"),
        ("core.rules", "from hub.node.node import Node"),
        ("protocol.json", "if TYPE_CHECKING:\n    from hub.core.rules import Rules"),
        ("node.node", "from hub import Hub"),
        ("node.node", "from hub.client.client import Client"),
        ("node.node", "import uvicorn"),
        ("server.http", "import uvicorn"),
        ("server.run", "from hub.testing.hub import TestHub"),
        ("app", "from hub.testing import TestHub"),
        ("endpoints.health", "import httptools"),
        ("telemetry", "from rich.console import Console"),
        ("app", "def f():\n    import uvloop"),
        ("client.client", "import typer"),
        ("cli.main", "from locust import User"),
        ("server.run", "import gevent"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(module: str, source: str) -> None:
    assert len(faults_in(module, source)) == 1


def class_definitions() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class of the package, with its module."""
    for module in MODULES:
        for node in ast.walk(ast.parse(path_of(module).read_text())):
            if isinstance(node, ast.ClassDef):
                yield module, node


def name_clashes(definitions: Iterator[tuple[str, ast.ClassDef]]) -> dict[str, list[str]]:
    """The modules of each class name that several classes share, except for names of the protocol."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, definition in definitions:
        places[definition.name].append(module)
    return {
        name: found
        for name, found in places.items()
        if len(found) > 1 and name not in SHARED_NAMES and not WIRE_MODULES.issuperset(found)
    }


def is_protocol(definition: ast.ClassDef) -> bool:
    """Whether a class is a `typing.Protocol`, which is imported by name; `asyncio.Protocol` is not."""
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in definition.bases)


def base_names(definition: ast.ClassDef) -> set[str]:
    bases = (base.value if isinstance(base, ast.Subscript) else base for base in definition.bases)
    return {ast.unparse(base).rpartition(".")[2] for base in bases}


def members_of(definition: ast.ClassDef) -> set[str]:
    """The names of the methods and attributes that a class defines, in its body or on `self`."""
    names: set[str] = set()
    for node in definition.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
    for inner in ast.walk(definition):
        match inner:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def lone_protocols(
    definitions: Iterator[tuple[str, ast.ClassDef]],
) -> dict[str, list[str]]:
    """Each Protocol that fewer than two classes implement, by the names of its members, with those classes.

    A class that inherits an implementation is none of its own.
    """
    classes = {definition.name: definition for _, definition in definitions}

    def members(name: str) -> set[str]:
        """The members of a class and its base classes."""
        definition = classes.get(name)
        if definition is None:
            return set()
        return members_of(definition).union(*(members(base) for base in base_names(definition)))

    protocols = {name for name, definition in classes.items() if is_protocol(definition)}
    implementations = {}
    for protocol in protocols:
        found = {name for name in classes if name not in protocols and members(name) >= members(protocol)}
        implementations[protocol] = sorted(name for name in found if not found & base_names(classes[name]))
    return {protocol: found for protocol, found in implementations.items() if len(found) < 2}


def test_no_two_classes_share_a_name() -> None:
    assert name_clashes(class_definitions()) == {}


def test_every_protocol_has_two_implementations() -> None:
    assert lone_protocols(class_definitions()) == {}


def definitions_in(module: str, source: str) -> list[tuple[str, ast.ClassDef]]:
    return [(module, node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def test_a_shared_name_is_found() -> None:
    server = definitions_in("core.effects", "class Close: ...\nclass Publication: ...")
    client = definitions_in("client.effects", "class Close: ...")
    wire = definitions_in("protocol.messages", "class Publication: ...")
    values = definitions_in("client.values", "class Publication: ...")
    assert name_clashes(iter(wire + values)) == {}
    assert name_clashes(iter(server + client)) == {"Close": ["core.effects", "client.effects"]}
    assert name_clashes(iter(wire + server)) == {"Publication": ["protocol.messages", "core.effects"]}


def test_a_protocol_with_a_single_implementation_is_found() -> None:
    protocol = "class Timed(Protocol):\n    deadline: float\n    def tick(self): ...\n"
    one = "class One:\n    def __init__(self):\n        self.deadline = 1.0\n    def tick(self): ...\n"
    derived = "class Derived(One): ...\n"
    other = one.replace("One", "Other")
    found = lone_protocols
    assert found(iter(definitions_in("node.a", protocol + one + derived))) == {"Timed": ["One"]}
    assert found(iter(definitions_in("node.a", protocol + one + other))) == {}
