"""Replies of Redis as values. A function here that raises fails the call that the reply is of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from hub.broker.base import BusLog, Resumption, Stream
from hub.broker.redis import envelope
from hub.broker.redis.connection import Reply
from hub.protocol.messages import ClientInfo, Publication, StreamPosition

UNNUMBERED: Final = StreamPosition()
_ENTRY: Final = re.compile(rb"(?:(\d+-\d+),(\d+-\d+))?")


def nothing(_: Reply) -> None:
    return None


def unnumbered(_: Reply) -> StreamPosition:
    return UNNUMBERED


def position(reply: Reply) -> StreamPosition:
    """Of `offset:epoch`."""
    offset, _, epoch = reply.decode().partition(":")
    return StreamPosition(int(offset), epoch)


def positions(names: Sequence[bytes], reply: Reply) -> dict[bytes, StreamPosition]:
    """Of offset and epoch for each name, in their order; both are None where a channel has no position."""
    return {
        name: StreamPosition(int(offset), epoch.decode())
        for name, offset, epoch in zip(names, reply[::2], reply[1::2], strict=True)
        if offset is not None and offset.isdigit() and epoch
    }


def resumption(reply: Reply) -> Resumption:
    """Of the verdict, whether the session had lapsed, and announcements: fields `:channel`, each with 1 or
    0."""
    verdict, lapsed, announced = reply
    fields = zip(announced[::2], announced[1::2], strict=True)
    return Resumption(
        verdict.decode(), bool(lapsed), {field[1:].decode(): value == b"1" for field, value in fields}
    )


def stream(channel: str, reply: Reply, ignored: Callable[[str], None]) -> Stream:
    """Of offset, epoch and entries. Entries that the hub did not write are left out.

    Args:
        ignored: called with the reason where entries are left out.
    """
    offset, epoch, entries = reply
    publications: list[Publication] = []
    unreadable = 0
    reason = ""
    for entry in entries:
        try:
            [id_, [field, body]] = entry
            epoch_part, _, number = id_.partition(b"-")
            if epoch_part != b"0" or field != b"d":
                raise ValueError(f"entry {id_!r} with the field {field!r}")
            publications.append(envelope.decode_entry(int(number), body))
        except envelope.Unreadable as error:
            unreadable += 1
            reason = reason or str(error)
    if unreadable:
        ignored(f"{unreadable} entries in the history of {channel} are not readable: {reason}")
    return Stream(publications, StreamPosition(int(offset), epoch.decode()))


def clients(channel: str, reply: Reply, ignored: Callable[[str], None]) -> dict[str, ClientInfo]:
    """Of client ids and infos in turn. Those that the hub did not write are left out, and told to
    `ignored`."""
    found: dict[str, ClientInfo] = {}
    for client, info in zip(reply[::2], reply[1::2], strict=True):
        try:
            found[client.decode()] = envelope.decode_info(info)
        except envelope.Unreadable as error:
            ignored(f"a client in the presence of {channel} is not readable: {error}")
    return found


def bus_message(data: bytes) -> tuple[bytes, str, str]:
    """A message of the bus, the id of its entry in the log, and the id of the entry before it.

    The ids are empty for a message that is not in the log. Bytes that the hub did not write are the message.
    """
    ids, space, message = data.partition(b" ")
    match = _ENTRY.fullmatch(ids) if space else None
    if match is None:
        return data, "", ""
    entry, before = match.groups(b"")
    return message, entry.decode(), before.decode()


def bus_log(reply: Reply, ignored: Callable[[str], None]) -> BusLog:
    """Of entries, the id of the newest, whether nothing is missing, and whether something was lost."""
    entries, last, is_complete, is_lost = reply
    messages: list[tuple[str, bytes]] = []
    for id_, fields in entries:
        match fields:
            case [b"d", message]:
                messages.append((id_.decode(), message))
            case [b"v", _]:
                pass  # the first entry
            case _:
                ignored(f"entry {id_.decode()} in the log of the bus is not readable")
    return BusLog(messages, last.decode(), is_complete=bool(is_complete), is_lost=bool(is_lost))
