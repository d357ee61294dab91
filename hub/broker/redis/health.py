"""Whether a server does what the hub needs. Probes find out, without any traffic of clients."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import Final

from hub.broker.base import BrokerState
from hub.broker.redis import scripts
from hub.broker.redis.commands import (
    CommandConnection,
    RedisCall,
    RefusedCallError,
    concerns_server,
    is_not_master,
)
from hub.broker.redis.connection import Reply
from hub.broker.redis.names import Names, new_epoch
from hub.broker.redis.subscriptions import SubscriptionConnection

PROBE_INTERVAL_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 2.0
"""A probe that does not arrive within this time means that the node receives nothing. A repair that takes
longer than this shows in the state."""

_PROBE_TTL_MS: Final = b"60000"
_REPEAT_TTL_MS: Final = b"1"
_SLOT_TRIES: Final = 1_000
_ELSEWHERE: Final = ("MOVED ", "ASK ", "TRYAGAIN ")


class Health:
    """The state of one server.

    Each second a probe publishes as every publication with history is published, to a channel of this node
    alone. So it proves the script, the keys and the channel, and then that messages arrive.

    Args:
        commands: the connection for calls.
        subscriptions: the connection that listens.
        names: of keys and channels.
        owns: whether the server keeps a name; None outside of a cluster.
        is_whole: whether everything is subscribed to and verified.
        changed: called when the state changed.
    """

    def __init__(
        self,
        commands: CommandConnection,
        subscriptions: SubscriptionConnection,
        names: Names,
        owns: Callable[[bytes], bool] | None,
        is_whole: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands = commands
        self._subscriptions = subscriptions
        self._names = names
        self._owns = owns
        self._is_whole = is_whole
        self._changed = changed
        self.state = BrokerState.DISCONNECTED
        self.reason = "not yet reached"
        self.began: Final[Future[None]] = self._loop.create_future()
        """Done when the server was first found to deliver, or to refuse."""
        self._due_at = self._heard_at = self._rebuilt_at = 0.0
        self._up_at = self._whole_at = self._loop.time()
        """When the connection for calls was made, and when everything was whole last."""
        self._refusal = ""
        """Why the server refused the last probe."""
        self._probes = 0
        self._slot = 0
        """Chooses the keys of probes, so that the server keeps them."""

    def on_up(self) -> None:
        """The connection for calls was made."""
        self._up_at = self._loop.time()
        self._loop.call_soon(self.probe)

    def on_probe(self) -> None:
        """A probe arrived."""
        self._heard_at = self._loop.time()
        if self.state is not BrokerState.CONNECTED:
            self.judge(self._heard_at)

    def watch(self, now: float, lag_s: float) -> None:
        """Probe if that is due, and judge. To be called often.

        Args:
            lag_s: for how long this process, not the server, did nothing.
        """
        self._heard_at += lag_s
        self._up_at += lag_s
        self._whole_at += lag_s
        if now >= self._due_at:
            self.probe()
        self.judge(now)

    def probe(self) -> None:
        """Send a probe, if there is a connection."""
        self._due_at = self._loop.time() + PROBE_INTERVAL_S
        if self._commands.connection is None:
            return
        keys = self._keys()
        if keys is None:
            call = RedisCall((b"PUBLISH", self._names.probe, b""), _no_refusal, None, repeatable=False)
        else:
            parts = (
                *(b"3", *keys, self._names.probe, b"", b"1"),
                *(_PROBE_TTL_MS, _PROBE_TTL_MS, _REPEAT_TTL_MS, b"PUBLISH", new_epoch()),
            )
            call = RedisCall(
                parts, bytes.decode, None, script=scripts.PROBE, repeatable=False, slot_key=keys[0]
            )
        self._commands.call(call).add_done_callback(self._probed)

    def _keys(self) -> tuple[bytes, bytes, bytes] | None:
        """Keys that the server keeps; None for a server of a cluster that has no slot."""
        self._probes += 1
        for _ in range(_SLOT_TRIES):
            keys = self._names.probe_keys(self._slot, self._probes)
            if self._owns is None or self._owns(keys[0]):
                return keys
            self._slot += 1
        self._slot = 0
        return None

    def _probed(self, done: Future[str]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            refusal = done.result()
        elif isinstance(error, RefusedCallError):
            self._up_at = self._loop.time()  # nothing was published, and so nothing need arrive
            if error.error.startswith(_ELSEWHERE):
                return
            refusal = error.error
        else:
            return
        if is_not_master(refusal):
            self._commands.rebuild(refusal)
            return
        self._refusal = refusal if concerns_server(refusal) else ""
        self.judge(self._loop.time())

    def judge(self, now: float) -> None:
        """Find the state, and tell of it if it changed."""
        state, self.reason = self._judged(now)
        if state in (BrokerState.CONNECTED, BrokerState.REFUSING) and not self.began.done():
            self.began.set_result(None)
        if state is not self.state:
            self.state = state
            self._changed()

    def _judged(self, now: float) -> tuple[BrokerState, str]:
        is_whole = self._is_whole()
        if is_whole:
            self._whole_at = now
        if not self._commands.answers:
            return BrokerState.DISCONNECTED, self._commands.failure
        refused = self._subscriptions.refused
        if now - max(self._heard_at, self._up_at) > PROBE_TIMEOUT_S:
            if self._names.probe in refused:
                return BrokerState.NOT_RECEIVING, f"Redis refused: {refused[self._names.probe]}"
            if now - self._rebuilt_at > PROBE_TIMEOUT_S:
                self._rebuilt_at = now
                self._subscriptions.rebuild("the probe did not come back")
            failure = self._subscriptions.failure
            return BrokerState.NOT_RECEIVING, failure or "what this node publishes does not come back to it"
        if self._refusal:
            return BrokerState.REFUSING, f"Redis refused: {self._refusal}"
        if refused:
            return BrokerState.REFUSING, f"Redis refused: {next(iter(refused.values()))}"
        if self._heard_at >= self._up_at and is_whole:
            return BrokerState.CONNECTED, ""
        if self._heard_at >= self._up_at and now - self._whole_at > PROBE_TIMEOUT_S:
            return BrokerState.REFUSING, "channels are being repaired after a broken connection"
        return self.state, self.reason


def _no_refusal(_: Reply) -> str:
    return ""
