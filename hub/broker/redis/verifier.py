"""Finds the channels of which a server lost the newest publications, after it was restarted or replaced."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable
from typing import Any, Final

from hub.broker.background import retry_s
from hub.broker.base import POSITION_TTL_S
from hub.broker.redis import scripts
from hub.broker.redis._redis_py import key_slot
from hub.broker.redis.commands import CommandConnection, RedisCall
from hub.broker.redis.names import new_epoch, position_key, stream_key
from hub.broker.redis.positions import Positions, Seen
from hub.errors import BrokerError

VERIFY_STEP: Final = 200
"""Channels that are verified at once; the next ones follow when these are done."""

_POSITION_TTL_MS: Final = b"%d" % (POSITION_TTL_S * 1000)


class PositionVerifier:
    """Gives another epoch to channels whose position went back under what this node saw.

    Args:
        positions: what this node saw.
        commands: the connection to the server.
        sharded: whether the server is part of a cluster.
    """

    def __init__(self, positions: Positions, commands: CommandConnection, *, sharded: bool) -> None:
        self._positions = positions
        self._commands = commands
        self._sharded = sharded

    async def verify(self, incarnation: bytes) -> None:
        """Verify every doubtful position.

        One slice is under way at a time, and a slice that failed is tried again after a while, so that a busy
        server is not kept busy by this.

        Args:
            incarnation: of the server, as the connection that listens knows it.
        """
        attempt = 0
        while doubtful := self._positions.take_doubtful(VERIFY_STEP):
            is_verified = False
            try:
                await self._renew(doubtful, incarnation)
                is_verified = True
                attempt = 0
            except BrokerError:
                attempt += 1
            finally:
                if not is_verified:
                    for name, seen in doubtful:
                        self._positions.inherit(name, seen)
            if not is_verified:
                await asyncio.sleep(retry_s(attempt))

    async def _renew(self, doubtful: Iterable[tuple[bytes, Seen]], incarnation: bytes) -> None:
        if self._commands.incarnation != incarnation or self._commands.connection is None:
            raise BrokerError("the server is not reached yet")
        slots: dict[int, list[tuple[bytes, Seen]]] = {}
        for name, seen in doubtful:
            slots.setdefault(key_slot(name) if self._sharded else 0, []).append((name, seen))
        calls: list[Future[Any]] = []
        for some in slots.values():
            keys: list[bytes] = []
            arguments = [_POSITION_TTL_MS]
            for name, seen in some:
                keys += (position_key(name), stream_key(name))
                arguments += (seen.epoch.encode(), b"%d" % seen.offset, seen.incarnation, new_epoch())
            parts = (b"%d" % len(keys), *keys, *arguments)
            call = RedisCall(parts, int, None, script=scripts.RENEW, slot_key=some[0][0])
            calls.append(self._commands.call(call))
        await asyncio.gather(*calls)
