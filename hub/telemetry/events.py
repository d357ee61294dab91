"""The catalogue of the events that the hub logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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
