"""Arguments that every Locust file of the kit takes, on the command line and in the form of Locust's page."""

from __future__ import annotations

from locust import events
from locust.argument_parser import LocustArgumentParser


@events.init_command_line_parser.add_listener
def add(parser: LocustArgumentParser) -> None:
    """Add the arguments to Locust's own."""
    parser.add_argument(
        "--encoding", choices=["json", "msgpack", "protobuf"], default="json", help="how messages are encoded"
    )
    parser.add_argument(
        "--token-key",
        default="",
        is_secret=True,
        help="HMAC secret that makes each user a token; none: connect without",
    )
    parser.add_argument(
        "--samples", default="", help="folder for the figures of each second", include_in_web_ui=False
    )
