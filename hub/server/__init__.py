"""The server under a hub: `run` serves an app that a hub was installed in.

This package knows uvicorn; no other package of the hub does. An app that another ASGI server serves needs
nothing of it.
"""

from hub.server.run import run, serve

__all__ = ["run", "serve"]
