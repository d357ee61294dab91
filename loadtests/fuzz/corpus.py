"""Valid commands of the client protocol, and words that mutated messages are made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from loadtests.fuzz.mutate import mutate_value

CHANNEL: Final = "fuzz:victim"
POISONED: Final = "fuzz:poisoned"
"""The channel that others than the hub publish to in Redis."""

COMMANDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {
        "id": 1,
        "connect": {"token": "t", "data": {"a": [1, "b", None, True, 0.5]}, "name": "js", "version": "1"},
    },
    {"id": 1, "connect": {"subs": {CHANNEL: {"recover": True, "epoch": "e", "offset": 7, "flag": 2}}}},
    {"id": 1, "connect": {"headers": {"x": "y"}, "flag": 1}},
    {"id": 2, "subscribe": {"channel": CHANNEL, "recoverable": True, "positioned": True, "join_leave": True}},
    {"id": 2, "subscribe": {"channel": CHANNEL, "delta": "fossil", "token": "t", "data": [1.5, "é"]}},
    {
        "id": 3,
        "subscribe": {
            "channel": CHANNEL,
            "tf": {
                "op": "and",
                "nodes": [{"key": "k", "cmp": "eq", "val": "v"}, {"cmp": "in", "vals": ["a"]}],
            },
        },
    },
    {"id": 4, "unsubscribe": {"channel": CHANNEL}},
    {"id": 5, "publish": {"channel": CHANNEL, "data": {"text": "hello \U0001f600", "n": 12}}},
    {"id": 300, "publish": {"channel": CHANNEL, "data": "text"}},
    {"id": 6, "presence": {"channel": CHANNEL}},
    {"id": 7, "presence_stats": {"channel": CHANNEL}},
    {
        "id": 8,
        "history": {"channel": CHANNEL, "limit": -1, "since": {"offset": 3, "epoch": "e"}, "reverse": True},
    },
    {"id": 9, "ping": {}},
    {"send": {"data": {"x": 1}}},
    {"id": 4294967295, "rpc": {"method": "m", "data": {"deep": [[[{"a": {"b": 0}}]]]}}},
    {"id": 10, "refresh": {"token": "t"}},
    {"id": 11, "sub_refresh": {"channel": CHANNEL, "token": "t"}},
)

METHODS: Final = tuple(sorted({method for command in COMMANDS for method in command if method != "id"}))


def draw_command(chance: random.Random, odd: Callable[[random.Random], Any]) -> dict[str, Any]:
    """Return a command: a third as they should be, a third changed in one place, a third in several.

    Args:
        chance: decides.
        odd: makes what stands in a changed place.
    """
    command: dict[str, Any] = chance.choice(COMMANDS)
    for _ in range(chance.choice((0, 1, 3))):
        changed = mutate_value(command, chance, odd)
        command = changed if isinstance(changed, dict) else {"id": 1, chance.choice(METHODS): changed}
    if chance.random() < 0.05:
        command = {**command, **chance.choice(COMMANDS)}
    return command
