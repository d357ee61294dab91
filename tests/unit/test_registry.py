"""hub/core/registry.py: clients, users and channels of a node, and nothing left when they are gone."""

from __future__ import annotations

from dataclasses import dataclass

from support.sessions import options

from hub.core.registry import Channel, Registry
from hub.core.subscription import Grant, Subscription, build
from hub.protocol.encoding import JSON, Encoding
from hub.protocol.messages import ClientInfo, SubscribeRequest

OTHER = Encoding(JSON.messages.codec, None)


@dataclass(frozen=True)
class Client:
    client: str
    user: str = "ann"
    encoding: Encoding = JSON.messages


A, B, C = Client("a"), Client("b", "bob"), Client("c", encoding=OTHER)


def subscription() -> Subscription:
    info = ClientInfo("ann", "a")
    return build(
        options(), SubscribeRequest("room"), info, Grant(), server_side=False, may_read_history=False
    )


def test_clients_and_users() -> None:
    registry: Registry[Client] = Registry()
    for client in (A, B, C):
        registry.add(client)
    assert set(registry.clients) == {"a", "b", "c"}
    assert registry.of_user("ann") == [A, C]
    assert registry.of_user("bob") == [B]
    assert registry.of_user("eve") == []


def test_a_client_that_is_gone() -> None:
    registry: Registry[Client] = Registry()
    registry.add(A)
    registry.add(C)
    registry.discard(A)
    assert registry.of_user("ann") == [C]
    registry.discard(C)
    registry.discard(C)
    assert registry.clients == {}
    assert registry.users == {}


def test_a_channel_is_made_once() -> None:
    registry: Registry[Client] = Registry()
    channel = registry.channel("room")
    assert registry.channel("room") is channel
    assert registry.channel("hall") is not channel
    assert channel.is_empty


def test_members_are_grouped_by_encoding() -> None:
    channel: Channel[Client] = Channel("room")
    members = {client: subscription() for client in (A, B, C)}
    for client, joined in members.items():
        channel.group(client.encoding).members[client] = joined
    assert list(channel.group(JSON.messages).members) == [A, B]
    assert list(channel.group(OTHER).members) == [C]
    assert channel.subscribers == 3
    assert dict(channel.members()) == members


def test_a_group_goes_with_its_last_member() -> None:
    channel: Channel[Client] = Channel("room")
    for client in (A, B, C):
        channel.group(client.encoding).members[client] = subscription()
    channel.remove(A)
    assert set(channel.groups) == {JSON.messages, OTHER}
    channel.remove(B)
    assert set(channel.groups) == {OTHER}
    channel.remove(C)
    assert channel.is_empty


def test_who_is_sent_what_was_missed_is_a_member() -> None:
    registry: Registry[Client] = Registry()
    channel = registry.channel("room")
    channel.behind[A] = joined = subscription()
    assert channel.subscribers == 1
    assert list(channel.members()) == [(A, joined)]
    assert not registry.release(channel)
    channel.remove(A)
    assert registry.release(channel)


def test_a_channel_is_kept_as_long_as_it_is_used() -> None:
    registry: Registry[Client] = Registry()
    channel = registry.channel("room")
    channel.opening[A] = []
    assert not registry.release(channel)
    channel.group(A.encoding).members[A] = subscription()
    del channel.opening[A]
    assert not registry.release(channel)
    channel.remove(A)
    assert registry.release(channel)
    assert registry.channels == {}
    assert registry.subscriptions == 0
