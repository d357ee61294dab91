"""The app that is fuzzed: a hub, a route that echoes requests, and a route that counts what is held.

`python -m loadtests.fuzz.app serve --port P --config FILE --redis URL` runs it.
"""

from __future__ import annotations

import gc
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub import Hub, RPCEvent, RPCReply
from hub.server import run
from loadtests.chaos.app import LEVELS, levels, settings_of

ECHO = "/echo"


class Echo:
    """Answers with what the server made of a request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await Request(scope, receive, send).body()
        except ClientDisconnect:
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        fields = {
            "method": scope["method"],
            "version": scope["http_version"],
            "target": target.decode("latin-1"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "body": body.hex(),
        }
        await JSONResponse(fields)(scope, receive, send)


async def collected_levels(request: Request) -> Response:
    """Count what is held, after what nobody refers to is gone."""
    gc.unfreeze()  # the hub's collector freezes what it has visited
    gc.collect()
    return await levels(request)


def main() -> None:
    """Run it."""
    settings = settings_of("loadtests.fuzz.app")
    hub = Hub(settings)

    @hub.on_rpc
    async def rpc(event: RPCEvent) -> RPCReply:
        return RPCReply(event.data)

    app = Starlette(routes=[Route(LEVELS, collected_levels), Route(ECHO, Echo())])
    hub.install(app, "")
    run(app, settings)


if __name__ == "__main__":
    main()
