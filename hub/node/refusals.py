"""Refusals of peers: each is counted by its reason, and logged with its cause and the remedy."""

from __future__ import annotations

from typing import Final

from hub.core.effects import Refused
from hub.protocol.codes import Error
from hub.telemetry import Metrics, RateLimitedLog, get_logger

DEVELOPMENT_LINES_MAX: Final = 100
"""Lines of one reason in a period of the log in insecure mode, where a developer wants to see each refusal.
Otherwise it is one line."""

_log = get_logger("hub.node")


class Refusals:
    """Counts and logs refusals.

    Args:
        metrics: count each refusal by its reason.
        insecure: whether the hub is in insecure mode.
    """

    def __init__(self, metrics: Metrics, *, insecure: bool) -> None:
        self._metrics = metrics
        self._log = RateLimitedLog(_log, DEVELOPMENT_LINES_MAX if insecure else 1)

    @property
    def log(self) -> RateLimitedLog:
        """The log, for refusals whose event only the caller knows."""
        return self._log

    def count(self, reason: str) -> None:
        """Count a refusal.

        Args:
            reason: label of the metric, from a small fixed set.
        """
        self._metrics.refusals.labels(reason).inc()

    def client(self, client: str, user: str, refused: Refused) -> None:
        """Record that a session refused its client.

        Args:
            client: id of the client.
            user: the client's user; empty before the client is authenticated.
            refused: what the session says of it.
        """
        code, cause = refused.code, refused.cause
        self.count(cause.reason)
        channel, text = cause.channel, cause.text
        match cause.reason:
            case "token":
                self._log.info(
                    "client.token_refused", client=client, user=user, channel=channel, code=code, reason=text
                )
            case "bad_request":
                self._log.info(
                    "client.fault", client=client, user=user, channel=channel, code=code, reason=text
                )
            case kind:
                self._log.info(
                    "client.refused",
                    kind=kind,
                    client=client,
                    user=user,
                    channel=channel,
                    code=code,
                    reason=text,
                )

    def call(self, method: str, error: Error) -> None:
        """Record that a call of the server API was refused, if the error says why.

        Args:
            method: name of the method.
            error: the answer.
        """
        if cause := error.cause:
            self.count(cause.reason)
            self._log.warning(
                "api.refused",
                kind=cause.reason,
                method=method,
                channel=cause.channel,
                code=error.code,
                reason=cause.text,
            )
