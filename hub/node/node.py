"""One node: the life of its parts from start to stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from hub.checks import doubts
from hub.handlers.registry import HandlerTable
from hub.node.environment import Environment
from hub.node.state import DRAINING, SERVING, STOPPED
from hub.node.wiring import NodeParts
from hub.protocol.codes import Disconnects
from hub.settings import Settings
from hub.telemetry import Metrics, get_logger

_log = get_logger("hub.node")


class Node(NodeParts):
    """The connections of one process, and their way to the other nodes.

    A node may be started again after it was stopped. Each life has its own id, its own connections to the
    broker and its own state: `start` makes all of it.

    Args:
        settings: limits, channels and keys.
        environment: of each life: its broker and its time.
        handlers: of the app.
        metrics: what is counted.
        version: of the hub, told to clients.
        restart: drains the process and restarts it. Returns None, or why the process goes on.

    Raises:
        SettingsError: a configured key is invalid.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        handlers: HandlerTable,
        metrics: Metrics,
        version: str,
        restart: Callable[[], str | None],
    ) -> None:
        super().__init__(settings, environment, handlers, metrics, version, restart)
        self._stack = AsyncExitStack()
        self._is_broker_started = False

    @property
    def state(self) -> str:
        """The named state: one of `telemetry.STATES`, or `STOPPED`."""
        return self.health.name

    @property
    def is_serving(self) -> bool:
        """Whether the node takes new connections."""
        return self.health.is_serving

    async def start(self) -> None:
        """Begin to serve. A start that fails, or is cancelled, ends everything that it began.

        Raises:
            StartupError: the broker cannot work as it is configured.
        """
        async with AsyncExitStack() as stack:
            self._build()
            stack.push_async_callback(self._stop_broker)
            await self._authenticator.start()
            stack.push_async_callback(self._authenticator.stop)
            stack.push_async_callback(self.tasks.stop)
            stack.callback(self.sessions.expire_all)
            self.timers.start()
            stack.callback(self.timers.stop)
            stack.callback(self.channels.followers.stop)
            await self.broker.start(self.id, self._callbacks())
            self._is_broker_started = True
            await self.bus.start()
            self.tasks.supervise("presence", self.presence.renew_forever)
            self.tasks.supervise("followers", self.channels.followers.compare_forever)
            self.overload.start()
            stack.callback(self.overload.stop)
            self.health.enter(SERVING)
            stack.callback(self._end_connections)
            await self.members.start()
            stack.push_async_callback(self.members.stop)
            stack.push_async_callback(self.drain.stop)
            self._stack = stack.pop_all()
        for reason in (
            *doubts(self.settings, self._handlers),
            *self._handlers.doubts(self.settings.channels),
        ):
            _log.warning("settings.doubtful", reason=reason)
        if self.context.reconnect is None:
            _log.warning("reconnect.no_keys")
        if self.settings.client.insecure:
            _log.warning("hub.insecure")
        personal = self.settings.client.user_personal_channel
        options = self.rules.options(personal) if personal else None
        if options and options.history_size and not options.force_recovery:
            _log.warning("channel.personal_not_recovered", channel=personal)

    async def stop(self) -> None:
        """End every connection that is left, and everything that runs in the background."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    def begin_draining(self) -> None:
        """Take no client any more. The drain asks those that are connected to leave."""
        self.health.enter(DRAINING)

    async def end_clients(self) -> None:
        """Take no client any more, end every connection, and wait for the app's disconnect handlers."""
        self.begin_draining()
        await self.drain.stop()
        self._close_connections()
        self.sessions.expire_all()
        await self.tasks.finish()

    def _end_connections(self) -> None:
        self.health.enter(STOPPED)
        self._close_connections()

    def _close_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.close(Disconnects.SHUTDOWN)
            except Exception as error:
                connection.fail("stop", error)

    async def _stop_broker(self) -> None:
        if self._is_broker_started:
            self._is_broker_started = False
            await self.broker.stop()
