"""The log of an app with a hub in it: the app's own configuration of `logging`, and the hub's lines in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.rawws import HandshakeError, RawWebSocket
from support.server import Process

PROGRAM = """
import json, logging, sys

import uvicorn
from starlette.applications import Starlette

from hub import Hub
from hub.config import load
from hub.server import run

class Handler(logging.StreamHandler):
    def __init__(self):
        super().__init__(sys.stderr)
        self.setFormatter({formatter})

logging.basicConfig(level=logging.INFO, handlers=[Handler()])

app = Starlette()
hub = Hub(load(overrides={{"server": {{"port": int(sys.argv[sys.argv.index("--port") + 1])}}}}))
hub.install(app, "/live")

@hub.on_rpc
def call(event):
    raise ValueError("a fault of the app")

{run}
"""

RUNS = {
    "run": "run(app, hub.settings)",
    "uvicorn": "uvicorn.run(app, port=hub.settings.server.port, log_config=None)",
}

TEXT = "logging.Formatter('%(levelname)s %(name)s | %(message)s')"
JSON = "type('JSON', (logging.Formatter,), {'format': lambda self, record: json.dumps(record.msg)})()"
"""A formatter that writes what was logged as JSON, as structured ones do with dictionaries."""


async def log_of(folder: Path, run: str, formatter: str) -> list[str]:
    """Return the log of a program whose hub refuses a page, has a handler that raises, and ends."""
    file = folder / "program.py"
    file.write_text(PROGRAM.format(run=RUNS[run], formatter=formatter))
    env = {"HUB_CLIENT__ANONYMOUS": "true"}
    async with Process(env=env, program=[str(file)], prefix="/live") as hub:
        evil = {"Origin": "http://evil.example"}
        with pytest.raises(HandshakeError):
            await RawWebSocket.connect(hub.port, "/live/connection/websocket", headers=evil)
        async with await RawWebSocket.connect(hub.port, "/live/connection/websocket") as client:
            client.send_text('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"x"}}')
            assert "connect" in await client.read_text()
            await hub.line("hook.failed")
        await hub.stop()
    return hub.log.splitlines()


@pytest.mark.parametrize("run", RUNS)
async def test_an_event_of_the_hub_is_one_readable_line(tmp_path: Path, run: str) -> None:
    lines = await log_of(tmp_path, run, TEXT)
    [refused] = [line for line in lines if "origin.refused" in line]
    assert refused.startswith("WARNING hub.node | origin.refused: ")
    assert refused.endswith(" [origin=http://evil.example]")
    [failed] = [line for line in lines if "hook.failed" in line]
    assert re.fullmatch(
        r"ERROR hub\.\w+ \| hook\.failed \[hook=rpc function=__main__\.call client=\w+ method=x\]", failed
    )
    traceback = lines[lines.index(failed) + 1 :]
    assert traceback[0] == "Traceback (most recent call last):"
    assert "ValueError: a fault of the app" in traceback
    assert any(line.startswith("INFO hub.drain | drain.started [clients=") for line in lines)
    assert not any("{" in line for line in lines if " | " in line)


async def test_a_structured_formatter_finds_the_fields(tmp_path: Path) -> None:
    entries: list[Any] = [json.loads(line) for line in await log_of(tmp_path, "run", JSON)]
    [refused] = [entry for entry in entries if isinstance(entry, dict) and entry["event"] == "origin.refused"]
    assert refused["origin"] == "http://evil.example"
    assert (refused["level"], refused["logger"]) == ("warning", "hub.node")
