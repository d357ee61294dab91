"""The server API as methods with plain Python values: the same ones inside an app and over HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Raw

from hub.errors import BroadcastError, RequestError
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import ERRORS, Disconnect, Disconnects
from hub.protocol.json import check
from hub.protocol.messages import StreamPosition, checked_tags
from hub.protocol.payloads import NO_PAYLOAD, Payload, payload, value
from hub.protocol.values import ClientInfo, HistoryResult, PresenceStatsResult, Publication

_TEMPORARY = frozenset(error.code for error in ERRORS if error.temporary)


class ServerAPI(ABC):
    """What an app asks of a hub. A subclass carries requests out: in this process, or over HTTP."""

    @abstractmethod
    async def _run(self, request: api.Request) -> Any:
        """Carry out a request of `hub.protocol.api`.

        Returns:
            Its result.

        Raises:
            RequestError: the hub refused it, or did not carry it out.
        """

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> StreamPosition:
        """Publish to a channel.

        Args:
            channel: its name.
            data: a dict, list, str, number, bool or None, a dataclass, a Pydantic model, a `msgspec.Struct`,
                or a date, UUID, decimal or enum, and any of these inside another; a `msgspec.Raw` is JSON
                text, sent as it is; `bytes` are binary.
            tags: sent with the publication.
            skip_history: keep it out of the channel's history.
            idempotency_key: a repeat with the same key within five minutes sends nothing, and returns the
                position of the first publication.
            delta: send what changed since the publication before to those who take deltas.

        Returns:
            Its position; offset 0 where the channel keeps no history.

        Raises:
            RequestError: the channel is badly named or not configured, or the broker is away.
            TypeError, ValueError: the data or the tags have no JSON form that every client can read.
        """
        request = publish_request(channel, data, tags, skip_history, idempotency_key, delta)
        return position(await self._run(request))

    async def broadcast(
        self,
        channels: Iterable[str],
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> list[StreamPosition]:
        """Publish the same to several channels.

        Args:
            channels: their names.
            data, tags, skip_history, delta: as of `publish`.
            idempotency_key: as of `publish`; one key serves for all channels.

        Returns:
            The positions, in the order of the channels.

        Raises:
            BroadcastError: some channels were refused; the others have the publication.
            RequestError, TypeError, ValueError: as `publish`.
        """
        names = _names(channels)
        request = broadcast_request(names, data, tags, skip_history, idempotency_key, delta)
        return positions(names, await self._run(request))

    async def history(
        self, channel: str, *, limit: int = -1, since: StreamPosition | None = None, reverse: bool = False
    ) -> HistoryResult:
        """Read a channel's history.

        Args:
            channel: its name.
            limit: publications at the most; -1 for all that the channel keeps, 0 for the position alone.
            since: only the publications after this position (before it, where `reverse`).
            reverse: the newest first.

        Returns:
            The publications, with their data as Python values, and the channel's position.

        Raises:
            RequestError: as `publish`; 108 where the channel keeps no history; 112 where `since` is of
                another epoch, so that the history is not the one it belongs to.
        """
        result = await self._run(
            api.HistoryRequest(channel=channel, limit=limit, since=since, reverse=reverse)
        )
        return HistoryResult(
            [_publication(each) for each in result.publications], result.offset, result.epoch
        )

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Return who is in a channel, by client id.

        Args:
            channel: its name.

        Raises:
            RequestError: as `publish`; 108 where the channel has no presence.
        """
        result = await self._run(api.PresenceRequest(channel=channel))
        return {client: _client_info(info) for client, info in result.presence.items()}

    async def presence_stats(self, channel: str) -> PresenceStatsResult:
        """Return how many clients and users are in a channel.

        Args:
            channel: its name.

        Raises:
            RequestError: as `presence`.
        """
        result = await self._run(api.PresenceStatsRequest(channel=channel))
        return PresenceStatsResult(result.num_clients, result.num_users)

    async def subscribe(
        self,
        user: str,
        channel: str,
        *,
        client: str = "",
        session: str = "",
        info: Any = None,
        data: Any = None,
        since: StreamPosition | None = None,
    ) -> api.ConfirmedResult:
        """Subscribe the connections that a user has now to a channel, on every node.

        Args:
            user: whose.
            channel: its name.
            client: only the connection with this client id; empty for all.
            session: only the connection with this session id; empty for all.
            info: what presence, joins and leaves say of the user in this channel; any JSON value.
            data: sent to the clients with the subscription; any JSON value.
            since: recover the publications after this position.

        Returns:
            Whether every node has done it by now; a node that cannot be reached does it as soon as it can.

        Raises:
            RequestError, TypeError, ValueError: as `publish`.
        """
        return await self._confirmed(
            api.SubscribeRequest(
                user=user,
                channel=channel,
                client=client,
                session=session,
                info=_optional(info, "info"),
                data=_optional(data, "data"),
                recover_since=since,
            )
        )

    async def unsubscribe(
        self, user: str, channel: str, *, client: str = "", session: str = ""
    ) -> api.ConfirmedResult:
        """Unsubscribe a user's connections from a channel, on every node.

        Args:
            user, channel, client, session: as of `subscribe`.

        Returns:
            Whether every node has done it by now, as `subscribe`.

        Raises:
            RequestError: as `publish`.
        """
        request = api.UnsubscribeRequest(user=user, channel=channel, client=client, session=session)
        return await self._confirmed(request)

    async def disconnect(
        self,
        user: str,
        disconnect: Disconnect = Disconnects.FORCE_NO_RECONNECT,
        *,
        client: str = "",
        session: str = "",
        whitelist: Iterable[str] = (),
        revoke: bool = False,
    ) -> api.ConfirmedResult:
        """End a user's connections, on every node.

        Args:
            user: whose.
            disconnect: tells the clients why, and whether to come back.
            client, session: as of `subscribe`.
            whitelist: client ids of connections that stay.
            revoke: let none of them come back by a reconnect token.

        Returns:
            Whether every node has done it by now, as `subscribe`.

        Raises:
            RequestError: as `publish`.
        """
        return await self._confirmed(
            api.DisconnectRequest(
                user=user,
                disconnect=api.DisconnectReason(disconnect.code, disconnect.reason),
                client=client,
                session=session,
                whitelist=_names(whitelist),
                revoke=revoke,
            )
        )

    async def refresh(
        self, user: str, *, client: str = "", session: str = "", expired: bool = False, expire_at: int = 0
    ) -> api.ConfirmedResult:
        """Move the end of a user's connections, on every node, or end them as expired.

        Args:
            user: whose.
            client, session: as of `subscribe`.
            expired: end the connections now, as if their tokens had expired.
            expire_at: when the connections expire, in Unix seconds; 0 for never.

        Returns:
            Whether every node has done it by now, as `subscribe`.

        Raises:
            RequestError: as `publish`.
        """
        request = api.RefreshRequest(
            user=user, client=client, session=session, expired=expired, expire_at=expire_at
        )
        return await self._confirmed(request)

    async def _confirmed(self, request: api.Request) -> api.ConfirmedResult:
        result: api.ConfirmedResult = await self._run(request)
        return result


def publish_request(
    channel: str,
    data: Any,
    tags: Mapping[str, str] | None,
    skip_history: bool,
    idempotency_key: str,
    delta: bool,
) -> api.PublishRequest:
    """The request of a `publish`. Args and errors are those of `ServerAPI.publish`."""
    if isinstance(data, Raw):
        check(bytes(data))
    return api.PublishRequest(
        channel=channel,
        data=payload(data),
        tags=None if tags is None else checked_tags(tags),
        skip_history=skip_history,
        idempotency_key=idempotency_key,
        delta=delta,
    )


def broadcast_request(
    channels: list[str],
    data: Any,
    tags: Mapping[str, str] | None,
    skip_history: bool,
    idempotency_key: str,
    delta: bool,
) -> api.BroadcastRequest:
    """The request of a `broadcast`. Args and errors are those of `ServerAPI.broadcast`."""
    one = publish_request("", data, tags, skip_history, idempotency_key, delta)
    return api.BroadcastRequest(
        channels=channels,
        data=one.data,
        tags=one.tags,
        skip_history=skip_history,
        idempotency_key=idempotency_key,
        delta=delta,
    )


def position(result: api.PublishResult) -> StreamPosition:
    """The position of a publication."""
    return StreamPosition(result.offset, result.epoch)


def positions(channels: list[str], result: api.BroadcastResult) -> list[StreamPosition]:
    """The positions of a broadcast.

    Raises:
        BroadcastError: some channels were refused.
    """
    refused = {
        channel: refusal(response.error)
        for channel, response in zip(channels, result.responses, strict=True)
        if response.error is not None
    }
    if refused:
        raise BroadcastError(len(channels), refused)
    return [position(response.result or api.PublishResult()) for response in result.responses]


def refusal(error: api.ErrorResult) -> RequestError:
    """The exception of an error that the server API answered with."""
    return RequestError(error.code, error.message, error.code in _TEMPORARY)


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"give a list of names, not the string {names!r}")
    return list(names)


def _optional(given: Any, name: str) -> Payload:
    return NO_PAYLOAD if given is None else payload(given, name)


def _client_info(info: m.ClientInfo) -> ClientInfo:
    return ClientInfo(info.user, info.client, value(info.conn_info), value(info.chan_info))


def _publication(publication: m.Publication) -> Publication:
    info = _client_info(publication.info) if publication.info else None
    return Publication(
        value(publication.data), publication.offset, info, publication.tags or {}, publication.time
    )
