"""The scripts that run inside Redis, each one atomic. Their text is in `lua/`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis knows it.

    Args:
        source: the Lua text.
        sha: by which EVALSHA calls it.
        stamped: whether its last argument is the server's incarnation, which is known as it is sent.
    """

    source: bytes
    sha: bytes
    stamped: bool


def _script(name: str, *, positioned: bool = False) -> Script:
    folder = files("hub.broker.redis") / "lua"
    names = ["position", name] if positioned else [name]
    source = b"".join((folder / f"{each}.lua").read_bytes() for each in names)
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode(), positioned)


PUBLISH = _script("publish", positioned=True)
SEND = _script("send")
HISTORY = _script("history", positioned=True)
RENEW = _script("renew", positioned=True)
PRESENCE = _script("presence")
PRESENCE_ADD = _script("presence_add")
PRESENCE_REMOVE = _script("presence_remove")
SESSION_RESUME = _script("session_resume")
SESSION_LEAVE = _script("session_leave")
SESSION_ANNOUNCED = _script("session_announced")
SESSION_REVOKE = _script("session_revoke")
BUS_APPEND = _script("bus_append")
BUS_READ = _script("bus_read")

ALL = (
    *(PUBLISH, SEND, HISTORY, RENEW),
    *(PRESENCE, PRESENCE_ADD, PRESENCE_REMOVE),
    *(SESSION_RESUME, SESSION_LEAVE, SESSION_ANNOUNCED, SESSION_REVOKE),
    *(BUS_APPEND, BUS_READ),
)
