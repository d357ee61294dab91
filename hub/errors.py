"""The exception tree. What a peer does wrong is never one of these: it becomes a reply or a disconnect."""

from __future__ import annotations


class HubError(Exception):
    """Root of every exception that the hub raises on purpose."""


class SettingsError(HubError):
    """A setting that is unknown, of the wrong type, or at odds with another. The text names the key."""


class StartupError(HubError):
    """The hub cannot start: a port is taken, a file is missing. The text names the thing and the remedy."""


class SetupError(HubError):
    """The app sets the hub up in a way that cannot work, such as with two handlers for one event."""


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
    """

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{message} (code {code})" if code else message)
        self.code = code
        self.message = message
        self.temporary = temporary
