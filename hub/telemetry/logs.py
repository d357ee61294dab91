"""Log lines: redacted, as text or JSON, and limited where peers cause them."""

from __future__ import annotations

import collections
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from hub.telemetry.redaction import without_secrets

VALUE_CHARACTERS_MAX: Final = 500
TRACEBACK_CHARACTERS_MAX: Final = 8000

LIMIT_LOG_PERIOD_S: Final = 10.0

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
