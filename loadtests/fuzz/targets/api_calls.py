"""Calls of the server API: the answer beside what Python's `json` makes of the body."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

from loadtests.fuzz.corpus import CHANNEL
from loadtests.fuzz.mutate import json_text, mutate, mutate_value
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.targets.json_commands import WORDS, read

CALLS: tuple[tuple[str, Any], ...] = (
    ("publish", {"channel": CHANNEL, "data": {"a": [1, "é"]}, "tags": {"k": "v"}, "idempotency_key": "i"}),
    ("publish", {"channel": CHANNEL, "b64data": "AAEC", "skip_history": True, "delta": True}),
    ("broadcast", {"channels": [CHANNEL, "fuzz:other"], "data": "x"}),
    ("subscribe", {"user": "fuzz", "channel": CHANNEL, "info": 1, "override": {"presence": {"value": True}}}),
    ("subscribe", {"user": "fuzz", "channel": CHANNEL, "recover_since": {"offset": 1, "epoch": "e"}}),
    ("unsubscribe", {"user": "fuzz", "channel": CHANNEL, "client": "c", "session": "s"}),
    ("disconnect", {"user": "victim", "whitelist": ["c"], "disconnect": {"code": 3503, "reason": "r"}}),
    ("refresh", {"user": "victim", "expire_at": 4000000000, "expired": False}),
    ("presence", {"channel": CHANNEL}),
    ("presence_stats", {"channel": CHANNEL}),
    ("history", {"channel": CHANNEL, "limit": -1, "since": {"offset": 1, "epoch": "e"}, "reverse": True}),
    ("history_remove", {"channel": "fuzz:other"}),
    ("channels", {"pattern": "fuzz:*"}),
    ("channels", {"pattern": "*a*a*a*a*a*a*a*a*a*a*a*b"}),
    ("info", {}),
    ("rpc", {"method": "m", "data": [1]}),
    ("batch", {"commands": [{"publish": {"channel": CHANNEL, "data": 1}}, {"info": {}}], "parallel": True}),
    ("batch", {"commands": [{"history": {"channel": CHANNEL}}, {"nothing": {}}, {}]}),
    ("nothing", {}),
)
METHODS = frozenset(method for method, _ in CALLS) - {"nothing"}


class APICalls(LiveTarget):
    name = "api"

    def draw(self, chance: random.Random) -> bytes:
        """Return the name of a method, and a body."""
        method, request = chance.choice(CALLS)
        for _ in range(chance.choice((0, 1, 2))):
            request = mutate_value(request, chance)
        body = json_text(request, chance)
        return method.encode() + b"\n" + (mutate(body, chance, WORDS) if chance.random() < 0.4 else body)

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        name, _, body = data.partition(b"\n")
        method = name.decode()
        answer = await stage.api(method, body)
        _, wrong = read(body)
        is_object = wrong in (None, "a field of another type", "an integer written as a float")
        expected = 404 if method not in METHODS else 200 if is_object else 400
        if answer.status != expected:
            yield f"the hub answers {answer.status}, not {expected}: {wrong or 'a sound body'}"
            return
        try:
            reply = json.loads(answer.body)
        except ValueError:
            yield "an answer that is no JSON"
            return
        keys = set(reply) & {"result", "error", "replies"}
        if len(keys) != 1 or len(reply) != 1:
            yield "an answer of another form"
        elif reply.get("error", {}).get("code") == 100:
            yield f"an internal error: {method} {reply['error'].get('message', '')[:40]}"
