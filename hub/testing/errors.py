"""What the kit raises, in words for the person who reads a failed test."""

from __future__ import annotations

from collections.abc import Sequence

from hub.errors import HubError, RequestError


class ClientError(RequestError):
    """The hub refused what a client of a test asked for, or sent the client away.

    Args:
        what: what failed, such as `ann: subscribe to orders:1`.
        code: of the error or the disconnect; 0 for a handshake that was refused.
        message: why.
        temporary: whether the same call may succeed later.
    """

    def __init__(self, what: str, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(code, message, temporary)
        self.what = what

    @property
    def reason(self) -> str:
        """Why the hub refused."""
        return self.message

    def __str__(self) -> str:
        return f"{self.what}: {super().__str__()}"


class NextTimeoutError(HubError, TimeoutError):
    """Nothing came to a client in time. The text says what the client is subscribed to, and what came."""


class LeakedTasksError(HubError):
    """Tasks that were started within a `TestHub` went on after the app had ended.

    Args:
        names: says of each task what runs in it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        count = f"{len(names)} tasks" if len(names) > 1 else "a task"
        super().__init__(
            f"{count} went on after the app had ended: {', '.join(names)}; cancel and await each in the app's"
            " lifespan or in the test"
        )
        self.names = list(names)
