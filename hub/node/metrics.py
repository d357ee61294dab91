"""What comes in and goes out, counted."""

from __future__ import annotations

from collections.abc import Mapping

from hub.protocol import messages as m
from hub.settings import ChannelOptions, namespace_of
from hub.telemetry import Metrics


def count_command(metrics: Metrics, command: m.Command | m.Fault) -> None:
    """A client sent a command, or what a codec could not read as one."""
    name = "fault" if isinstance(command, m.Fault) else m.command_name(command)
    metrics.received[name] += 1


def count_reply(metrics: Metrics, reply: m.Reply) -> None:
    """A client is sent a reply, or a push of its own."""
    metrics.sent[m.reply_name(reply)] += 1
    if reply.publish is not None or reply is m.PING:
        return
    if reply.error:
        metrics.errors.labels(reply.error.code).inc()
    results = list(reply.connect.subs.values()) if reply.connect else []
    if reply.subscribe:
        results.append(reply.subscribe)
    for result in results:
        if result.was_recovering:
            metrics.recoveries.labels("yes" if result.recovered else "no").inc()


def count_dropped(
    metrics: Metrics, options: Mapping[str, ChannelOptions], dropped: Mapping[str, int]
) -> None:
    """Publications, by channel, were given up for a client that reads slowly."""
    for channel, count in dropped.items():
        namespace = namespace_of(channel)
        metrics.dropped.labels(namespace, options[namespace].slow_reader).inc(count)
