"""The parts of a node, and how they are connected."""

from __future__ import annotations

import asyncio
import platform
import secrets
from collections.abc import Callable
from typing import Final

from hub.broker.base import Broker, BrokerCallbacks, BrokerState
from hub.core.channel.deltas import Deltas
from hub.core.channel.registry import Registry
from hub.core.rates import Rates
from hub.core.rules import Rules
from hub.core.session.state import Context
from hub.handlers.registry import HandlerTable
from hub.node.admission import Admission
from hub.node.api import API
from hub.node.authenticator import Authenticator, reconnect_tokens
from hub.node.backfill import Backfill
from hub.node.boundary import Boundary
from hub.node.bus import Bus
from hub.node.bus_messages import OwnerChanged, Relay
from hub.node.callbacks import Callbacks
from hub.node.channels import Channels
from hub.node.connection import Connection
from hub.node.connections import Connections
from hub.node.drain import Drain
from hub.node.effects import Effects
from hub.node.environment import Clock, Environment
from hub.node.fanout import Fanout
from hub.node.local_api import Identity, LocalAPI
from hub.node.members import Members
from hub.node.operations import Operations
from hub.node.outboxes import Outboxes
from hub.node.overload import OverloadMonitor
from hub.node.presence import Presence
from hub.node.refusals import Refusals
from hub.node.sessions import Sessions
from hub.node.state import NodeState
from hub.node.tasks import Tasks
from hub.node.timers import TimerWheel
from hub.protocol.codes import Disconnects
from hub.settings import Settings
from hub.telemetry import Metrics


class NodeParts:
    """The parts of a node. Some exist in every life of the node; `_build` makes the others for each life.

    The arguments are those of `Node`.

    Raises:
        SettingsError: a configured key is invalid.
    """

    id: str
    """Of this life."""
    broker: Broker
    clock: Clock
    loop: asyncio.AbstractEventLoop
    registry: Registry[Connection]
    timers: TimerWheel
    outboxes: Outboxes
    deltas: Deltas
    fanout: Fanout
    tasks: Tasks
    bus: Bus
    members: Members
    channels: Channels
    backfill: Backfill
    presence: Presence
    sessions: Sessions
    connections: Connections
    context: Context
    overload: OverloadMonitor
    drain: Drain
    api: API

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        handlers: HandlerTable,
        metrics: Metrics,
        version: str,
        restart: Callable[[], str | None],
    ) -> None:
        self.settings: Final = settings
        self.metrics: Final = metrics
        self.version: Final = version
        self.rules: Final = Rules(settings.channels, settings.client.channel_bytes_max)
        self.boundary: Final = Boundary(metrics)
        self.refusals: Final = Refusals(metrics, insecure=settings.client.insecure)
        self.health: Final = NodeState(metrics)
        self.environment = environment
        """Of the next life; only between two lives may it be replaced."""
        self._handlers = handlers
        self._authenticator = self._make_authenticator()
        self._restart = restart
        self.registry = Registry()
        self.admission = Admission(settings, self.health, self.registry, self.boundary, metrics)

    def _make_authenticator(self) -> Authenticator:
        return Authenticator(self.settings.client, self.environment.token_secret, self.settings.dev)

    def _build(self) -> None:
        """Make the parts of this life. A part knows those above it; what goes the other way is a callback."""
        settings, metrics, boundary, health = self.settings, self.metrics, self.boundary, self.health
        client = settings.client
        health.reset()
        self.id = secrets.token_hex(8)
        self.loop = asyncio.get_running_loop()
        clock = self.clock = self.environment.make_clock()
        self.broker = self.environment.make_broker()
        self._authenticator = self._make_authenticator()
        self.timers = TimerWheel(boundary, clock)
        self.tasks = Tasks(boundary, metrics)
        self.outboxes = Outboxes(client.outboxes_bytes_max)
        self.deltas = Deltas()
        self.registry = Registry()
        self.admission = Admission(settings, health, self.registry, boundary, metrics)
        callbacks = Callbacks(self._handlers, self.tasks, metrics)
        self.context = Context(
            client,
            Rates(client),
            self.rules,
            frozenset(self._handlers),
            self.id,
            self.version,
            clock.unix,
            self.deltas,
            reconnect_tokens(settings, self.broker),
            self._handlers.is_handled,
            self._handlers.read_state,
        )
        self.bus = Bus(
            self.id,
            self.broker,
            self.tasks,
            boundary,
            metrics,
            clock,
            health.set_catching_up,
            self._on_missed,
        )
        self.fanout = Fanout(metrics, self.deltas, boundary)
        self.channels = Channels(
            self.rules, self.registry, self.broker, self.fanout, health, self.tasks, clock, boundary
        )
        followers = self.channels.followers
        self.backfill = Backfill(
            followers, self.deltas, metrics, self.channels.go_live, self.channels.tell_broken
        )
        self.presence = Presence(
            self.broker, self.registry, self.fanout, health, self.tasks, clock, self.channels.out_of_date
        )
        self.sessions = Sessions(
            client.reconnect,
            self.registry,
            self.broker,
            self.bus,
            self.presence,
            callbacks,
            self.timers,
            health,
            self.tasks,
            clock,
            boundary,
            metrics,
        )
        operations = Operations(
            self.channels,
            self.broker,
            self.sessions,
            self.admission,
            self._authenticator,
            callbacks,
            self.bus,
            health,
            self.tasks,
            clock.unix,
        )
        effects = Effects(
            clock.now,
            self.broker.flush,
            self.channels,
            self.backfill,
            self.presence,
            self.sessions,
            operations,
            self.tasks,
            boundary,
            self.refusals,
            metrics,
        )
        self.connections = Connections(
            settings,
            self.context,
            self.admission,
            boundary,
            self.timers,
            self.outboxes,
            metrics,
            clock,
            flush=self.broker.flush,
            carry_out=effects.carry_out,
            drained=self.backfill.resume,
        )
        self.drain = Drain(self.connections, health, clock)
        identity = Identity(self.id, f"{platform.node()}_{settings.server.port}", self.version, clock.now())
        local = LocalAPI(
            identity,
            self.rules,
            self.registry,
            self.channels,
            self.sessions,
            self.drain,
            settings.server.drain_window_s,
            self._restart,
            clock,
        )
        self.members = Members(self.bus, self.tasks, local.perform)
        self.api = API(
            self.id,
            self.rules,
            self.broker,
            self.channels,
            self.sessions,
            callbacks,
            local,
            self.members,
            self.refusals,
            metrics,
        )
        self.overload = OverloadMonitor(settings, self.outboxes, metrics, self._on_step)
        self.bus.handle(OwnerChanged, self.sessions.on_owner_changed)
        self.bus.handle(Relay, self.connections.on_relay)

    def _callbacks(self) -> BrokerCallbacks:
        """The entries of the broker into this node, each guarded."""
        guard = self.boundary.guard
        return BrokerCallbacks(
            publication=self.channels.followers.arrived,  # guarded there, since each call counts
            join=guard("join", self.presence.on_join),
            leave=guard("leave", self.presence.on_leave),
            bus=guard("bus", self.bus.on_message),
            caught_up=self.fanout.caught_up,
            gap=guard("gap", self._on_gap),
            state=guard("state", self._on_state),
            ignored=guard("ignored", self.boundary.ignored),
            failed=self.boundary.failed,
        )

    def _on_missed(self) -> None:
        """Nobody knows what other nodes asked of this one: its clients reconnect, and are checked again."""
        for connection in list(self.connections):
            connection.close_soon(Disconnects.INSUFFICIENT_STATE)

    def _on_gap(self) -> None:
        self.bus.on_gap()
        self.channels.followers.doubt()

    def _on_state(self, state: BrokerState, reason: str) -> None:
        self.health.set_broker(state, reason)
        self.channels.followers.is_broker_away = state is BrokerState.DISCONNECTED
        self.presence.make_up()

    def _on_step(self) -> None:
        self.health.set_step(self.overload.step)
        self.presence.make_up()
