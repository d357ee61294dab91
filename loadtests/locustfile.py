"""Load tests of a hub, the usual way of Locust: `locust -f loadtests/locustfile.py --host http://127.0.0.1:8000`.

`--host` may name several nodes, with commas between. The hub needs a namespace `load` with history, to which
clients may subscribe and publish; `hub serve --config loadtests/hub.toml` is one.
"""

from __future__ import annotations

from locust import events
from locust.argument_parser import LocustArgumentParser

from loadtests.swarm import samples
from loadtests.swarm.scenarios import (
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
    "samples",
]


@events.init_command_line_parser.add_listener
def arguments(parser: LocustArgumentParser) -> None:
    """What scenarios can be told, on the command line and in the web page's form."""
    parser.add_argument(
        "--encoding", choices=["json", "msgpack", "protobuf"], default="json", help="how messages are encoded"
    )
    parser.add_argument(
        "--token-key",
        default="",
        is_secret=True,
        help="HMAC secret that makes each user a token; none: connect without",
    )
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
    parser.add_argument(
        "--samples", default="", help="folder for the figures of each second", include_in_web_ui=False
    )
