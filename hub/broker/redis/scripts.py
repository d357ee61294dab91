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


def _script(*names: str) -> Script:
    """A script made of files, of which the last runs and the others define functions."""
    folder = files("hub.broker.redis") / "lua"
    source = b"".join((folder / f"{name}.lua").read_bytes() for name in names)
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(source, sha, stamped="position" in names)


PUBLISH = _script("position", "publication", "publish")
PROBE = _script("position", "publication", "probe")
SEND = _script("send")
HISTORY = _script("position", "history")
POSITIONS = _script("positions")
RENEW = _script("position", "renew")
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
    *(PUBLISH, PROBE, SEND, HISTORY, POSITIONS, RENEW),
    *(PRESENCE, PRESENCE_ADD, PRESENCE_REMOVE),
    *(SESSION_RESUME, SESSION_LEAVE, SESSION_ANNOUNCED, SESSION_REVOKE),
    *(BUS_APPEND, BUS_READ),
)
