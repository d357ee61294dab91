"""The named state of a node, and why it is in it."""

from __future__ import annotations

from typing import Final

from hub.broker.base import BrokerState
from hub.core.overload import Step
from hub.telemetry import Metrics, get_logger

STOPPED: Final = "stopped"
"""The state of a node that has not started, or has ended. The others are `telemetry.STATES`."""

SERVING: Final = "serving"
DRAINING: Final = "draining"

_log = get_logger("hub.node")


class NodeState:
    """What is known of a node's health: facts that their owners set, and the name that follows from them.

    Args:
        metrics: shows the state.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.phase = STOPPED
        self.broker = BrokerState.CONNECTED
        self.step = Step.NORMAL
        """What an overloaded node gives up."""
        self._broker_reason = ""
        self._is_catching_up = False
        self._is_repairing = False

    @property
    def name(self) -> str:
        """One of `telemetry.STATES`, or `STOPPED`."""
        if self.phase != SERVING:
            return self.phase
        if self.step:
            return "overloaded"
        return "degraded" if self.reason else "healthy"

    @property
    def reason(self) -> str:
        """Why the node is degraded; empty where it is not."""
        if self.broker is not BrokerState.CONNECTED:
            return self._broker_reason or self.broker.value
        if self._is_catching_up:
            return "the node reads what other nodes said while it was disconnected"
        return "the node compares its channels with their history" if self._is_repairing else ""

    @property
    def is_serving(self) -> bool:
        """Whether the node takes new connections; it does with the broker away, as any other node would."""
        return (
            self.phase == SERVING
            and self.step < Step.ADMISSION
            and self.broker is not BrokerState.NOT_RECEIVING
        )

    @property
    def keeps_quiet(self) -> bool:
        """Whether joins and leaves are held back, since the node is overloaded."""
        return bool(self.step)

    def reset(self) -> None:
        """Forget the life before."""
        self.broker, self._broker_reason = BrokerState.CONNECTED, ""
        self.step = Step.NORMAL
        self._is_catching_up = self._is_repairing = False

    def enter(self, phase: str) -> None:
        """Begin a phase: `SERVING`, `DRAINING` or `STOPPED`."""
        self.phase = phase
        self._show()

    def set_broker(self, state: BrokerState, reason: str) -> None:
        """The state of the broker changed."""
        self.broker, self._broker_reason = state, reason
        if state is BrokerState.CONNECTED:
            _log.info("broker.link", state=state.value, reason=reason)
        else:
            _log.warning("broker.link", state=state.value, reason=reason)
        self._show()

    def set_step(self, step: Step) -> None:
        """The overload step changed."""
        self.step = step
        self._show()

    def set_catching_up(self, value: bool) -> None:
        """Whether the bus reads what it missed."""
        self._is_catching_up = value
        self._show()

    def set_repairing(self, value: bool) -> None:
        """Whether channels are compared with their history after a broken connection."""
        self._is_repairing = value
        self._show()

    def _show(self) -> None:
        if self.phase != STOPPED:
            self._metrics.state.state(self.name)
