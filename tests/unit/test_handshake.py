"""The opening handshake: what is taken, what is refused, and what is agreed."""

from __future__ import annotations

import pytest

from hub.protocol.handshake import Compression, Handshake, read
from hub.protocol.heads import Refusal

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455 section 1.3, which also has what it is answered with."""


def ask(*headers: tuple[str, str], compresses: bool = True) -> Handshake | Refusal:
    fields = {"sec-websocket-key": KEY, "sec-websocket-version": "13"}
    for name, _ in headers:
        fields.pop(name, None)
    lines = [*fields.items(), ("host", "example.org"), *headers]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in lines if value]
    return read(encoded, compresses=compresses)


def agreed(*offers: str, compresses: bool = True) -> Compression | None:
    answer = ask(*(("sec-websocket-extensions", offer) for offer in offers), compresses=compresses)
    assert isinstance(answer, Handshake)
    return answer.compression


def status(*headers: tuple[str, str]) -> str:
    answer = ask(*headers)
    assert isinstance(answer, Refusal)
    return answer.status[:3]


def test_a_handshake_is_answered_as_the_rfc_has_it() -> None:
    assert ask() == Handshake(KEY, [])
    assert Handshake(KEY, []).accept() == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


def test_subprotocols_are_read_from_every_header_and_the_answer_names_what_was_agreed() -> None:
    asked = ask(("sec-websocket-protocol", "one, two"), ("sec-websocket-protocol", "three"))
    assert asked == Handshake(KEY, ["one", "two", "three"])
    accepted = Handshake(KEY, [], Compression("permessage-deflate", 15)).accept("two", [(b"x-app", b"\xe9")])
    assert accepted.endswith(
        b"Sec-WebSocket-Protocol: two\r\nSec-WebSocket-Extensions: permessage-deflate\r\nx-app: \xe9\r\n\r\n"
    )


@pytest.mark.parametrize("key", ["", "c2hvcnQ=", "not base64", KEY + "=", KEY[:-2] + "\xe9="])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    assert status(("sec-websocket-key", key)) == "400"


def test_what_is_no_handshake_is_refused() -> None:
    assert status(("sec-websocket-key", KEY), ("sec-websocket-key", KEY)) == "400"
    assert status(("content-length", "2")) == "400"
    assert status(("transfer-encoding", "chunked")) == "400"
    assert ask(("content-length", "0")) == ask()
    assert status(("sec-websocket-version", "")) == "426"
    older = ask(("sec-websocket-version", "8"))
    assert isinstance(older, Refusal)
    assert "Sec-WebSocket-Version: 13\r\n" in older.headers


@pytest.mark.parametrize("header", [("transfer-encoding", "chunked"), ("content-length", "5")])
def test_a_request_with_a_body_is_refused(header: tuple[str, str]) -> None:
    assert status(header) == "400"


def test_a_body_of_no_bytes_is_none() -> None:
    assert isinstance(ask(("content-length", "0")), Handshake)


def test_compression_is_agreed_without_context_takeover() -> None:
    assert agreed() is None
    assert agreed("permessage-deflate", compresses=False) is None
    both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    compression = agreed("permessage-deflate; client_max_window_bits")
    assert compression == Compression(both, 15)
    assert compression.is_shared


def test_the_first_offer_that_can_be_met_is() -> None:
    compression = agreed("x-other, permessage-deflate; server_max_window_bits=99", "permessage-deflate")
    assert compression is not None
    assert compression.is_shared
    assert agreed("x-other", "permessage-deflate; unknown=1") is None
    small = agreed("permessage-deflate; server_max_window_bits=9")
    assert small is not None
    assert not small.is_shared


def test_extensions_that_cannot_be_read_are_refused() -> None:
    assert status(("sec-websocket-extensions", "permessage-deflate; =")) == "400"
