"""The server under a hub: `run` serves an app that a hub was installed in.

This package knows uvicorn; no other package of the hub does. An app that another ASGI server serves needs
nothing of it.
"""

import importlib.metadata

from hub.errors import StartupError

try:
    import resource as _resource  # noqa: F401 - only to know whether this is a Unix
except ImportError:
    raise StartupError(
        "the hub's server runs on Linux, macOS and other Unix systems: on Windows, run it in WSL or in a"
        " container (hub.client and Publisher run on every system)"
    ) from None

UVICORN = "0.54"
"""The version of uvicorn, without its last part, whose internals `_uvicorn` uses, as in pyproject.toml."""


def _check_libraries() -> None:
    """Check that the extra is installed.

    Raises:
        StartupError: a library is missing, or is of another version.
    """
    remedy = "pip install 'hub-realtime[server]'"
    for name in ("uvicorn", "httptools", "uvloop"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise StartupError(f"the hub's server needs {name}: {remedy}") from None
        if name == "uvicorn" and version.rpartition(".")[0] != UVICORN:
            raise StartupError(
                f"the hub's server needs uvicorn {UVICORN}, and {version} is installed: {remedy}"
            )


_check_libraries()

from hub.server.run import run, serve  # noqa: E402

__all__ = ["run", "serve"]
