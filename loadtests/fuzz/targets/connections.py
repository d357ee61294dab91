"""Commands over WebSockets in each encoding: each is answered, or the connection ends with a known code."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from support.dialects import DIALECTS, Dialect
from support.rawws import RawWebSocket, frame
from websockets.frames import Opcode

from hub.protocol.codes import Disconnects
from hub.protocol.messages import Command
from hub.protocol.reader import FrameReader
from loadtests.fuzz.corpus import COMMANDS
from loadtests.fuzz.mutate import mutate
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.targets.client_frames import WORDS
from loadtests.fuzz.targets.json_commands import JSONCommands
from loadtests.fuzz.targets.msgpack_commands import MessagePackCommands
from loadtests.fuzz.targets.protobuf_commands import ProtobufCommands

NAMES = ("json", "msgpack", "protobuf")
MARKER = 4_000_000_000
"""Id of the command behind all others. Its answer says that the hub has read them."""

MESSAGE_BYTES_MAX = 65_536
ANSWER_S = 20.0
PAUSE_S = 0.05
FRAME_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009})
CODES = frozenset(
    each.code for each in vars(Disconnects).values() if hasattr(each, "code") and each.code != 3004
)


class Connections(LiveTarget):
    name = "connections"

    def __init__(self) -> None:
        self._makers = (JSONCommands(), MessagePackCommands(), ProtobufCommands())

    def draw(self, chance: random.Random) -> bytes:
        """Return a byte that names the encoding, and frames."""
        index = chance.randrange(len(NAMES))
        opcode = Opcode.TEXT if index == 0 else Opcode.BINARY
        messages = []
        for _ in range(chance.choice((1, 1, 2, 4))):
            if chance.random() < 0.4:
                messages.append(DIALECTS[NAMES[index]].write(_sound(chance, index)))
            else:
                messages.append(self._makers[index].draw(chance))
        frames = b"".join(frame(opcode, message) for message in messages)
        if chance.random() < 0.15:
            frames = mutate(frames, chance, WORDS)
        return bytes((index,)) + frames

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        if not data or data[0] >= len(NAMES):
            return
        dialect = DIALECTS[NAMES[data[0]]]
        marker = frame(
            Opcode.TEXT if data[0] == 0 else Opcode.BINARY, dialect.write({"id": MARKER, "ping": {}})
        )
        wanted, is_marked = _ids(dialect, data[1:] + marker)
        headers = {"Sec-WebSocket-Protocol": dialect.subprotocol}
        async with await RawWebSocket.connect(stage.port, headers=headers) as socket:
            connect = dialect.write({"id": 1, "connect": {"token": stage.token("fuzz")}})
            socket.send(frame(Opcode.BINARY, connect))
            socket.send(data[1:], marker)
            if not is_marked:
                await asyncio.sleep(PAUSE_S)
                return
            wanted[1] += 1
            try:
                async with asyncio.timeout(ANSWER_S):
                    async for kind in _read(socket, dialect, wanted):
                        yield kind
            except TimeoutError:
                yield "a command is not answered"


def _sound(chance: random.Random, index: int) -> dict[str, Any]:
    """A command as it should be; Protobuf's payloads are bytes."""
    choices = [each for each in COMMANDS if "connect" not in each and each]
    command: dict[str, Any] = dict(chance.choice(choices))
    if index == 2:
        command = {
            name: {key: b'{"a":1}' if key == "data" else item for key, item in value.items()}
            if isinstance(value, dict)
            else value
            for name, value in command.items()
        }
    return command


def _ids(dialect: Dialect, stream: bytes) -> tuple[Counter[int], bool]:
    """The ids that are to be answered, and whether the last command is read as one."""
    reader = FrameReader(MESSAGE_BYTES_MAX, 1024)
    wanted: Counter[int] = Counter()
    last = 0
    for message in reader.receive(stream):
        for command in dialect.codec.decode(bytes(message)):
            if isinstance(command, Command):
                last = command.id
                if command.id and command.send is None:
                    wanted[command.id] += 1
    return wanted, last == MARKER or reader.is_over


async def _read(socket: RawWebSocket, dialect: Dialect, wanted: Counter[int]) -> AsyncIterator[str]:
    """Read until all is answered, or the end."""
    while wanted:
        received = await socket.read_frame()
        if received is None:
            yield "the connection ends without a close frame"
            return
        opcode, payload = received
        if opcode == Opcode.CLOSE:
            code = int.from_bytes(payload[:2], "big") or 1000
            if code not in FRAME_CODES | CODES:
                yield f"the connection ends with {code} {payload[2:].decode()}"
            return
        if opcode not in (Opcode.TEXT, Opcode.BINARY):
            continue
        try:
            replies = dialect.read(payload)
        except Exception as exc:
            yield f"an unreadable reply in {dialect.codec.name}: {type(exc).__name__}"
            return
        for reply in replies:
            if reply.get("error", {}).get("code") == 100:
                yield "an internal error in reply to a command"
            number = reply.get("id", 0)
            if number in wanted:
                wanted -= Counter((number,))
