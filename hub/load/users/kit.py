"""What a Locust file of the kit needs.

Importing this module registers with Locust what each such file has: arguments, counts, a clock that all
processes share, and samples.
"""

from hub.load.users import arguments, samples
from hub.load.users.shape import TimedShape
from hub.load.users.user import DeliveryError, HubUser

__all__ = ["DeliveryError", "HubUser", "TimedShape", "arguments", "samples"]
