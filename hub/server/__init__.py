"""The server under a hub: `run` serves an app that a hub was installed in.

This package knows uvicorn; no other package of the hub does. An app that another ASGI server serves needs
nothing of it.
"""

from hub.errors import StartupError

try:
    import resource as _resource  # noqa: F401 - only to know whether this is a Unix
except ImportError:
    raise StartupError(
        "the hub's server runs on Linux, macOS and other Unix systems: on Windows, run it in WSL or in a"
        " container (hub.client and Publisher run on every system)"
    ) from None

from hub.server.run import run, serve

__all__ = ["run", "serve"]
