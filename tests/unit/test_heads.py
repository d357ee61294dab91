"""The head of a request: which heads are refused, and what a head asks for."""

from __future__ import annotations

import pytest

from hub.protocol.heads import (
    HEAD_BYTES_MAX,
    HEADER_LINES_MAX,
    TARGET_BYTES_MAX,
    absolute,
    check,
    is_handshake,
)

HOST = (b"host", b"hub")


def status(
    *headers: tuple[bytes, bytes],
    method: str = "GET",
    version: str = "1.1",
    target: bytes = b"/",
    host: tuple[bytes, bytes] | None = HOST,
) -> str:
    """The status of the refusal; empty where the head is served."""
    refusal = check(method, version, target, [*([host] if host else []), *headers])
    return refusal.status[:3] if refusal else ""


@pytest.mark.parametrize(("version", "expected"), [("1.0", ""), ("1.1", ""), ("0.9", "505"), ("2.0", "505")])
def test_versions(version: str, expected: str) -> None:
    assert status(version=version) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (value, "")
            for value in (b"", b"hub", b"hub:80", b"hub:", b"127.0.0.1:8000", b"[::1]", b"[::1]:80")
        ),
        *((value, "") for value in (b"a_b.example", b"xn--bcher-kva.example", b"a%20b")),
        *(
            (value, "400")
            for value in (b"a b", b"a/b", b"a@b", b"a,b:c", b"a:b", b"[::1", b"::1", b"b\xc3\xbc")
        ),
        *((value, "400") for value in (b"hub\n", b"hub:80:80", b"http://hub", b"a?b", b"a#b", b'"a"')),
    ],
)
def test_hosts(value: bytes, expected: str) -> None:
    assert status(host=(b"host", value)) == expected
    assert status(host=(b"host", value), version="1.0") == expected


def test_the_number_of_hosts() -> None:
    assert status(host=None) == "400"
    assert status(host=None, version="1.0") == ""
    assert status(HOST) == status(HOST, version="1.0") == "400"


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("OPTIONS", b"*", ""),
        ("GET", b"*", "400"),
        ("GET", b"//a", ""),
        ("GET", b"/a?b=c", ""),
        ("GET", b"/a#b", "400"),
        ("GET", b"a", "400"),
        ("GET", b"http://hub/a", ""),
        ("GET", b"HTTPS://hub", ""),
        ("GET", b"http://hub/#a", "400"),
        ("GET", b"http:///a", "400"),
        ("GET", b"http://ann@hub/", "400"),
        ("GET", b"ftp://hub/", "400"),
        ("CONNECT", b"hub:80", "501"),
        ("GET", b"/" + b"a" * (TARGET_BYTES_MAX - 1), ""),
        ("GET", b"/" + b"a" * TARGET_BYTES_MAX, "414"),
    ],
)
def test_targets(method: str, target: bytes, expected: str) -> None:
    assert status(method=method, target=target) == expected


def test_the_absolute_form_is_split() -> None:
    assert absolute(b"http://hub:80/a/b?c?d") == (b"hub:80", b"/a/b?c?d")
    assert absolute(b"http://hub?c") == (b"hub", b"/?c")
    assert absolute(b"http://hub") == (b"hub", b"/")
    assert absolute(b"/http://hub/") is None


def test_bodies_and_expectations() -> None:
    assert status((b"transfer-encoding", b"Chunked")) == ""
    assert status((b"transfer-encoding", b"gzip, chunked")) == "501"
    assert status((b"transfer-encoding", b"chunked"), version="1.0") == "400"
    assert status((b"expect", b"100-Continue")) == ""
    assert status((b"expect", b"magic")) == "417"
    assert status((b"expect", b"magic"), version="1.0") == ""


def test_sizes() -> None:
    assert status(*[(b"a", b"b")] * (HEADER_LINES_MAX - 1)) == ""
    assert status(*[(b"a", b"b")] * HEADER_LINES_MAX) == "431"
    assert status((b"a", b"b" * (HEAD_BYTES_MAX - 100))) == ""
    assert status((b"a", b"b" * HEAD_BYTES_MAX)) == "431"


@pytest.mark.parametrize(
    ("expected", "lines"),
    [
        (True, ["host: hub", "connection: Upgrade", "upgrade: websocket"]),
        (True, ["connection: keep-alive, UPGRADE", "upgrade: WebSocket"]),
        (True, ["connection: Upgrade", "connection: keep-alive", "upgrade: websocket"]),
        (True, ["connection: keep-alive", "upgrade: h2c", "upgrade: websocket", "connection: upgrade"]),
        (True, ["connection: , upgrade ,", "upgrade: websocket,\tfoo"]),
        (False, ["connection: keep-alive", "upgrade: websocket"]),
        (False, ["connection: upgrade", "upgrade: h2c"]),
        (False, ["connection: upgrade", "upgrade: websockets"]),
        (False, ["connection: upgrade-insecure", "upgrade: websocket"]),
        (False, ["upgrade: websocket"]),
        (False, ["connection: upgrade"]),
    ],
)
def test_handshakes(expected: bool, lines: list[str]) -> None:
    pairs = [line.partition(": ") for line in lines]
    headers = [(name.encode(), value.encode()) for name, _, value in pairs]
    assert is_handshake("GET", "1.1", headers) is expected
    assert not is_handshake("POST", "1.1", headers)
    assert not is_handshake("GET", "1.0", headers)
