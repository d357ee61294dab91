"""What is doubtful in a configuration: it works, and yet hardly does what was meant."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Collection, Iterator
from types import FrameType

from hub.settings import ChannelOptions, Settings


def doubts(settings: Settings, handlers: Collection[str] = ()) -> Iterator[str]:
    """What an operator should look at, a line each, which begins with the key.

    Args:
        settings: valid ones.
        handlers: the events that the app has a handler for. An app may let clients in where no setting does.
    """
    for fault in settings.short_secrets():
        yield f"{fault}: production refuses it"
    if not settings.client.insecure:
        yield from _closed_namespaces(settings, handlers)


def _closed_namespaces(settings: Settings, handlers: Collection[str]) -> Iterator[str]:
    client = settings.client
    if client.subscription_token is not None or "subscribe" in handlers or "connect" in handlers:
        return  # these open channels that no rule opens
    has_users = client.token.configured or not client.anonymous
    personal = client.user_personal_channel
    for name, options in settings.channels.items():
        is_personal = personal and (personal.partition(":")[0] if ":" in personal else "default") == name
        if is_personal or (name == "default" and not options.model_fields_set):
            continue
        if not _is_open(options):
            yield (
                f"channels.{name}: no rule lets a client subscribe: set allow_subscribe_for_client = true, or"
                " give clients subscription tokens"
            )
        elif not has_users and not options.allow_subscribe_for_anonymous:
            yield (
                f"channels.{name}: no client can subscribe, since clients have no user without a token: set"
                " allow_subscribe_for_anonymous = true"
            )


def _is_open(options: ChannelOptions) -> bool:
    return options.allow_subscribe_for_client or options.allow_user_limited


def worker_processes() -> int:
    """How many processes the server under the app runs, of which this is one; 1 where nothing tells.

    The hub's own workers are not counted: the settings refuse them without Redis.
    """
    return max(_of_multiprocessing(), _of_forking(), 1)


def _of_multiprocessing() -> int:
    """uvicorn and Hypercorn pass their configuration to each worker process."""
    config = getattr(multiprocessing.current_process(), "_kwargs", {}).get("config")
    return _count(getattr(config, "workers", None))


def _of_forking() -> int:
    """gunicorn and Granian fork workers from a method of the object that has the configuration."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if type(caller).__module__.startswith(("gunicorn.arbiter", "granian.server.")):
            config = getattr(caller, "cfg", caller)
            if (workers := getattr(config, "workers", None)) is not None:
                return _count(workers)
        frame = frame.f_back
    return 1


def _count(workers: object) -> int:
    return workers if isinstance(workers, int) else 1
