"""One connection to a Redis server: bytes go out, replies come in, in order."""

from __future__ import annotations

import asyncio
import re
import ssl
from asyncio import Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar, cast

import hiredis

VERSION_MIN: Final = 7

TURN_BYTES: Final = 65_536
"""About how many bytes are read in one turn of the loop: uvloop would read megabytes before anything else
runs."""

TURN_S: Final = 0.01
"""Seconds for which replies are received in one turn of the loop, about."""

_REPLIES_PER_CHECK: Final = 32
"""Replies that are received between two looks at the clock."""

Reply: TypeAlias = Any
"""A reply as hiredis reads it: bytes, int, list, None, or a `hiredis.ReplyError`."""

_SECTIONS: Final = (b"server", b"replication", b"persistence")
_NO_REPLY: Final = object()
_T = TypeVar("_T")
_REFUSALS: Final = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR DB")


class RedisConnectionError(Exception):
    """The server cannot be reached, or is in no state to serve. The text says why."""


class RefusedError(RedisConnectionError):
    """The server answers, and will never serve the hub as it is configured."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host and a port, or the path of a Unix socket."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """How to log in to a server.

    Args:
        username: of the ACL; empty for the default user.
        db: number of the database.
        tls: None for a connection without TLS.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    tls: ssl.SSLContext | None = None


class RedisConnection(asyncio.Protocol):
    """A connection to a server. Nothing that the server sends, and no write, raises into a caller.

    Args:
        receive: called with each reply, in the order of the server. If it raises, the connection ends.
    """

    def __init__(self, receive: Callable[[Reply], None]) -> None:
        self.receive = receive
        self._loop = asyncio.get_running_loop()
        self.lost: Future[str] = self._loop.create_future()
        """Done when the connection is over; its result is the reason."""
        self.on_caught_up: Callable[[], None] | None = None
        """Called after everything that arrived together was received."""
        self._reader = hiredis.Reader(notEnoughData=_NO_REPLY)
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._receive_replies(is_large=len(data) >= TURN_BYTES)

    def _receive_replies(self, *, is_large: bool) -> None:
        """Receive the replies that have arrived, in this turn of the loop as many as `TURN_S` allows."""
        reader, clock = self._reader, self._loop.time
        end, is_read = clock() + TURN_S, False
        try:
            while not is_read and clock() < end:
                for _ in range(_REPLIES_PER_CHECK):
                    if (reply := reader.gets()) is _NO_REPLY:
                        is_read = True
                        break
                    self.receive(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"the server does not speak the protocol of Redis: {error}")
        except Exception as error:
            self.abort(f"a reply was not expected: {error!r}")
        if self.on_caught_up is not None:
            self.on_caught_up()
        if (is_large or not is_read) and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._resume, is_read)

    def _resume(self, is_read: bool) -> None:
        if self._transport.is_closing():
            return
        if is_read:
            self._transport.resume_reading()
        else:
            self._receive_replies(is_large=True)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(self._reason or (str(exc) if exc else "the server closed the connection"))

    def write(self, data: bytes) -> None:
        """Send bytes. On a connection that is over nothing happens: `lost` tells of it."""
        if self._transport.is_closing():
            return
        try:
            self._transport.write(data)
        except RuntimeError as error:
            # uvloop raises on a transport that is closed and has not told its protocol yet.
            self.abort(str(error))

    def abort(self, reason: str) -> None:
        """End the connection at once. Nothing more is received."""
        self._reason = self._reason or reason
        self.receive = _ignore
        self._transport.abort()


async def open_connection(
    address: Address,
    access: Access,
    *,
    timeout_s: float,
    receive: Callable[[Reply], None],
    load: Sequence[bytes] = (),
) -> tuple[RedisConnection, bytes]:
    """Connect to a master and log in.

    Args:
        timeout_s: seconds for all of it.
        receive: called with each reply that comes later.
        load: scripts to load into the server.

    Returns:
        The connection, and the server's incarnation, which differs after a restart and after a failover.

    Raises:
        RefusedError: the credentials, the database or the version will not do.
        RedisConnectionError: anything else.
    """
    commands: list[Sequence[bytes]] = [(b"INFO", section) for section in _SECTIONS]
    commands.extend((b"SCRIPT", b"LOAD", source) for source in load)
    connection, incarnation = await _log_in(
        address, access, commands, timeout_s, lambda replies: _incarnation(replies[: len(_SECTIONS)])
    )
    connection.receive = receive
    return connection, incarnation


async def ask(
    address: Address, access: Access, commands: Sequence[Sequence[bytes]], timeout_s: float
) -> list[Reply]:
    """Run commands over a connection that is made for them, and closed.

    Args:
        timeout_s: seconds for all of it.

    Raises:
        RefusedError: the credentials will not do.
        RedisConnectionError: anything else, an error among the replies too.
    """
    connection, replies = await _log_in(address, access, commands, timeout_s, list)
    await close(connection)
    return replies


async def _log_in(
    address: Address,
    access: Access,
    commands: Sequence[Sequence[bytes]],
    timeout_s: float,
    judge: Callable[[list[Reply]], _T],
) -> tuple[RedisConnection, _T]:
    """Connect, log in, run commands, and judge the replies to them; all within the time."""
    before: list[Sequence[bytes]] = []
    if access.password:
        user = (access.username.encode(),) if access.username else ()
        before.append((b"AUTH", *user, access.password.encode()))
    if access.db:
        before.append((b"SELECT", b"%d" % access.db))
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _connect(address, access)
            try:
                replies = await _ask(connection, [*before, *commands])
                return connection, judge(replies[len(before) :])
            except BaseException:
                connection.abort("the server cannot be used")
                raise
    except RedisConnectionError as error:
        raise type(error)(f"{address}: {error}") from None
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(f"{address}: its certificate is not trusted: {error.verify_message}") from None
    except TimeoutError:
        raise RedisConnectionError(f"{address}: no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise RedisConnectionError(f"{address}: {error}; start Redis there, or correct redis.url") from None


async def _connect(address: Address, access: Access) -> RedisConnection:
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(lambda: RedisConnection(_ignore), address.path)
    else:
        _, connection = await loop.create_connection(
            lambda: RedisConnection(_ignore), address.host, address.port, ssl=access.tls
        )
    return connection


async def _ask(connection: RedisConnection, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
    replies: list[Reply] = []
    answered: Future[None] = asyncio.get_running_loop().create_future()

    def receive(reply: Reply) -> None:
        replies.append(reply)
        if len(replies) == len(commands) and not answered.done():
            answered.set_result(None)

    connection.receive = receive
    connection.write(b"".join(map(pack, commands)))
    try:
        ends: set[Future[Any]] = {answered, connection.lost}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        answered.cancel()
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            refused = str(reply).startswith(_REFUSALS)
            raise RefusedError(f"{reply}; correct redis.url") if refused else RedisConnectionError(str(reply))
    if len(replies) < len(commands):
        raise RedisConnectionError(connection.lost.result())
    return replies


def _incarnation(info: Sequence[Reply]) -> bytes:
    """Check a server by its answers to INFO, and tell its incarnation."""
    text = b"\n".join(section for section in info if isinstance(section, bytes))
    fields: dict[bytes, bytes] = dict(re.findall(rb"^(\w+):(.*?)\r?$", text, re.MULTILINE))
    for name in (b"redis_version", b"loading", b"role", b"run_id", b"master_replid"):
        if name not in fields:
            raise RedisConnectionError(f"its answer to INFO has no {name.decode()}: is it a Redis server?")
    version = fields[b"redis_version"].decode(errors="replace")
    major = version.partition(".")[0]
    if not major.isdecimal():
        raise RedisConnectionError(f"its version is {version[:20]!r}: is it a Redis server?")
    if int(major) < VERSION_MIN:
        raise RefusedError(
            f"Redis {version} is too old: the hub needs Redis {VERSION_MIN} or newer, or Valkey"
        )
    if fields[b"loading"] != b"0":
        raise RedisConnectionError("is reading its data from disk")
    if fields[b"role"] != b"master":
        raise RedisConnectionError("is a replica: the hub needs the master")
    return fields[b"run_id"][:6] + fields[b"master_replid"][:6]


def pack(parts: Sequence[bytes]) -> bytes:
    """A command in the protocol of Redis."""
    return hiredis.pack_command(tuple(parts))  # type: ignore[arg-type, no-any-return]


async def close(connection: RedisConnection) -> None:
    """End a connection and wait until it is gone."""
    connection.abort("the hub closed the connection")
    with suppress(asyncio.CancelledError):
        await connection.lost


def _ignore(_: Reply) -> None:
    pass
