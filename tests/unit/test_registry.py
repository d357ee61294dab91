"""hub/core/channel/registry.py: clients, users and channels of a node; nothing remains after they leave."""

from __future__ import annotations

from dataclasses import dataclass

from support.sessions import options

from hub.core.channel.filter import Filter, compiled
from hub.core.channel.registry import Channel, Registry
from hub.core.channel.subscription import Grant, Subscription, build
from hub.protocol.encoding import JSON, Encoding
from hub.protocol.messages import ClientInfo, FilterNode, SubscribeRequest

OTHER = Encoding(JSON.messages.codec, None)


@dataclass(frozen=True)
class Client:
    client: str
    user: str = "ann"
    encoding: Encoding = JSON.messages


A, B, C = Client("a"), Client("b", "bob"), Client("c", encoding=OTHER)


def subscription(*, filter: Filter | None = None, delta: bool = False) -> Subscription:
    info = ClientInfo("ann", "a")
    return build(
        options(allowed_delta_types=("fossil",)),
        SubscribeRequest("room", delta="fossil" if delta else ""),
        info,
        Grant(),
        server_side=False,
        may_read_history=False,
        filter=filter,
    )


def test_clients_and_users() -> None:
    registry: Registry[Client] = Registry()
    for client in (A, B, C):
        registry.add(client, client.client, client.user)
    assert set(registry.clients) == {"a", "b", "c"}
    assert registry.of_user("ann") == [A, C]
    assert registry.of_user("bob") == [B]
    assert registry.of_user("eve") == []


def test_a_client_is_removed() -> None:
    registry: Registry[Client] = Registry()
    registry.add(A, A.client, A.user)
    registry.add(C, C.client, C.user)
    registry.discard(A, A.client, A.user)
    assert registry.of_user("ann") == [C]
    registry.discard(C, C.client, C.user)
    registry.discard(C, C.client, C.user)
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
        channel.add(client, client.encoding, joined)
    assert list(channel.group(A.encoding, members[A]).members) == [A, B]
    assert list(channel.group(C.encoding, members[C]).members) == [C]
    assert len(channel.groups) == 2
    assert channel.is_uniform
    assert channel.subscribers == 3
    assert dict(channel.members()) == members


def test_a_group_is_removed_with_its_last_member() -> None:
    channel: Channel[Client] = Channel("room")
    for client in (A, B, C):
        channel.add(client, client.encoding, subscription())
    channel.remove(A, A.encoding, subscription())
    assert [group.encoding for group in channel.groups.values()] == [JSON.messages, OTHER]
    channel.remove(B, B.encoding, subscription())
    assert [group.encoding for group in channel.groups.values()] == [OTHER]
    channel.remove(C, C.encoding, subscription())
    assert channel.is_empty


def test_members_are_grouped_by_filter_and_delta() -> None:
    channel: Channel[Client] = Channel("room")
    apples, pears = (compiled(FilterNode(key="fruit", cmp="eq", val=fruit)) for fruit in ("apple", "pear"))
    again = compiled(FilterNode(key="fruit", cmp="eq", val="apple"))
    wishes = [(None, False), (apples, False), (again, False), (pears, False), (None, True), (pears, True)]
    clients = [Client(str(number)) for number in range(len(wishes))]
    subscriptions = [subscription(filter=filter, delta=delta) for filter, delta in wishes]
    for client, joined in zip(clients, subscriptions, strict=True):
        channel.add(client, client.encoding, joined)
    assert [len(group.members) for group in channel.groups.values()] == [1, 2, 1, 1, 1]
    assert [bool(group.chain) for group in channel.groups.values()] == [False, False, False, True, True]
    assert not channel.is_uniform
    for client, left in zip(clients, subscriptions, strict=True):
        channel.remove(client, client.encoding, left)
    assert channel.is_empty
    assert channel.is_uniform


def test_a_new_member_with_deltas_has_no_base() -> None:
    channel: Channel[Client] = Channel("room")
    taking = subscription(delta=True)
    channel.add(A, A.encoding, taking)
    channel.add(B, B.encoding, taking)
    chain = channel.group(A.encoding, taking).chain
    assert chain
    assert chain.lacking == {A, B}
    channel.remove(A, A.encoding, taking)
    assert chain.lacking == {B}


def test_a_client_in_backfill_is_a_member() -> None:
    registry: Registry[Client] = Registry()
    channel = registry.channel("room")
    channel.behind[A] = joined = subscription()
    assert channel.subscribers == 1
    assert list(channel.members()) == [(A, joined)]
    assert not registry.release(channel)
    channel.remove(A, A.encoding, subscription())
    assert registry.release(channel)


def test_a_channel_is_kept_as_long_as_it_is_used() -> None:
    registry: Registry[Client] = Registry()
    channel = registry.channel("room")
    channel.opening[A] = []
    assert not registry.release(channel)
    channel.add(A, A.encoding, subscription())
    del channel.opening[A]
    assert not registry.release(channel)
    channel.remove(A, A.encoding, subscription())
    assert registry.release(channel)
    assert registry.channels == {}
    assert registry.subscriptions == 0
