"""The limit of a wait, which all tests share."""

from __future__ import annotations

from typing import Final

WAIT_S: Final = 60.0
"""Seconds after which a test stops waiting for an event.

On a busy machine a test may get a tenth of a core, so only an event that never comes should reach the limit.
The limit proves nothing about how fast the event comes.
"""
