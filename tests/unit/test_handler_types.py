"""What mypy, and so an editor, says of handlers, decorators and dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MODULE = """
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from pydantic import BaseModel

from hub import (
    ConnectEvent, ConnectReply, Depends, Hub, HubRouter, PublishedEvent, PublishEvent, PublishReply, Refusal,
    RPCEvent, Settings, SubscribeEvent, SubscribeReply,
)

class Cart(BaseModel):
    items: int

class Chat(msgspec.Struct):
    text: str

hub = Hub(Settings(dev=True))
router = HubRouter(prefix="orders")

async def user(event: ConnectEvent) -> str:
    return event.user

async def session() -> AsyncIterator[Cart]:
    yield Cart(items=1)

@router.on_subscribe(":{order_id}")
async def may(event: SubscribeEvent[Cart], order_id: int) -> SubscribeReply | None:
    # int
    reveal_type(event.state.items)
    # str
    reveal_type(event.channel)
    return None

@hub.on_publish("chat:{room}")
def said(event: PublishEvent, message: Chat, cart: Cart = Depends(session)) -> PublishReply | Refusal:
    # dict[str, Any]
    reveal_type(event.state)
    return PublishReply(data=message)

@hub.rpc("cancel")
async def cancel(chat: Chat, who: Annotated[str, Depends(user)]) -> Cart:
    return Cart(items=1)

@hub.after_publish("chat:{room}")
async def keep(event: PublishedEvent) -> None:
    # int
    reveal_type(event.offset)

@hub.on_connect
async def who(event: ConnectEvent) -> ConnectReply | None:
    return None

hub.include_router(router)
# Cart
reveal_type(Depends(session))
# def (event: SubscribeEvent[Cart], order_id: int) -> Coroutine[Any, Any, SubscribeReply | None]
reveal_type(may)
# def (event: PublishEvent[dict[str, Any]], message: Chat, cart: Cart =) -> PublishReply | Error | Disconnect
reveal_type(said)
# def (chat: Chat, who: str) -> Coroutine[Any, Any, Cart]
reveal_type(cancel)

@hub.on_subscribe("a:{b}")
async def yes(event: SubscribeEvent) -> bool:  # error: [type-var]
    return True

@hub.on_publish
def wrong(event: PublishEvent) -> SubscribeReply:  # error: [type-var]
    return SubscribeReply()

@hub.rpc("m")
async def mixed(cart: str = Depends(session)) -> None:  # error: [assignment]
    ...
"""


def test_an_editor_infers_the_types_of_handlers(tmp_path: Path) -> None:
    module = tmp_path / "handlers.py"
    module.write_text(MODULE)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(module)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = MODULE.splitlines()
    wanted = {
        number + 1: lines[number - 1].strip().removeprefix("# ")
        for number, text in enumerate(lines)
        if "reveal_type(" in text
    }
    revealed: dict[int, str] = {}
    errors: dict[int, str] = {}
    for line in said.stdout.splitlines():
        if found := re.search(r'handlers\.py:(\d+): note: Revealed type is "(.*)"', line):
            revealed[int(found[1])] = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", found[2]).replace("builtins.", "")
        elif found := re.search(r"handlers\.py:(\d+): error: .*\[([a-z-]+)\]", line):
            errors[int(found[1])] = found[2]
        else:
            assert "note:" in line, said.stdout + said.stderr
    assert revealed == wanted
    expected = [text.partition("# error: ")[2] for text in lines if "# error: " in text]
    assert [f"[{kind}]" for kind in errors.values()] == expected, said.stdout
