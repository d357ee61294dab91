"""The head of an HTTP request: which heads a server refuses, and what a head asks for (RFC 9110, RFC 9112).

The parser has checked the syntax of the lines, and that Content-Length and Transfer-Encoding agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

HEAD_BYTES_MAX: Final = 65_536
"""The size of a head: the request target, and the names and values of the header lines."""

TARGET_BYTES_MAX: Final = 32_768
"""The size of a request target."""

HEADER_LINES_MAX: Final = 256
"""The number of header lines in a head."""

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_LINE_BYTES: Final = 4
"""What a header line has beside its name and its value."""

_HOST: Final = re.compile(rb"(\[[0-9A-Za-z:._~%-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]*)?")
"""`uri-host [":" port]` (RFC 9110 section 7.2). The name may be empty."""

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is refused for its head.

    Args:
        status: code and phrase of the response.
        text: of its body, a line for people.
        headers: lines that belong to the status.
    """

    status: str
    text: str
    headers: str = ""


def check(method: str, version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    """Return why a request is refused for its head; None for a head that is served.

    Args:
        method: of the request.
        version: of HTTP: `1.1`.
        target: from the request line.
        headers: names in lower case.
    """
    if version not in ("1.0", "1.1"):
        return Refusal("505 HTTP Version Not Supported", "this server speaks HTTP/1.0 and HTTP/1.1")
    if len(target) > TARGET_BYTES_MAX:
        return too_large(target)
    if method == "CONNECT":
        return Refusal("501 Not Implemented", "this server is not a proxy")
    if not _is_target(method, target):
        return Refusal("400 Bad Request", "the request target cannot be read")
    return _check_lines(version, len(target), headers)


def too_large(target: bytes = b"") -> Refusal:
    """Return the answer to a head that is too large.

    Args:
        target: what has come of the request target.
    """
    if len(target) > TARGET_BYTES_MAX:
        return Refusal("414 URI Too Long", f"a request target has at most {TARGET_BYTES_MAX} bytes")
    text = f"a head has at most {HEAD_BYTES_MAX} bytes and {HEADER_LINES_MAX} lines"
    return Refusal("431 Request Header Fields Too Large", text)


def _is_target(method: str, target: bytes) -> bool:
    """Whether a target is in a form that a server takes (RFC 9112 section 3.2). No form has a fragment."""
    if target == b"*":
        return method == "OPTIONS"
    return b"#" not in target and (target.startswith(b"/") or absolute(target) is not None)


def _check_lines(version: str, size: int, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    hosts = 0
    for name, value in headers:
        size += len(name) + len(value) + _LINE_BYTES
        if name == b"host":
            hosts += 1
            if hosts > 1 or not _HOST.fullmatch(value):
                return Refusal("400 Bad Request", "Host must be there once, and be a name and a port")
        elif name == b"transfer-encoding":
            if version == "1.0":
                return Refusal("400 Bad Request", "HTTP/1.0 has no Transfer-Encoding")
            if value.lower() != b"chunked":
                return Refusal("501 Not Implemented", "the one Transfer-Encoding is chunked")
        elif name == b"expect" and version == "1.1" and value.lower() != b"100-continue":
            return Refusal("417 Expectation Failed", "the one expectation is 100-continue")
    if size > HEAD_BYTES_MAX or len(headers) > HEADER_LINES_MAX:
        return too_large()
    if version == "1.1" and not hosts:
        return Refusal("400 Bad Request", "Host is missing")
    return None


def absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Split a target in absolute form, such as `http://hub/livez`, that clients send to a proxy.

    Returns:
        The authority, which takes the place of the Host header, and the target in origin form; None for a
        target in another form.
    """
    if target.startswith(b"/"):  # nearly every target
        return None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _HOST.fullmatch(match[1]):
        return None
    return match[1], (match[2] or b"/") + (match[3] or b"")


def is_handshake(method: str, version: str, headers: Headers) -> bool:
    """Whether a request asks for a WebSocket. A server ignores every other upgrade (RFC 9110 section 7.8).

    Args:
        method: of the request.
        version: of HTTP: `1.1`.
        headers: names in lower case.
    """
    if method != "GET" or version != "1.1":
        return False
    connection: set[bytes] = set()
    upgrade: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            connection |= _tokens(value)
        elif name == b"upgrade":
            upgrade |= _tokens(value)
    return b"upgrade" in connection and b"websocket" in upgrade


def _tokens(value: bytes) -> set[bytes]:
    """The members of a list, which may be spread over several header lines (RFC 9110 section 5.3)."""
    if b"," not in value:
        return {value.lower().strip(b" \t")}
    return {token.strip(b" \t") for token in value.lower().split(b",")}
