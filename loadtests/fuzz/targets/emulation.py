"""Requests to `/emulation`: the status beside what Python's `json` and google.protobuf make of the body."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError
from support.rawstream import StreamPeer

from hub.protocol import client_pb2
from loadtests.fuzz.corpus import draw_command
from loadtests.fuzz.mutate import json_text, mutate, mutate_value, odd_value
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.targets.json_commands import WORDS
from loadtests.fuzz.wire import ask

SESSION, NODE = "5e5510" * 5 + "feed"[:2], "40de" * 4
"""Stand for the session and the node of the stream, which each run has others of; of the same lengths."""


class Emulation(LiveTarget):
    name = "emulation"

    def draw(self, chance: random.Random) -> bytes:
        """Return a byte that tells JSON from Protobuf, and a body."""
        commands = json_text(draw_command(chance, odd_value), chance).decode(errors="replace")
        request: Any = {"session": SESSION, "node": NODE, "data": commands}
        if chance.random() < 0.5:
            body = client_pb2.EmulationRequest(
                node=NODE, session=SESSION, data=commands.encode()
            ).SerializeToString()
            return b"\x01" + (mutate(body, chance) if chance.random() < 0.7 else body)
        if chance.random() < 0.5:
            request = mutate_value(request, chance)
        body = json_text(request, chance)
        return b"\x00" + (mutate(body, chance, WORDS) if chance.random() < 0.5 else body)

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        binary, body = data[:1] == b"\x01", data[1:]
        kind = "http_stream" if len(body) % 2 else "sse"
        async with await StreamPeer.open(stage.port, kind, {"token": stage.token("fuzz")}) as peer:
            await peer.connected()
            assert (len(peer.session), len(peer.node)) == (len(SESSION), len(NODE))
            body = body.replace(SESSION.encode(), peer.session.encode()).replace(
                NODE.encode(), peer.node.encode()
            )
            media = "application/octet-stream" if binary else "application/json"
            answer = await ask(stage.port, "POST", "/emulation", {"Content-Type": media}, body)
            read = _from_protobuf(body) if binary else _from_json(body)
            if read is None:
                expected = 400
            elif read == (peer.session, peer.node):
                expected = 204
            else:
                expected = 404
            if answer.status != expected:
                text = answer.body[:60].decode("latin-1").strip()
                yield f"the hub answers {answer.status}, not {expected}: {text}"


def _from_json(body: bytes) -> tuple[str, str] | None:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse)
        if not isinstance(value, dict) or not all(
            isinstance(value[key], str) for key in ("session", "node", "data")
        ):
            return None
        "".join(value[key] for key in ("session", "node", "data")).encode()
    except (ValueError, KeyError, RecursionError):
        return None
    return value["session"], value["node"]


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python reads although JSON has no such numbers (RFC 8259 section 6)."""
    raise ValueError(constant)


def _from_protobuf(body: bytes) -> tuple[str, str] | None:
    try:
        message = client_pb2.EmulationRequest.FromString(body)
    except DecodeError:
        return None
    return message.session, message.node
