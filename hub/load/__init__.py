"""The load-test kit: Locust users that hold a connection to a hub, and know what is lost, repeated or late.

A Locust file takes its classes from here:

    from hub.load import HubUser
    from locust import task

    class Reader(HubUser):
        def ready(self) -> None:
            self.subscribe("news:all")

        @task
        def read(self) -> None: ...

`hub load -f FILE Reader` runs it against a hub with service levels; `locust -f FILE` opens Locust's own page.
The distribution's extra `load` installs what it needs.

Importing `HubUser` imports Locust, which replaces parts of the standard library (`gevent.monkey`). Modules
of the command `hub load` run outside Locust, and import no class of this package's front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub.load.users.kit import DeliveryError, HubUser, TimedShape

__all__ = ["DeliveryError", "HubUser", "TimedShape"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hub.load.users import kit

        return getattr(kit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
