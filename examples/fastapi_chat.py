"""A chat inside a FastAPI app. Run `python examples/fastapi_chat.py`, and open http://127.0.0.1:8000/ twice.

Whoever connects says a name and has it: a real app looks the user up in `who`, by a cookie or a token.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, StringConstraints

from hub import ConnectEvent, ConnectReply, Error, Hub, Refusal, RequestError
from hub.config import load

NAME_MAX, TEXT_MAX = 30, 500

ROOM = {
    "presence": True,
    "join_leave": True,
    "history_size": 100,
    "history_ttl_s": 3600,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}

app = FastAPI(title="Chat")
hub = Hub(load(overrides={"channels": {"room": ROOM}}))  # the rest from HUB_CONFIG and HUB_…
hub.install(app, "/live")


@hub.on_connect
async def who(event: ConnectEvent) -> ConnectReply | Refusal:
    """Let in who says a name."""
    name = event.data.get("name") if isinstance(event.data, dict) else None
    if not isinstance(name, str) or not 0 < len(name.strip()) <= NAME_MAX:
        return Error(1000, f"connect with data such as {{'name': 'Ann'}}, of at most {NAME_MAX} characters")
    return ConnectReply(user=name.strip())


class Message(BaseModel):
    """What a client, or the app itself, says in a room."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_MAX)]


@hub.on_publish("room:{room}")
async def decent(message: Message) -> None:
    """Refuse what is no message. Who may write where is left to the room's options."""


@app.post("/rooms/{room}/announcements")
async def announce(room: str, message: Message) -> dict[str, int]:
    """Say something to everyone in a room."""
    try:
        position = await hub.publish(f"room:{room}", message.model_dump())
    except RequestError as exc:
        raise HTTPException(400, exc.message) from None
    return {"offset": position.offset}


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """A page of the least size that chats."""
    return PAGE


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chat</title>
<h1>Lobby</h1>
<ol id="messages" aria-live="polite"></ol>
<form id="form">
  <input id="text" aria-label="Message" maxlength="500" required autofocus>
  <button>Send</button>
</form>
<script type="module">
  import { Hub } from "/live/static/hub.js";
  const name = prompt("Your name?")?.trim() || "somebody";
  const hub = new Hub("/live", { data: { name } });
  const room = hub.subscribe("room:lobby", { recoverable: true });
  const show = ({ data, info }) => {
    const item = document.createElement("li");
    item.textContent = `${info?.user ?? "The app"}: ${data.text}`;
    document.getElementById("messages").append(item);
  };
  room.on("publication", show);
  document.getElementById("form").onsubmit = async (event) => {
    event.preventDefault();
    const field = document.getElementById("text");
    await room.publish({ text: field.value });
    field.value = "";
  };
  hub.connect();
</script>
</html>
"""


if __name__ == "__main__":
    from hub.server import run

    run(app, hub.settings)
