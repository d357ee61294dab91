"""`/asyncapi.json`: what the app's handlers take and return, as an AsyncAPI 3 document."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.handlers.contract import ChannelContract, Contract, MethodContract, Schema
from hub.handlers.registry import HandlerTable

VERSION: Final = "3.0.0"
"""Version of AsyncAPI (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

_REST: Final = re.compile(r"\{(\w+):path\}")
_NOT_IN_ID: Final = re.compile(r"\W+", re.ASCII)


def routes(handlers: HandlerTable, version: str) -> list[Route]:
    """The document of an app's handlers.

    Args:
        handlers: of the app.
        version: of the hub.
    """

    async def describe(request: Request) -> Response:
        is_secure = request.url.scheme in ("https", "wss")
        server = {
            "host": request.url.netloc,
            "pathname": f"{request.scope.get('root_path', '')}/connection/websocket",
            "protocol": "wss" if is_secure else "ws",
            "description": "The client protocol of Centrifuge, version 2.",
        }
        found = {**document(Contract(handlers), version), "servers": {"hub": server}}
        return Response(msgspec.json.encode(found), media_type="application/json")

    return [Route("/asyncapi.json", describe, methods=["GET"])]


def document(contract: Contract, version: str) -> dict[str, Any]:
    """The AsyncAPI document of a contract, without its servers.

    Args:
        contract: of an app.
        version: of the hub.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for pattern, channel in contract.channels.items():
        _add_channel(channels, operations, pattern, channel)
    for pattern, method in contract.methods.items():
        _add_method(channels, operations, pattern, method)
    return {
        "asyncapi": VERSION,
        "info": {"title": "Channels and methods of the app", "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": contract.schemas},
    }


def _add_channel(
    channels: dict[str, Any], operations: dict[str, Any], pattern: str, contract: ChannelContract
) -> None:
    channel_id = _free(pattern, channels)
    channel, messages = _channel(pattern, contract.parameters, contract.description)
    messages["publication"] = _message("publication", contract.publication)
    channels[channel_id] = channel
    operations[f"{channel_id}_subscribe"] = _operation("send", channel_id, "publication")
    if contract.subscribe_data is not None:
        channel["x-subscribe-data"] = contract.subscribe_data
    if contract.may_publish:
        operations[f"{channel_id}_publish"] = _operation("receive", channel_id, "publication")


def _add_method(
    channels: dict[str, Any], operations: dict[str, Any], pattern: str, contract: MethodContract
) -> None:
    channel_id = _free(f"rpc_{pattern}", channels)
    channel, messages = _channel(pattern, contract.parameters, contract.description)
    messages["request"] = _message("request", contract.request)
    messages["result"] = _message("result", contract.result)
    channels[channel_id] = channel
    operations[channel_id] = {
        **_operation("receive", channel_id, "request"),
        "reply": {
            "channel": {"$ref": f"#/channels/{channel_id}"},
            "messages": [{"$ref": f"#/channels/{channel_id}/messages/result"}],
        },
    }


def _channel(
    pattern: str, parameters: dict[str, Schema], description: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A channel without its messages, and the dict for them."""
    messages: dict[str, Any] = {}
    channel: dict[str, Any] = {"address": _REST.sub(r"{\1}", pattern), "messages": messages}
    if parameters:
        channel["parameters"] = {name: _parameter(schema) for name, schema in parameters.items()}
    if description:
        channel["description"] = description
    return channel, messages


def _parameter(schema: Schema) -> dict[str, Any]:
    """A parameter. AsyncAPI has texts alone, so that another type is in the description."""
    if values := schema.get("enum"):
        return {"enum": [str(value) for value in values]}
    kind = schema.get("format") or schema.get("type")
    return {"description": str(kind)} if kind and kind != "string" else {}


def _message(name: str, schema: Schema | None) -> dict[str, Any]:
    return {"name": name} if schema is None else {"name": name, "payload": schema}


def _operation(action: str, channel_id: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel_id}"},
        "messages": [{"$ref": f"#/channels/{channel_id}/messages/{message}"}],
    }


def _free(pattern: str, taken: dict[str, Any]) -> str:
    """The id of a channel in the document, which is made of letters, digits and `_`."""
    name = _NOT_IN_ID.sub("_", pattern).strip("_") or "channel"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
