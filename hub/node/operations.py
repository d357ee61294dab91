"""What a session asks of its node, as futures: publishing, reading, checking tokens, the app's handlers."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import Any, Final

from hub.broker.base import Broker, BrokerState
from hub.core import effects as e
from hub.core.hooks import PublishedEvent
from hub.core.tokens import UnknownKey
from hub.node.admission import Admission
from hub.node.authenticator import Authenticator
from hub.node.bus import Bus
from hub.node.callbacks import Callbacks
from hub.node.channels import Channels
from hub.node.connection import Connection
from hub.node.sessions import Sessions
from hub.node.state import NodeState
from hub.node.tasks import Tasks, known
from hub.protocol.codes import Disconnect, Disconnects, Error
from hub.protocol.messages import StreamPosition
from hub.protocol.payloads import value

CATCH_UP_S: Final = 5.0
"""How long a client that connects waits for its node to read what the other nodes said."""


class Operations:
    """Begins the operations of sessions.

    Args:
        channels: publish and open channels.
        broker: reads history and presence.
        sessions: resume.
        admission: lets clients in.
        authenticator: checks tokens.
        callbacks: the app's handlers.
        bus: clients that connect wait until it missed nothing.
        state: of the node.
        tasks: own what takes time.
        unix: returns Unix seconds.
    """

    def __init__(
        self,
        channels: Channels,
        broker: Broker,
        sessions: Sessions,
        admission: Admission,
        authenticator: Authenticator,
        callbacks: Callbacks,
        bus: Bus,
        state: NodeState,
        tasks: Tasks,
        unix: Callable[[], float],
    ) -> None:
        self._channels = channels
        self._broker = broker
        self._sessions = sessions
        self._admission = admission
        self._authenticator = authenticator
        self._callbacks = callbacks
        self._bus = bus
        self._state = state
        self._tasks = tasks
        self._unix = unix
        self._tells = "after_publish" in callbacks

    def execute(self, connection: Connection, operation: e.Operation) -> Future[Any]:
        """Begin an operation. Its future ends with what the operation's docstring says, or fails."""
        match operation:
            case e.Publish():
                publishing = self._channels.publish(
                    operation.channel,
                    operation.data,
                    info=operation.info,
                    tags=operation.tags,
                    skip_history=operation.skip_history,
                    idempotency_key=operation.idempotency_key,
                )
                return self._told(connection, operation, publishing) if self._tells else publishing
            case e.OpenChannel():
                return self._channels.open(connection, operation)
            case e.OpenChannels(opens):
                return self._channels.open_all(connection, opens)
            case e.ReadHistory(channel, limit, since, reverse, bytes_max):
                return self._broker.history(
                    channel, since=since, limit=limit, reverse=reverse, bytes_max=bytes_max
                )
            case e.ReadPresence(channel):
                return self._broker.presence(channel)
            case e.Verify():
                return self._verify(operation)
            case e.CallHandler(event):
                return self._callbacks.call(event)
            case e.WaitForTurn():
                return self._enter()
            case e.Admit(user, client):
                return known(self._admission.admit(user, client))
            case e.ResumeSession():
                return self._sessions.resume(operation)

    def _told(
        self, connection: Connection, operation: e.Publish, publishing: Future[StreamPosition]
    ) -> Future[StreamPosition]:
        """Tell the app of a publication, whether or not its client is still there, and then the client."""
        if not self._callbacks.is_handled("after_publish", operation.channel):
            return publishing
        result: Future[StreamPosition] = asyncio.get_running_loop().create_future()

        def published(_: object) -> None:
            outcome = self._tasks.outcome(publishing)
            if isinstance(outcome, Error):
                _settle(result, outcome)
                return
            session = connection.session
            event = PublishedEvent(
                session.client,
                session.user,
                operation.channel,
                value(operation.data),
                outcome.offset,
                outcome.epoch,
                operation.tags or {},
                state=session.shared_state(),
            )
            telling = self._callbacks.call(event)
            telling.add_done_callback(lambda _: _settle(result, outcome))
            self._tasks.last(telling)

        publishing.add_done_callback(published)
        return result

    def _enter(self) -> Future[Any]:
        if not self._must_catch_up():
            return self._admission.enter()

        async def enter() -> Disconnect | None:
            # The client may be disconnected or revoked by a message that this node has not read.
            if not await self._bus.caught_up(CATCH_UP_S) and self._must_catch_up():
                return Disconnects.INTERNAL_ERROR
            return await self._admission.enter()

        return self._tasks.spawn(enter(), "admission")

    def _must_catch_up(self) -> bool:
        # While the broker is away there is nothing to read: a node takes clients then, as well as it can.
        return self._bus.is_catching_up and self._state.broker is not BrokerState.DISCONNECTED

    def _verify(self, operation: e.Verify) -> Future[Any]:
        now = self._unix()
        verdict = self._authenticator.check(operation, now)
        if isinstance(verdict, UnknownKey):
            return self._tasks.spawn(self._authenticator.look_up(operation, verdict.kid, now), "token")
        return known(verdict)


def _settle(result: Future[Any], outcome: Any) -> None:
    if not result.done():
        result.set_result(outcome)
