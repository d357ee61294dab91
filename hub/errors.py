"""The exception tree. What a peer does wrong is never one of these: it becomes a reply or a disconnect."""

from __future__ import annotations

from collections.abc import Mapping


class HubError(Exception):
    """Root of every exception that the hub raises on purpose."""


class SettingsError(HubError):
    """A setting that is unknown, of the wrong type, or at odds with another. The text names the key."""


class StartupError(HubError):
    """The hub cannot start: a port is taken, a file is missing. The text names the thing and the remedy."""


class SetupError(HubError):
    """The app sets the hub up in a way that cannot work, such as with two handlers for one event."""


class HandlerError(SetupError, TypeError):
    """A function cannot handle what it is registered for. The text names the function and the remedy."""


class NotStartedError(HubError):
    """The hub was used before its lifespan ran, or after it ended."""


class EventLoopError(HubError):
    """The hub was called in another event loop than its own. The text names the right call."""


class BrokerError(HubError):
    """The broker could not do what it was asked, and the same call may succeed later."""


class RequestError(HubError):
    """What an app asked of the hub was refused or did not arrive.

    Args:
        code: the error code of the reply, or 0 where there was none.
        message: what went wrong, for a person.
        temporary: whether the same call may succeed later.
        detail: the cause and the remedy, for a developer: they are in the text of the exception alone.
    """

    def __init__(self, code: int, message: str, temporary: bool = False, detail: str = "") -> None:
        text = f"{message}: {detail}" if detail else message
        super().__init__(f"{text} (code {code})" if code else text)
        self.code = code
        self.message = message
        self.temporary = temporary


class UnconfirmedError(RequestError):
    """The hub did not confirm a call: it may have carried the call out, or not.

    Args:
        message: what went wrong, for a person.
        idempotency_key: of a publication: a repeat with this key, within five minutes, sends it once; empty
            for other calls.
        code: the error code of the reply, or 0 where there was none.
    """

    def __init__(self, message: str, idempotency_key: str = "", *, code: int = 0) -> None:
        if idempotency_key:
            message += f": repeat it with idempotency_key={idempotency_key!r}, and it is sent once"
        super().__init__(code, message, temporary=True)
        self.idempotency_key = idempotency_key


class BroadcastError(RequestError):
    """Some channels of a broadcast were refused. The other channels have the publication.

    Args:
        count: channels of the broadcast.
        errors: by channel, why it was refused.
    """

    def __init__(self, count: int, errors: Mapping[str, RequestError]) -> None:
        channel, error = next(iter(errors.items()))
        message = f"{len(errors)} of {count} channels were refused, {channel!r} for one: {error.message}"
        super().__init__(error.code, message, all(each.temporary for each in errors.values()))
        self.errors = errors
