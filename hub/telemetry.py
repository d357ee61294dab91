"""What an operator sees of a running hub: log lines from a catalogue of events, and metrics."""

from __future__ import annotations

import collections
import logging
import math
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from structlog.typing import EventDict, Processor, WrappedLogger

from hub.redaction import without_secrets

VALUE_CHARACTERS_MAX: Final = 500
TRACEBACK_CHARACTERS_MAX: Final = 8000

LIMIT_LOG_PERIOD_S: Final = 10.0

STATES: Final = ("healthy", "degraded", "overloaded", "draining")


@dataclass(frozen=True, slots=True)
class Event:
    """A line that the log may hold.

    Args:
        levels: those it may be logged at.
        when: what happened.
        fields: what else the line may hold.
    """

    levels: tuple[str, ...]
    when: str
    fields: tuple[str, ...] = ()


EVENTS: Final[dict[str, Event]] = {
    "hub.started": Event(("info",), "The hub serves.", ("host", "port", "dev")),
    "hub.insecure": Event(("warning",), "The hub starts, and lets everyone do everything."),
    "start.failed": Event(
        ("error",), "The app under the server did not start, and the server ends.", ("reason", "exception")
    ),
    "settings.doubtful": Event(
        ("warning",),
        "At the start: a setting works, and hardly does what was meant. `hub config` prints the same.",
        ("reason",),
    ),
    "hub.not_running": Event(
        ("warning",),
        "A client was refused, since the hub was not started or has ended; a line every ten seconds at most.",
        ("reason", "suppressed"),
    ),
    "hub.stopping": Event(("info",), "The hub ends, after its drain."),
    "drain.started": Event(("info",), "Clients are being asked to reconnect.", ("clients", "window_s")),
    "drain.finished": Event(("info",), "Every client was asked to reconnect.", ("clients", "duration_s")),
    "drain.failed": Event(("error",), "The drain broke off; the process ends all the same.", ("exception",)),
    "server.limit": Event(
        ("warning",),
        "A limit was met. Of those that peers meet, a line every ten seconds at most.",
        ("limit", "value", "reason", "suppressed"),
    ),
    "load.step": Event(
        ("info", "warning"),
        "An overloaded node took a step: `normal`, `optional`, `admission` or `shedding`.",
        ("step", "lag_s", "outbox_bytes", "memory_bytes"),
    ),
    "load.shed": Event(
        ("warning",), "The clients that read slowest were disconnected.", ("clients", "outbox_bytes")
    ),
    "client.connected": Event(("debug",), "A client was let in.", ("client", "user")),
    "client.disconnected": Event(
        ("debug",), "A connection ended, by whoever's wish.", ("client", "user", "code")
    ),
    "client.fault": Event(
        ("info",),
        "A client broke the protocol; as many lines as of `client.refused`.",
        ("client", "user", "channel", "code", "reason", "suppressed"),
    ),
    "client.refused": Event(
        ("info",),
        "A client was refused, and why; for each kind of reason a line every ten seconds at most, and in"
        " insecure mode a hundred lines.",
        ("client", "user", "channel", "code", "reason", "suppressed"),
    ),
    "client.token_refused": Event(
        ("info",),
        "A token was not accepted, and why; as many lines as of `client.refused`.",
        ("client", "user", "channel", "code", "reason", "suppressed"),
    ),
    "reconnect.no_keys": Event(
        ("warning",),
        "No reconnect token is handed out: nodes over Redis need `client.reconnect.keys` in common.",
    ),
    "reconnect.refused": Event(
        ("info",),
        "A reconnect token was not accepted, and the client has to log in; for each outcome a line every ten"
        " seconds at most.",
        ("client", "outcome", "reason", "suppressed"),
    ),
    "reconnect.reused": Event(
        ("warning",),
        "A reconnect token was used twice, so that one of its users has stolen it: the session was ended.",
        ("client", "user"),
    ),
    "client.token_in_url": Event(
        ("warning",),
        "A client was refused, for a token in its URL; as many lines as of `client.refused`.",
        ("path", "reason", "suppressed"),
    ),
    "origin.refused": Event(
        ("warning",),
        "A page of an origin that is not allowed was refused; as many lines as of `client.refused`.",
        ("origin", "reason", "suppressed"),
    ),
    "api.refused": Event(
        ("warning",),
        "A call of the server API was refused, and why; as many lines as of `client.refused`.",
        ("method", "channel", "code", "reason", "suppressed"),
    ),
    "channel.personal_not_recovered": Event(
        ("warning",),
        "The hub starts. `client.user_personal_channel` keeps history without `force_recovery`, so a client"
        " that reconnects does not get what was published in its absence.",
        ("channel",),
    ),
    "host.refused": Event(
        ("warning",),
        "In development mode a request to another host was refused; a line every ten seconds at most.",
        ("host", "suppressed"),
    ),
    "hook.failed": Event(
        ("error",),
        "A handler of the app raised, was cancelled, or took too long; of each a line in ten seconds.",
        ("hook", "function", "client", "user", "channel", "method", "suppressed", "exception"),
    ),
    "hook.slow": Event(
        ("warning",),
        "A handler of the app took a second or more; of each a line in ten seconds.",
        ("hook", "function", "client", "user", "channel", "method", "duration_s", "suppressed"),
    ),
    "boundary.failed": Event(
        ("error",),
        "Something raised where the outside world enters the node; of each place a line every ten seconds.",
        ("place", "suppressed", "client", "channel", "exception"),
    ),
    "broker.link": Event(
        ("info", "warning"),
        "The state of the broker changed: `connected`, `refusing`, `not_receiving` or `disconnected`.",
        ("state", "reason"),
    ),
    "broker.failed": Event(
        ("warning", "error"),
        "The broker could not do what it was asked; every ten seconds at most. An error is a failed task.",
        ("reason", "suppressed", "exception"),
    ),
    "message.ignored": Event(
        ("warning",),
        "A message of the broker was not readable and is ignored; a line every ten seconds.",
        ("reason", "suppressed"),
    ),
    "tasks.left": Event(
        ("warning",),
        "Tasks did not end when the node stopped: handlers that ignore cancellation.",
        ("tasks",),
    ),
    "bus.incomplete": Event(
        ("warning",),
        "The log of the messages between nodes was cut, or the broker lost it, before this node had read it.",
        ("position", "last"),
    ),
    "presence.not_announced": Event(
        ("warning",), "Joins and leaves were forgotten while the broker was away.", ("channels",)
    ),
    "peers.silent": Event(("warning",), "Nodes did not answer another in time.", ("nodes",)),
    "restart.refused": Event(
        ("error",),
        "The process does not restart, since the settings are faulty now, and goes on.",
        ("reason",),
    ),
    "restart.unavailable": Event(
        ("warning",),
        "An app with a hub starts, and `hub roll` cannot restart it under this server."
        " The reason has the remedy.",
        ("reason",),
    ),
    "workers.started": Event(("info",), "The supervisor begins to run worker processes.", ("workers",)),
    "worker.rolled": Event(("info",), "A worker process was replaced by a new one.", ("worker",)),
    "roll.failed": Event(
        ("error",), "The workers are not replaced, those there are go on.", ("worker", "reason")
    ),
    "worker.failed": Event(("error",), "A worker process cannot start.", ("reason",)),
    "worker.hung": Event(
        ("error",), "A worker process gave no sign of life, and is killed.", ("worker", "silent_s")
    ),
    "worker.orphaned": Event(("warning",), "The supervisor is gone: this worker drains, and ends."),
    "worker.died": Event(
        ("error",), "A worker process ended, and is started again.", ("worker", "code", "restart_s")
    ),
    "keys.fetch_failed": Event(
        ("warning",),
        "A JSON Web Key Set could not be read; the keys known so far stay. A line every ten seconds at most.",
        ("url", "reason", "suppressed"),
    ),
}
"""Every event that the hub logs, by name."""

_TRACEBACK = "Traceback (most recent call last)"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECRET_FIELDS = frozenset({"token", "key", "secret", "password", "authorization", "cookie"})
_QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "httpx", "httpcore")


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor, that hides tokens, passwords and queries of URLs, and cuts long values.

    A line of a library whose text is a traceback gets its last line as text, and the whole as `exception`.
    """
    text = event.get("event")
    if isinstance(text, str) and _TRACEBACK in text and "exception" not in event:
        event["exception"] = text
        event["event"] = text.strip().rpartition("\n")[2]
    for field, value in event.items():
        if field in _SECRET_FIELDS:
            event[field] = "[hidden]"
        elif field == "exception":
            event[field] = without_secrets(str(value))[-TRACEBACK_CHARACTERS_MAX:]
        elif value is not None and not isinstance(value, bool | int | float) and not field.startswith("_"):
            # Cut first, so that a hostile megabyte is not searched whole; what is cut off cannot leak.
            text = without_secrets(str(value)[: 2 * VALUE_CHARACTERS_MAX])
            text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
            cut = len(text) > VALUE_CHARACTERS_MAX
            event[field] = f"{text[: VALUE_CHARACTERS_MAX - 1]}…" if cut else text
    return event


_LINE: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    redact,
]


class _Logger(structlog.stdlib.BoundLogger):
    """Drops debug lines early where nobody wants them: there are some for each client."""

    def debug(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        if self._logger.isEnabledFor(logging.DEBUG):
            return super().debug(event, *args, **fields)
        return None


class LogLine(dict[str, Any]):
    """The fields of a log line, whose text is what handlers of the standard library write.

    A formatter that writes structured lines, such as structlog's or a JSON formatter, finds the fields.
    """

    def __str__(self) -> str:
        """The event, the reason, and the other fields: `api.refused: no such channel [method=publish]`.

        A traceback follows on lines of its own, as that of every exception in the standard library's logs.
        """
        shown = {name: value for name, value in self.items() if name not in _OF_EVERY_LINE}
        exception = shown.pop("exception", "")
        reason = shown.pop("reason", "")
        text = f"{self['event']}: {reason}" if reason else str(self["event"])
        if shown:
            text += f" [{' '.join(f'{name}={_value(value)}' for name, value in shown.items())}]"
        return f"{text}\n{exception}" if exception else text


_OF_EVERY_LINE: Final = frozenset({"event", "level", "logger", "timestamp"})
"""Fields that `LogLine` does not write: a formatter of the standard library has its own for them."""


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if not text or " " in text else text


def _as_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor, which makes the fields a `LogLine`."""
    return LogLine(event)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for events of the catalogue: `log.info("hub.started", port=8000)`.

    It goes by way of the standard library's logger of that name, so that an app that embeds the hub gets the
    lines, redacted as everywhere, as readable text in its own log, and governs them by its own configuration.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_LINE,
            _as_line,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )
    return logger


_log = get_logger("hub.server")


def configure_logging(dev: bool, level: str = "info") -> None:
    """Send every log line of the process to stderr: as JSON, or readable and from debug on in development.

    Args:
        dev: whether a person reads along.
        level: the lowest level logged, of the standard library's names.
    """
    renderer: Processor = structlog.processors.JSONRenderer()
    if dev:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
            # Never the rich one: it shows local variables, and a token may be among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_LINE,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("hub").setLevel("DEBUG" if dev else level.upper())
    for name in _QUIET_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, root.level))


class RateLimitedLog:
    """A logger for events that can come in large numbers: of each kind a few lines in `LIMIT_LOG_PERIOD_S`.

    The field `suppressed` of a line says how many lines of its kind were left out before it.

    Args:
        logger: writes the lines.
        lines_max: lines of one kind in a period.
    """

    def __init__(self, logger: structlog.stdlib.BoundLogger, lines_max: int = 1) -> None:
        self._logger = logger
        self._lines_max = lines_max
        self._written: dict[str, tuple[float, int]] = {}
        """By kind, when its period began, and the lines that were written in it."""
        self._suppressed: collections.Counter[str] = collections.Counter()

    def info(self, event: str, *, kind: str = "", **fields: object) -> None:
        """Log at level info.

        Args:
            event: of the catalogue.
            kind: tells apart lines of one event, from a small fixed set; empty where all are of one kind.
            fields: of the line.
        """
        self._log(self._logger.info, event, kind, fields)

    def warning(self, event: str, *, kind: str = "", **fields: object) -> None:
        """Log at level warning. The arguments are those of `info`."""
        self._log(self._logger.warning, event, kind, fields)

    def error(self, event: str, *, kind: str = "", **fields: object) -> None:
        """Log at level error. The arguments are those of `info`."""
        self._log(self._logger.error, event, kind, fields)

    def _log(self, write: Callable[..., object], event: str, kind: str, fields: dict[str, object]) -> None:
        now = time.monotonic()
        key = f"{event} {kind}"
        began, count = self._written.get(key, (-math.inf, 0))
        if now >= began + LIMIT_LOG_PERIOD_S:
            began, count = now, 0
        elif count >= self._lines_max:
            self._suppressed[key] += 1
            return
        self._written[key] = (began, count + 1)
        fields = {name: value for name, value in fields.items() if value != ""}
        if suppressed := self._suppressed.pop(key, 0):
            fields["suppressed"] = suppressed
        write(event, **fields)


class LimitLog:
    """Logs that peers met limits: a line for each limit now and then."""

    def __init__(self) -> None:
        self._log = RateLimitedLog(_log)

    def met(self, limit: str, value: float) -> None:
        """A peer met a limit, and was refused."""
        self._log.warning("server.limit", kind=limit, limit=limit, value=value)


class Metrics:
    """The metrics of one hub, in a registry of its own, each called `hub_…`.

    Counters, gauges and histograms are attributes. What is counted for each message is a plain number, which
    costs a twentieth of a counter: `received` and `sent`, by kind, `bytes_in` and `bytes_out`.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="hub", registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="hub", registry=registry)

        def seconds(name: str, text: str, *buckets: float) -> Histogram:
            return Histogram(name, text, namespace="hub", registry=registry, buckets=buckets)

        self.connections = gauge("connections", "Open connections.")
        self.clients = gauge("clients", "Connections that were let in.")
        self.users = gauge("users", "Different users among the clients.")
        self.subscriptions = gauge("subscriptions", "Subscriptions of all clients.")
        self.channels = gauge("channels", "Channels with a subscriber.")
        self.state = Enum(
            "state", "The named state of the node.", states=STATES, namespace="hub", registry=registry
        )
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the event loop is, on average.")
        self.load_step = gauge("load_step", "What an overloaded node gave up: 0 for nothing, to 3.")
        self.memory_bytes = gauge("memory_bytes", "Resident memory of the process.")
        self.refusals = counter(
            "refusals",
            "Peers that were refused: by the state of the node, the limit that they met, or what was wrong"
            " (`api_key`, `bad_request`, `broker`, `channel_name`, `handler`, `no_login`, `not_allowed`,"
            " `not_subscribed`, `origin`, `switched_off`, `token`, `token_in_url`, `unknown_channel`).",
            "reason",
        )
        self.connects = counter("connects", "Clients that were let in.")
        self.reconnects = counter(
            "reconnects", "Clients that came with a reconnect token, by what came of it.", "outcome"
        )
        self.disconnects = counter("disconnects", "Connections that ended, by disconnect code.", "code")
        self.errors = counter("errors", "Error replies, by error code.", "code")
        self.recoveries = counter("recoveries", "Attempts of subscribers to recover.", "recovered")
        self.outbox_bytes = gauge("outbox_bytes", "Bytes that wait for clients that read slowly.")
        self.dropped = counter(
            "dropped",
            "Publications given up for clients that read slowly, by namespace and rule.",
            *("namespace", "policy"),
        )
        self.api_requests = counter("api_requests", "Calls of the server API, by method.", "method")
        self.boundary_errors = counter(
            "boundary_errors", "Exceptions that ended at the boundary of the node, by where.", "place"
        )
        self.bus_messages = counter(
            "bus_messages", "Messages between nodes, by type and by what came of them.", "type", "outcome"
        )
        self.broker_errors = counter("broker_errors", "Calls of the broker that failed.")
        self.publish_to_send_seconds = seconds(
            "publish_to_send_seconds",
            "From a publish to its last write to a subscriber of this node.",
            *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
        )
        self.ping_pong_seconds = seconds(
            "ping_pong_seconds",
            "From a ping of the server to the client's answer.",
            *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        )
        self.received: defaultdict[str, int] = defaultdict(int)
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.deltas: Callable[[], int] = lambda: 0
        """How many deltas were computed; asked when metrics are."""
        self.bytes_in = 0
        self.bytes_out = 0

    def bind(self, **functions: Callable[[], float]) -> None:
        """Let gauges be read from functions, by name: `bind(connections=lambda: len(self.connections))`."""
        for name, function in functions.items():
            gauge = getattr(self, name)
            assert isinstance(gauge, Gauge), f"{name} is no gauge"
            gauge.set_function(function)

    def render(self) -> tuple[bytes, str]:
        """All of them in Prometheus' text format, and its content type."""
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """What the registry holds, without the times of creation, which double the series for nothing."""
        yield from self._tallies()
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def _tallies(self) -> Iterator[Metric]:
        text = "Commands from clients, by method."
        received = CounterMetricFamily("hub_messages_in", text, labels=["type"])
        for kind, count in self.received.items():
            received.add_metric([kind], count)
        text = "Replies and pushes to clients, by kind."
        sent = CounterMetricFamily("hub_messages_out", text, labels=["type"])
        for kind, count in self.sent.items():
            sent.add_metric([kind], count)
        yield from (received, sent)
        yield CounterMetricFamily("hub_deltas", "Deltas of publications that were computed.", self.deltas())
        yield CounterMetricFamily("hub_bytes_in", "Bytes of messages from clients.", self.bytes_in)
        yield CounterMetricFamily("hub_bytes_out", "Bytes of frames to clients.", self.bytes_out)
