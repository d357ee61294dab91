"""The SDK from PyPI with tokens of every kind: good, short-lived, expired and invalid."""

from __future__ import annotations

import pytest
from centrifuge import UnauthorizedError  # type: ignore[import-untyped]
from support import sdk

from hub.protocol import api

pytestmark = pytest.mark.usefixtures("encoding")


async def test_a_short_lived_token_is_refreshed_without_a_reconnect() -> None:
    made: list[str] = []

    async def fresh() -> str:
        made.append(sdk.token("ann", ttl_s=1))
        return made[-1]

    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, get_token=fresh) as (client, events),
    ):
        refreshed = sdk.Events()
        send = client._process_reply

        async def watch(reply: dict[str, object]) -> None:
            if "refresh" in reply:
                await refreshed.on_refresh(reply["refresh"])
            await send(reply)

        client._process_reply = watch
        await refreshed.count("refresh", 2)
        assert len(made) >= 3
        assert len(events.of("connected")) == 1
        assert len(events.of("connecting")) == 1
        assert not events.of("error")


async def test_an_expired_token_makes_the_client_fetch_another() -> None:
    async def fresh() -> str:
        return sdk.token("ann")

    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann", ttl_s=-60), get_token=fresh) as (_, events),
    ):
        assert (await events.next("error")).error.code == 109
        await events.next("connected")
        assert hub.users == ["ann"]


async def test_a_connection_that_the_server_expires_fetches_another_token() -> None:
    async def fresh() -> str:
        return sdk.token("ann")

    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann", ttl_s=3600), get_token=fresh) as (_, events),
    ):
        await events.next("connected")
        await hub.request("refresh", api.RefreshRequest(user="ann", expired=True))
        await events.next("connecting")
        assert (await events.next("connecting")).code == 3005
        await events.next("connected")


@pytest.mark.parametrize(
    "made",
    [
        sdk.token("ann", secret="another-secret-that-is-long-enough"),
        sdk.token("ann", nbf=4_000_000_000),
        "no token at all",
    ],
    ids=["another key", "not valid yet", "no token"],
)
async def test_an_invalid_token_stops_the_client(made: str) -> None:
    async with sdk.serving() as (hub, server), sdk.client(server.websocket_url, token=made) as (_, events):
        assert (await events.next("disconnected")).code == 3500
        assert not hub.clients


async def test_a_subscription_token_opens_a_channel_and_is_refreshed() -> None:
    made: list[str] = []

    async def fresh(channel: str) -> str:
        made.append(sdk.subscription_token("ann", channel, ttl_s=1, info={"seat": 7}))
        return made[-1]

    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "private:a", get_token=fresh)
        assert (await events.next("join")).info.chan_info == {"seat": 7}
        refreshed = sdk.Events()
        send = client._process_reply

        async def watch(reply: dict[str, object]) -> None:
            if "sub_refresh" in reply:
                await refreshed.on_refresh(reply["sub_refresh"])
            await send(reply)

        client._process_reply = watch
        await refreshed.count("refresh", 2)
        assert len(made) >= 3
        assert len(events.of("subscribed")) == 1
        assert not events.of("error")
        await hub.publish("private:a", "still in")
        await events.count("publication", 1)


async def test_an_expired_subscription_token_makes_the_client_fetch_another() -> None:
    asked: list[str] = []

    async def fresh(channel: str) -> str:
        asked.append(channel)
        return sdk.subscription_token("ann", channel)

    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        old = sdk.subscription_token("ann", "private:a", ttl_s=-60)
        _, events = await sdk.subscribe(client, "private:a", token=old, get_token=fresh)
        assert [context.error.code for context in events.of("error")] == [109]
        assert asked == ["private:a"]


async def test_a_subscription_whose_refreshed_token_has_expired_is_subscribed_again() -> None:
    made: list[str] = []

    async def fresh(channel: str) -> str:
        made.append(channel)
        return sdk.subscription_token("ann", channel, ttl_s=-60 if len(made) == 2 else 1)

    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "private:a", get_token=fresh)
        again = (await events.count("subscribing", 2))[1]
        assert again.code == 2501
        await events.count("subscribed", 2)
        assert not events.of("unsubscribed")
        await hub.publish("private:a", "still in")
        await events.count("publication", 1)


async def test_a_connection_whose_refreshed_token_has_other_channels_reconnects() -> None:
    channels = [["news:a"], ["news:a"], ["news:b"]]

    async def fresh() -> str:
        granted = channels.pop(0) if len(channels) > 1 else channels[0]
        return sdk.token("ann", ttl_s=1, channels=granted)

    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, get_token=fresh) as (_, events),
    ):
        assert [context.channel for context in await events.count("subscribed", 1)] == ["news:a"]
        assert (await events.count("connecting", 2))[1].code == 3010
        assert (await events.count("subscribed", 2))[1].channel == "news:b"


async def test_a_subscription_token_is_no_login() -> None:
    made = sdk.token("ann", channel="private:a")
    async with sdk.serving() as (hub, server), sdk.client(server.websocket_url, token=made) as (_, events):
        assert (await events.next("disconnected")).code == 3500
        assert not hub.clients


async def test_a_user_whose_id_has_a_colon_has_a_personal_channel() -> None:
    configured = sdk.settings({"user_personal_channel": "#{user}"}, channels={"default": {}})
    async with (
        sdk.serving(configured) as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("google:123")) as (_, events),
    ):
        assert (await events.next("subscribed")).channel == "#google%3A123"
        await hub.publish("#google%3A123", "hello")
        assert (await events.next("publication")).pub.data == "hello"


@pytest.mark.parametrize(
    "made",
    [
        sdk.subscription_token("bob", "private:a"),
        sdk.subscription_token("ann", "private:b"),
        sdk.token("ann", channel="private:a"),
        "no token at all",
    ],
    ids=["another user", "another channel", "another key", "no token"],
)
async def test_an_invalid_subscription_token_is_refused(made: str) -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        refused = sdk.Events()
        await client.new_subscription("private:a", events=refused, token=made).subscribe()
        assert (await refused.next("unsubscribed")).code == 103
        assert not hub.channels


async def test_an_app_that_gives_no_token_ends_it_there() -> None:
    async def nothing(channel: str) -> str:
        raise UnauthorizedError

    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        refused = sdk.Events()
        await client.new_subscription("private:a", events=refused, get_token=nothing).subscribe()
        assert (await refused.next("unsubscribed")).code == 1
