"""`/api/…`: the server API over HTTP, its OpenAPI document, and a page to try it."""

from __future__ import annotations

import asyncio
import difflib
import hmac
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from hub.endpoints.body import BodyError, read_body
from hub.endpoints.handshake import RequestChecks
from hub.node.api import API, decoded
from hub.node.node import Node
from hub.protocol import api
from hub.protocol.codes import Error, Errors
from hub.protocol.json import MalformedError, check
from hub.protocol.payloads import in_json

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
BODY_TIMEOUT_S: Final = 10.0
BATCH_COMMANDS_MAX: Final = 10_000
BATCH_PARALLEL_MAX: Final = 16
"""Commands of a parallel batch that are under way at a time."""

_KEY_HELP: Final = (
    "X-API-Key is missing or wrong: send the key of api.key in it, or in Authorization: apikey KEY"
)

_EXAMPLE: Final = 'an object, such as {"channel": "news", "data": 1}'

_STATIC: Final = Path(__file__).parent.parent / "static"
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(node: Node, checks: RequestChecks) -> list[Route]:
    """The server API, on a node."""
    document = openapi(node.version)

    async def describe(request: Request) -> Response:
        # Its paths begin where the hub is mounted.
        servers = [{"url": request.scope.get("root_path") or "/"}]
        return _json({**document, "servers": servers})

    async def page(request: Request) -> Response:
        return FileResponse(_STATIC / "api.html", headers=_PAGE_HEADERS)

    async def script(request: Request) -> Response:
        return FileResponse(_STATIC / "api.js", headers=_PAGE_HEADERS)

    async def call(request: Request) -> Response:
        return await _call(node, checks, request)

    return [
        Route("/api/openapi.json", describe, methods=["GET"]),
        Route("/api/docs", page, methods=["GET"]),
        Route("/api/docs.js", script, methods=["GET"]),
        Route("/api/{method}", call, methods=["POST"]),
        Route("/api/{method}", _wrong_method()),  # a response is an ASGI app
    ]


async def _call(node: Node, checks: RequestChecks, request: Request) -> Response:
    method = request.path_params["method"]
    if refusal := checks.refuse_host(request):
        return refusal
    if wrong := _key_refusal(node, request):
        checks.refuse_key(method, wrong)
        return _problem(HTTPStatus.UNAUTHORIZED, _KEY_HELP)
    if method not in api.METHODS and method != "batch":
        return _problem(HTTPStatus.NOT_FOUND, _no_method(method))
    try:
        body = await read_body(request, BODY_BYTES_MAX, BODY_TIMEOUT_S)
    except BodyError as exc:
        return _problem(exc.status, exc.reason)
    try:
        is_object = isinstance(check(body), dict)
    except MalformedError as exc:
        return _problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {exc}; send {_EXAMPLE}")
    if not is_object:
        return _problem(HTTPStatus.BAD_REQUEST, f"the body is not a JSON object: send {_EXAMPLE}")
    node.metrics.api_requests.labels(method).inc()
    if method == "batch":
        return await _batch(node.api, body)
    return _json(_reply(await node.api.call(method, body)))


def _key_refusal(node: Node, request: Request) -> str:
    """Why the request's API key is refused, in a few fixed words; empty if it is the right one."""
    key = node.settings.api.key.get_secret_value()
    if not key:
        return "api.key is not set: set it to open the server API"
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    given = [request.headers.get("x-api-key", ""), credentials.strip() if scheme.lower() == "apikey" else ""]
    if any(hmac.compare_digest(each.encode(), key.encode()) for each in given):
        return ""
    return "the API key is wrong" if any(given) else "there is no API key: send X-API-Key"


async def _batch(control: API, body: bytes) -> Response:
    try:
        batch = decoded(body, api.BatchRequest)
    except msgspec.ValidationError as exc:
        return _json(_reply(Error(Errors.BAD_REQUEST.code, f"bad request: {exc}")))
    if len(batch.commands) > BATCH_COMMANDS_MAX:
        return _json(_reply(Errors.LIMIT_EXCEEDED))
    replies: list[Any] = [None] * len(batch.commands)

    async def run(index: int, command: dict[str, msgspec.Raw]) -> None:
        if len(command) != 1 or next(iter(command)) not in api.METHODS:
            replies[index] = _reply(Errors.METHOD_NOT_FOUND)
            return
        [(method, request)] = command.items()
        outcome = await control.call(method, request)
        replies[index] = _reply(outcome) if isinstance(outcome, Error) else {method: outcome}

    commands = iter(enumerate(batch.commands))

    async def work() -> None:
        for index, command in commands:
            await run(index, command)
            await asyncio.sleep(0)  # so that clients have their turn between the commands

    await asyncio.gather(*(work() for _ in range(BATCH_PARALLEL_MAX if batch.parallel else 1)))
    return _json({"replies": replies})


def _reply(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, Error):
        return {"error": {"code": outcome.code, "message": outcome.in_full().message}}
    return {"result": outcome}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=in_json), media_type="application/json")


def _wrong_method() -> Response:
    """Answer a request with another HTTP method than POST."""
    answer = _problem(HTTPStatus.METHOD_NOT_ALLOWED, "the server API takes POST, with JSON in the body")
    answer.headers["Allow"] = "POST"
    return answer


def _no_method(name: str) -> str:
    names = [*api.METHODS, "batch"]
    near = difflib.get_close_matches(name, names, n=1)
    return f"there is no method {name[:64]!r}" + (
        f"; did you mean {near[0]}?" if near else f": the methods are {', '.join(names)}"
    )


def _problem(status: HTTPStatus, message: str) -> Response:
    body = {"error": {"code": int(status), "message": message}}
    return Response(msgspec.json.encode(body), int(status), media_type="application/json")


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API, from the types that it is decoded with."""
    methods = {**api.METHODS, "batch": (api.BatchRequest, api.EmptyResult)}
    types = [kind for pair in methods.values() for kind in pair]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    error = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
        "required": ["code", "message"],
    }
    paths = {}
    for index, (method, (request, result)) in enumerate(methods.items()):
        outcome = {"type": "object", "properties": {"result": schemas[2 * index + 1], "error": error}}
        if method == "batch":
            outcome = {
                "type": "object",
                "properties": {"replies": {"type": "array", "items": {"type": "object"}}},
            }
        lines = (request.__doc__ or "").strip().splitlines()
        paths[f"/api/{method}"] = {
            "post": {
                "operationId": method,
                "summary": lines[0],
                "description": "\n".join(lines[1:]).strip() or lines[0],
                "security": [{"key": []}, {"authorization": []}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schemas[2 * index]}},
                },
                "responses": {
                    "200": {
                        "description": (result.__doc__ or "").strip()
                        if method != "batch"
                        else "The replies.",
                        "content": {"application/json": {"schema": outcome}},
                    },
                    "400": {"description": "The body is not a JSON object."},
                    "401": {"description": "X-API-Key is missing or wrong."},
                    "413": {"description": f"The body is over {BODY_BYTES_MAX} bytes."},
                },
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hub server API",
            "version": version,
            "description": "What a backend asks of a hub. An error comes in the body, with HTTP status 200.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "authorization": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "The word `apikey`, a space, and the key.",
                },
            },
        },
    }
