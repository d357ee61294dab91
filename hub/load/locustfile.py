"""The scenarios of `hub load`, as a Locust file: `locust -f hub/load/locustfile.py --host http://127.0.0.1:8000`.

`--host` may name several nodes, with commas between. The hub needs a namespace `load` with history, to which
clients may subscribe and publish; `hub serve --config hub/load/hub.toml` starts such a hub.
"""

from __future__ import annotations

from locust import events
from locust.argument_parser import LocustArgumentParser

from hub.load.users.scenarios import (
    BoardPublisher,
    ChatUser,
    IdleUser,
    LiveUser,
    MobileUser,
    SlowUser,
    StormUser,
)

__all__ = [
    "BoardPublisher",
    "ChatUser",
    "IdleUser",
    "LiveUser",
    "MobileUser",
    "SlowUser",
    "StormUser",
]


@events.init_command_line_parser.add_listener
def arguments(parser: LocustArgumentParser) -> None:
    """Add the arguments of the scenarios."""
    parser.add_argument("--payload-bytes", type=int, default=100, help="size of a message's text")
    parser.add_argument("--rooms", type=int, default=100, help="chat rooms")
    parser.add_argument(
        "--talk-every", type=float, default=30.0, help="seconds between a chat user's messages, on average"
    )
    parser.add_argument("--updates", type=float, default=5.0, help="scoreboard updates a second")
    parser.add_argument(
        "--drop-every",
        type=float,
        default=20.0,
        help="seconds between a mobile user's, or a storm's, lost connections",
    )
    parser.add_argument(
        "--rest", type=float, default=1.0, help="seconds that a slow reader rests after each message"
    )
