"""Sessions whose socket is gone, and whose channels are not told yet: they may go on elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hub.core.channel.subscription import Subscription
from hub.node.timers import TimerWheel
from hub.protocol.codes import Disconnect


@dataclass(slots=True, eq=False)
class Departed:
    """A session without a socket.

    Args:
        user: whose session it is.
        client: id of its client.
        owner: the socket that it was on.
        subscriptions: those that it was in.
        disconnect: how the socket ended.
        deadline: monotonic seconds at which it has not come back.
        lapse: called then.
    """

    user: str
    client: str
    owner: str
    subscriptions: list[Subscription]
    disconnect: Disconnect
    deadline: float
    lapse: Callable[[Departed], None]

    def tick(self, now: float) -> None:
        """Its time is over."""
        self.lapse(self)


class DisconnectGrace:
    """The sessions that left this node a short while ago.

    Args:
        wheel: the node's timer.
    """

    def __init__(self, wheel: TimerWheel) -> None:
        self._wheel = wheel
        self._departed: dict[str, Departed] = {}

    def add(self, departed: Departed) -> None:
        """A session is without a socket."""
        self._departed[departed.client] = departed
        self._wheel.add(departed)

    def take(self, client: str) -> Departed | None:
        """Forget a session: it goes on elsewhere, or its time is over."""
        departed = self._departed.pop(client, None)
        if departed is not None:
            self._wheel.discard(departed)
        return departed

    def take_all(self) -> list[Departed]:
        """Forget them all: the node ends."""
        return [departed for client in list(self._departed) if (departed := self.take(client))]
