"""The server API: every method by the client from PyPI, the HTTP rules, and the description."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import cent
import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected
from support.server import Running

from hub import Disconnect, Errors, Hub, RPCEvent, RPCReply
from hub.endpoints.api import BODY_BYTES_MAX
from hub.protocol import api

Call: TypeAlias = Callable[[Any], Awaitable[Any]]


@pytest.fixture(params=["async", "sync"])
async def setting(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Hub, Running, Call]]:
    """A hub, its server, and what sends a `cent` request to it: with either of the two clients."""
    async with sdk.live() as (hub, server):
        url = f"{server.url}/api"
        if request.param == "async":
            client = cent.AsyncClient(url, sdk.API_KEY)

            async def call(asked: Any) -> Any:
                return await getattr(client, asked.api_method)(request=asked)

            yield hub, server, call
            await client.close()
        else:
            blocking = cent.Client(url, sdk.API_KEY)

            async def call(asked: Any) -> Any:
                return await asyncio.to_thread(getattr(blocking, asked.api_method), request=asked)

            yield hub, server, call
            blocking.close()


Setting: TypeAlias = tuple[Hub, Running, Call]


@contextlib.asynccontextmanager
async def subscribed(server: Running, user: str, *channels: str, **options: Any) -> AsyncIterator[Peer]:
    """A client that is in channels."""
    async with connected(server.port, sdk.token(user)) as peer:
        for channel in channels:
            await peer.ask(command(2, "subscribe", channel=channel, **options))
        yield peer


async def refused(call: Awaitable[Any]) -> int:
    """The code that the API answers with in place of a result."""
    with pytest.raises(cent.CentApiResponseError) as error:
        await call
    return error.value.code


# Every method


async def test_publish(setting: Setting) -> None:
    _, server, call = setting
    async with subscribed(server, "ann", "chat:a") as peer:
        first = await call(cent.PublishRequest(channel="chat:a", data={"n": 1}, tags={"kind": "goal"}))
        assert first.offset == 1
        assert first.epoch
        publication = (await peer.reply())["push"]["pub"]
        assert (publication["data"], publication["tags"]) == ({"n": 1}, {"kind": "goal"})
        assert "info" not in publication
        passing = await call(cent.PublishRequest(channel="chat:a", data=2, skip_history=True))
        assert passing.offset == 0
        assert "offset" not in (await peer.reply())["push"]["pub"]
        assert (await call(cent.PublishRequest(channel="chat:a", data=3))).offset == 2


async def test_a_repeat_with_the_same_key_sends_nothing(setting: Setting) -> None:
    _, server, call = setting
    async with subscribed(server, "ann", "chat:a", "chat:b") as peer:
        once = cent.PublishRequest(channel="chat:a", data=1, idempotency_key="k")
        first, again = await call(once), await call(once)
        assert (first.offset, first.epoch) == (again.offset, again.epoch)
        elsewhere = await call(cent.PublishRequest(channel="chat:b", data=2, idempotency_key="k"))
        assert elsewhere.offset == 1
        assert [(await peer.reply())["push"]["pub"]["data"] for _ in range(2)] == [1, 2]


async def test_binary_data_reaches_json_subscribers_as_base64(setting: Setting) -> None:
    _, server, call = setting
    async with subscribed(server, "ann", "chat:a") as peer:
        await call(cent.PublishRequest(channel="chat:a", data=None, b64data="aGVsbG8="))
        assert (await peer.reply())["push"]["pub"]["data"] == "aGVsbG8="
    assert await refused(call(cent.PublishRequest(channel="chat:a", data=None, b64data="?"))) == 107


async def test_broadcast(setting: Setting) -> None:
    _, server, call = setting
    async with subscribed(server, "ann", "chat:a", "plain:b") as peer:
        channels = ["chat:a", "plain:b", "nowhere:c", "a b"]
        asked = cent.BroadcastRequest(channels=channels, data=[1], tags={"a": "b"}, idempotency_key="k")
        outcomes = (await call(asked)).responses
        assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, None, 102, 107]
        assert [outcomes[0].result.offset, outcomes[1].result.offset] == [1, 0]
        pushes = [(await peer.reply())["push"] for _ in range(2)]
        assert {push["channel"] for push in pushes} == {"chat:a", "plain:b"}
        assert all(push["pub"]["data"] == [1] for push in pushes)


async def test_subscribe_and_unsubscribe(setting: Setting) -> None:
    hub, server, call = setting
    async with subscribed(server, "ann") as ann, subscribed(server, "ann") as other:
        [client, second] = hub.node.registry.clients
        before = await hub.publish("own:a", "missed")
        await hub.publish("own:a", "recovered")
        override = cent.ChannelOptionsOverride(
            join_leave=cent.BoolValue(value=True), force_push_join_leave=cent.BoolValue(value=True)
        )
        asked = cent.SubscribeRequest(
            user="ann",
            channel="own:a",
            client=client,
            info={"seat": 7},
            data={"hi": 1},
            recover_since=cent.StreamPosition(offset=before.offset, epoch=before.epoch),
            override=override,
        )
        await call(asked)
        push = (await ann.reply())["push"]
        assert (push["channel"], push["subscribe"]["data"]) == ("own:a", {"hi": 1})
        assert push["subscribe"]["recoverable"]
        assert (await ann.reply())["push"]["pub"]["data"] == "recovered"
        joined = (await ann.reply())["push"]["join"]["info"]
        assert (joined["user"], joined["chan_info"]) == ("ann", {"seat": 7})

        await call(cent.SubscribeRequest(user="ann", channel="plain:all"))
        for peer in (ann, other):
            assert (await peer.reply())["push"]["channel"] == "plain:all"
        await call(cent.UnsubscribeRequest(user="ann", channel="plain:all", client=second))
        assert (await other.reply())["push"]["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}
        await call(cent.UnsubscribeRequest(user="ann", channel="own:a"))
        assert (await ann.reply())["push"]["channel"] == "own:a"
        assert set(hub.node.registry.channels) == {"plain:all"}
        await call(cent.UnsubscribeRequest(user="nobody", channel="own:a"))


async def test_by_session(setting: Setting) -> None:
    hub, server, call = setting
    async with unconnected(server.port) as one, subscribed(server, "ann") as other:
        [reply] = await one.ask(command(1, "connect", token=sdk.token("ann")))
        session = reply["connect"]["session"]
        await call(cent.SubscribeRequest(user="ann", channel="plain:a", session=session))
        assert (await one.reply())["push"]["channel"] == "plain:a"
        await call(cent.DisconnectRequest(user="ann", session=session))
        assert await one.closed() == (3503, "force no reconnect")
        assert (await other.ask(command(3, "ping")))[0]["id"] == 3
        assert len(hub.node.registry.clients) == 1


async def test_disconnect(setting: Setting) -> None:
    hub, server, call = setting
    async with (
        subscribed(server, "ann") as one,
        subscribed(server, "ann") as two,
        subscribed(server, "ann") as last,
    ):
        first, kept, _ = hub.node.registry.clients
        await call(cent.DisconnectRequest(user="ann", client=first))
        assert await one.closed() == (3503, "force no reconnect")
        away = cent.Disconnect(code=4000, reason="é" * 61)
        await call(cent.DisconnectRequest(user="ann", whitelist=[kept], disconnect=away))
        assert await last.closed() == (4000, "é" * 61)
        assert list(hub.node.registry.clients) == [kept]
        for code, reason in ((2999, ""), (5000, ""), (4000, "é" * 62)):
            wrong = cent.Disconnect(code=code, reason=reason)
            assert await refused(call(cent.DisconnectRequest(user="ann", disconnect=wrong))) == 107
        assert (await two.ask(command(3, "ping")))[0]["id"] == 3


async def test_refresh(setting: Setting) -> None:
    _, server, call = setting
    async with subscribed(server, "ann") as peer:
        await call(cent.RefreshRequest(user="ann", expire_at=int(time.time()) + 60))
        refresh = (await peer.reply())["push"]["refresh"]
        assert refresh["expires"]
        assert 55 < refresh["ttl"] <= 61
        await call(cent.RefreshRequest(user="ann", expired=True))
        assert await peer.closed() == (3005, "connection expired")


async def test_presence_and_its_numbers(setting: Setting) -> None:
    hub, server, call = setting
    async with subscribed(server, "ann", "chat:a"), subscribed(server, "ann", "chat:a"):
        present = (await call(cent.PresenceRequest(channel="chat:a"))).presence
        assert set(present) == set(hub.node.registry.clients)
        assert {info.user for info in present.values()} == {"ann"}
        stats = await call(cent.PresenceStatsRequest(channel="chat:a"))
        assert (stats.num_clients, stats.num_users) == (2, 1)
    for asked in (cent.PresenceRequest, cent.PresenceStatsRequest):
        assert await refused(call(asked(channel="plain:a"))) == 108
        assert await refused(call(asked(channel="nowhere:a"))) == 102


async def test_history_and_its_removal(setting: Setting) -> None:
    hub, _, call = setting
    for number in range(1, 6):
        await hub.publish("chat:a", number, tags={"n": str(number)})

    async def read(**asked: Any) -> list[int]:
        return [one.data for one in (await call(cent.HistoryRequest(channel="chat:a", **asked))).publications]

    top = await call(cent.HistoryRequest(channel="chat:a"))
    assert (top.offset, top.publications) == (5, [])
    assert await read(limit=-1) == [1, 2, 3, 4, 5]
    assert await read(limit=2, reverse=True) == [5, 4]
    since = cent.StreamPosition(offset=2, epoch=top.epoch)
    assert await read(limit=-1, since=since) == [3, 4, 5]
    other = cent.StreamPosition(offset=2, epoch="another")
    assert await refused(read(since=other)) == 112
    everything = await call(cent.HistoryRequest(channel="chat:a", limit=-1))
    assert [one.tags["n"] for one in everything.publications] == ["1", "2", "3", "4", "5"]
    await call(cent.HistoryRemoveRequest(channel="chat:a"))
    assert await read(limit=-1) == []
    assert (await hub.publish("chat:a", 6)).offset == 6
    assert await refused(call(cent.HistoryRequest(channel="plain:a"))) == 108
    assert await refused(call(cent.HistoryRemoveRequest(channel="plain:a"))) == 108


async def test_what_is_zero_or_empty_is_a_number_a_text_or_a_map(setting: Setting) -> None:
    _, server, call = setting
    assert (await call(cent.PresenceRequest(channel="chat:a"))).presence == {}
    stats = await call(cent.PresenceStatsRequest(channel="chat:a"))
    assert (stats.num_clients, stats.num_users) == (0, 0)
    history = await call(cent.HistoryRequest(channel="chat:a", limit=-1))
    assert (history.publications, history.offset, type(history.epoch)) == ([], 0, str)
    async with subscribed(server, "", "chat:a", token=sdk.subscription_token("", "chat:a")) as peer:
        assert await peer.error(command(3, "publish", channel="chat:a", data=1)) == 0
        [present] = (await call(cent.PresenceRequest(channel="chat:a"))).presence.values()
        [published] = (await call(cent.HistoryRequest(channel="chat:a", limit=-1))).publications
        assert (present.user, published.info.user) == ("", "")
        assert present.client == published.info.client != ""


async def test_channels_and_info(setting: Setting) -> None:
    hub, server, call = setting
    async with subscribed(server, "ann", "chat:a", "plain:b"), subscribed(server, "bob", "chat:a"):
        channels = (await call(cent.ChannelsRequest())).channels
        assert {name: one.num_clients for name, one in channels.items()} == {"chat:a": 2, "plain:b": 1}
        assert list((await call(cent.ChannelsRequest(pattern="plain:*"))).channels) == ["plain:b"]
        [node] = (await call(cent.InfoRequest())).nodes
        assert (node.num_clients, node.num_users, node.num_subs, node.num_channels) == (2, 2, 3, 2)
        assert (node.uid, node.version) == (hub.node.id, hub.node.version)
        assert node.process.rss > 1_000_000


@pytest.mark.parametrize("parallel", [False, True])
async def test_batch(setting: Setting, parallel: bool) -> None:
    _, server, call = setting
    async with subscribed(server, "ann", "chat:a") as peer:
        requests = [
            cent.PublishRequest(channel="chat:a", data=1),
            cent.PublishRequest(channel="chat:a", data=2),
            cent.HistoryRequest(channel="chat:a", limit=-1),
            cent.PresenceStatsRequest(channel="chat:a"),
        ]
        replies = (await call(cent.BatchRequest(requests=requests, parallel=parallel))).replies
        assert [replies[0].offset, replies[1].offset] == [1, 2]
        assert [one.data for one in replies[2].publications] == [1, 2]
        assert replies[3].num_clients == 1
        assert [(await peer.reply())["push"]["pub"]["data"] for _ in range(2)] == [1, 2]


async def test_what_is_refused(setting: Setting) -> None:
    _, server, call = setting
    for channel, code in (("nowhere:a", 102), ("a b", 107), ("", 107), ("x" * 256, 107)):
        assert await refused(call(cent.PublishRequest(channel=channel, data=1))) == code
        assert await refused(call(cent.SubscribeRequest(user="ann", channel=channel))) == code
        assert await refused(call(cent.HistoryRequest(channel=channel))) == code
    assert await refused(call(cent.PublishRequest(channel="chat:a", data=None))) == 107
    wrong = cent.AsyncClient(f"{server.url}/api", "another key")
    with pytest.raises(cent.CentUnauthorizedError):
        await wrong.info(cent.InfoRequest())
    await wrong.close()


# Over plain HTTP


_KEY = sdk.API_KEY.encode()


async def _post(url: str, method: str, body: str | bytes, key: bytes | None = _KEY) -> httpx.Response:
    headers = {} if key is None else {b"X-API-Key": key}
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        return await client.post(f"{url}/api/{method}", content=body, headers=headers)


async def test_rpc_is_answered_by_the_app() -> None:
    def answer(event: RPCEvent) -> Any:
        assert (event.user, event.client) == ("", "")
        match event.method:
            case "add":
                return RPCReply(data=sum(event.data))
            case "bare":
                return None
            case "leave":
                return Disconnect(4501, "you asked")
        return Errors.METHOD_NOT_FOUND

    async with sdk.live(rpc=answer) as (_, server):

        async def ask(body: dict[str, Any]) -> Any:
            return (await _post(server.url, "rpc", json.dumps(body))).json()

        assert await ask({"method": "add", "data": [1, 2]}) == {"result": {"data": 3}}
        assert await ask({"method": "bare"}) == {"result": {"data": None}}
        assert (await ask({"method": "x"}))["error"]["code"] == 104
        assert (await ask({"method": "leave"}))["error"]["code"] == 4501
        assert (await ask({"data": 1}))["error"]["code"] == 107
    async with sdk.live() as (_, server):
        assert (await _post(server.url, "rpc", '{"method":"x"}')).json()["error"]["code"] == 108


async def test_http_statuses() -> None:
    async with sdk.live() as (_, server):
        for key in (None, b"", b"another key", "ключ".encode()):
            assert (await _post(server.url, "info", "{}", key)).status_code == 401
            assert (await _post(server.url, "nothing", "{", key)).status_code == 401
        for body in (
            "",
            "{",
            "[]",
            "1",
            '"x"',
            "null",
            "{}{}",
            '{"a":NaN}',
            b"\xff",
            '{"a":1,"a":2}',
            "[" * 9999,
        ):
            problem = await _post(server.url, "info", body)
            assert problem.status_code == 400, body
            assert problem.json()["error"]["message"]
        assert (await _post(server.url, "nothing", "{}")).status_code == 404
        large = b'{"channel":"chat:a","data":"' + b"x" * BODY_BYTES_MAX + b'"}'
        assert (await _post(server.url, "publish", large)).status_code == 413
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            assert (await client.get(f"{server.url}/api/info")).status_code == 405
        for method, body in {
            "publish": '{"channel":5,"data":1}',
            "broadcast": '{"channels":"chat:a","data":1}',
            "subscribe": '{"channel":"chat:a"}',
            "history": '{"channel":"chat:a","limit":"all"}',
            "batch": '{"commands":{}}',
        }.items():
            answer = await _post(server.url, method, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (200, 107), method
        assert (await _post(server.url, "info", '{"unknown":[1]}')).json()["result"]["nodes"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-Key": sdk.API_KEY}, 200),
        ({"Authorization": f"apikey {sdk.API_KEY}"}, 200),
        ({"Authorization": f"ApiKey  {sdk.API_KEY}"}, 200),
        ({"X-API-Key": "wrong", "Authorization": f"apikey {sdk.API_KEY}"}, 200),
        ({"Authorization": sdk.API_KEY}, 401),
        ({"Authorization": f"Bearer {sdk.API_KEY}"}, 401),
        ({"Authorization": "apikey wrong"}, 401),
        ({"Authorization": "apikey"}, 401),
        ({}, 401),
    ],
)
async def test_where_the_key_may_stand(headers: dict[str, str], status: int) -> None:
    async with sdk.live() as (_, server), httpx.AsyncClient(timeout=WAIT_S) as client:
        answer = await client.post(f"{server.url}/api/info", headers=headers, content="{}")
        assert answer.status_code == status
        if status == 401:
            assert "X-API-Key" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body is not JSON: it is empty"),
        (b'{"channel":"chat:a","data":"\\ud800"}', "a string holds a lone surrogate"),
        (b'{"channel":"chat:a","data":', "it ends too early"),
        (b'\xef\xbb\xbf{"channel":"chat:a","data":1}', "it begins with a byte order mark"),
    ],
)
async def test_the_answer_names_what_is_wrong_with_a_body(body: bytes, fault: str) -> None:
    async with sdk.live() as (_, server):
        answer = await _post(server.url, "publish", body)
        assert answer.status_code == 400
        assert fault in answer.json()["error"]["message"]


async def test_null_counts_as_absent() -> None:
    publish = {
        "channel": "chat:a",
        "data": {"kept": None},
        "tags": None,
        "idempotency_key": None,
        "b64data": None,
    }
    async with sdk.live() as (_, server):
        answer = await _post(server.url, "publish", json.dumps(publish))
        assert answer.json()["result"]["offset"] == 1
        history = await _post(
            server.url, "history", '{"channel":"chat:a","limit":10,"since":null,"reverse":null}'
        )
        [publication] = history.json()["result"]["publications"]
        assert publication["data"] == {"kept": None}
        batch = await _post(
            server.url, "batch", json.dumps({"commands": [{"publish": publish}], "parallel": None})
        )
        assert batch.json()["replies"][0]["publish"]["offset"] == 2
        refused = (await _post(server.url, "disconnect", '{"user":null}')).json()["error"]
        assert (refused["code"], "`user`" in refused["message"]) == (107, True)


async def test_the_api_is_closed_where_no_key_is_set() -> None:
    async with sdk.live(sdk.settings(api={})) as (_, server):
        for key in (None, b"", b"dev"):
            assert (await _post(server.url, "info", "{}", key)).status_code == 401


async def test_a_batch_answers_each_of_its_commands() -> None:
    async with sdk.live() as (_, server):
        commands = [
            {"publish": {"channel": "chat:a", "data": 1}},
            {"fly": {}},
            {"publish": {"channel": "nowhere:a", "data": 1}},
            {"publish": {"channel": 5}},
            {"info": {}, "channels": {}},
            {},
            {"batch": {"commands": []}},
            {"channels": {}},
        ]
        answer = await _post(server.url, "batch", json.dumps({"commands": commands}))
        assert set(answer.json()) == {"replies"}
        replies = answer.json()["replies"]
        codes = [reply.get("error", {}).get("code") for reply in replies]
        assert codes == [None, 104, 102, 107, 104, 104, 104, None]
        assert replies[0]["publish"]["offset"] == 1
        assert replies[7] == {"channels": {"channels": {}}}


async def test_the_description_covers_every_method_and_holds_together() -> None:
    async with sdk.live() as (hub, server), httpx.AsyncClient(timeout=WAIT_S) as client:
        document = (await client.get(f"{server.url}/api/openapi.json")).json()
        assert document["openapi"].startswith("3.1")
        assert document["info"]["version"] == hub.node.version
        assert document["servers"] == [{"url": "/"}]
        assert set(document["paths"]) == {f"/api/{method}" for method in [*api.METHODS, "batch"]}
        for path in document["paths"].values():
            operation = path["post"]
            assert operation["summary"]
            assert operation["responses"]["200"]["content"]["application/json"]["schema"]
        for reference in _references(document):
            place = document
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]
        assert (await client.get(f"{server.url}/api/docs")).status_code == 200
        assert (await client.get(f"{server.url}/api/docs.js")).status_code == 200


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in _references(item)]
    return [found for item in value for found in _references(item)] if isinstance(value, list) else []
