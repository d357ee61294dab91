"""What is doubtful in a configuration: it works, and yet hardly does what was meant."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from hub.settings import PREFIX, ChannelOptions, Settings


def doubts(settings: Settings, handlers: Collection[str] = ()) -> Iterator[str]:
    """What an operator should look at, a line each, which begins with the key.

    Args:
        settings: valid ones.
        handlers: the events that the app has a handler for. An app may let clients in where no setting does.
    """
    for fault in settings.short_secrets():
        yield f"{fault}; production refuses this one"
    if settings.read_again is None and (ignored := sorted(_variables())):
        yield (
            f"{', '.join(ignored[:3])}: set in the environment and ignored, since Settings(…) in code reads"
            " no variables: use hub.config.load(overrides={…})"
        )
    if not settings.client.insecure:
        yield from _closed_namespaces(settings, handlers)


def _variables() -> Iterator[str]:
    """Variables of the environment that `hub.config.load` reads."""
    for name in os.environ:
        root = name.removeprefix(PREFIX).partition("__")[0].lower()
        if name.startswith(PREFIX) and root in (*Settings.model_fields, "port", "config"):
            yield name


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
