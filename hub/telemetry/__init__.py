"""What an operator sees of a running hub: log lines from a catalogue of events, and metrics."""

from hub.telemetry.events import EVENTS
from hub.telemetry.logs import (
    LIMIT_LOG_PERIOD_S,
    LimitLog,
    LogLine,
    RateLimitedLog,
    configure_logging,
    get_logger,
)
from hub.telemetry.metrics import STATES, Metrics

__all__ = [
    "EVENTS",
    "LIMIT_LOG_PERIOD_S",
    "STATES",
    "LimitLog",
    "LogLine",
    "Metrics",
    "RateLimitedLog",
    "configure_logging",
    "get_logger",
]
