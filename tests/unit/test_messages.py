"""hub/protocol/messages.py: the vocabulary."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from support.dialects import ALWAYS_WRITTEN

from hub.protocol import messages as m


def test_messages_leave_out_what_is_absent_except_for_what_sdks_read_without_a_default() -> None:
    for kind in m.Message.__subclasses__():
        if not kind.__struct_fields__ or "info" in kind.__struct_fields__[:1]:
            continue
        assert msgspec.to_builtins(kind()) == ALWAYS_WRITTEN.get(kind.__name__, {}), kind
        assert msgspec.json.decode(b"{}", type=kind) == kind(), kind


def test_two_messages_do_not_share_what_is_empty() -> None:
    m.PresenceResult().presence["client"] = m.ClientInfo()
    assert m.PresenceResult().presence == {}


def test_a_payload_is_encoded_as_it_came() -> None:
    publication = m.Publication(data=Raw(b'{ "a":1.0}'), info=m.ClientInfo("ann", "c1", Raw(b"null")))
    assert msgspec.json.encode(publication) == (
        b'{"data":{ "a":1.0},"info":{"user":"ann","client":"c1","conn_info":null}}'
    )


REQUESTS = {
    "connect": m.ConnectRequest(),
    "subscribe": m.SubscribeRequest(),
    "unsubscribe": m.UnsubscribeRequest(),
    "publish": m.PublishRequest(),
    "presence": m.PresenceRequest(),
    "presence_stats": m.PresenceStatsRequest(),
    "history": m.HistoryRequest(),
    "ping": m.PingRequest(),
    "send": m.SendRequest(),
    "rpc": m.RPCRequest(),
    "refresh": m.RefreshRequest(),
    "sub_refresh": m.SubRefreshRequest(),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_request_of_a_command(name: str) -> None:
    command = m.Command(id=1, **{name: REQUESTS[name]})  # type: ignore[arg-type]
    assert command.requests() == [REQUESTS[name]]
    assert m.command_name(command) == name


def test_a_command_has_every_request_of_the_protocol() -> None:
    assert {"id", *REQUESTS} == set(m.Command.__struct_fields__)
    assert len(m.Command(**REQUESTS).requests()) == len(REQUESTS)  # type: ignore[arg-type]


def test_the_pong_has_no_request() -> None:
    assert m.Command().requests() == []
    assert m.command_name(m.Command()) == m.command_name(m.PONG) == "pong"


def test_names_of_replies() -> None:
    assert m.reply_name(m.Reply()) == m.reply_name(m.PING) == "ping"
    assert m.reply_name(m.Reply(id=1, error=m.ErrorMessage(100))) == "error"
    assert m.reply_name(m.Reply(id=1, connect=m.ConnectResult())) == "connect"
    assert m.reply_name(m.Reply(id=1, publish=m.PublishResult())) == "publish"
    assert m.reply_name(m.Reply(push=m.Push(channel="c", pub=m.Publication()))) == "pub"
    assert m.reply_name(m.Reply(push=m.Push(disconnect=m.DisconnectPush(3000)))) == "disconnect"


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, {"a": "\ud800"}, {"\ud800": "a"}])
def test_tags_that_no_subscriber_could_be_sent(tags: Any) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        m.checked_tags(tags)
    assert m.checked_tags({"a": "é"}) == {"a": "é"}


def test_a_position_does_not_change() -> None:
    with pytest.raises(AttributeError):
        m.StreamPosition(1, "e").offset = 2  # type: ignore[misc]
