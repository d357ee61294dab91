"""What the hub makes of HTTP requests: `httptools` reads them, and the rules of docs/http.md decide."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

import httptools

HEAD_BYTES_MAX = 65_536
TARGET_BYTES_MAX = 32_768
LINES_MAX = 256
LINE_BYTES = len(": \r\n")

_HOST_CHARS = frozenset(string.ascii_letters + string.digits + "-._~!$&'()*+,;=%")
_IPV6_CHARS = frozenset(string.ascii_letters + string.digits + ":.%-_~")
_OTHER_VERSIONS = ("Invalid HTTP version", "Pause on PRI/Upgrade")
"""What `httptools` says of bytes of another version of HTTP."""


@dataclass(frozen=True)
class Rule:
    """A rule of docs/http.md that a request breaks.

    Args:
        status: of the refusal.
        what: the request does.
    """

    status: int
    what: str


NO_HOST = Rule(400, "no Host, or several")
ODD_HOST = Rule(400, "a Host that is no name and port")
OLD_CHUNKS = Rule(400, "Transfer-Encoding in HTTP/1.0")
OTHER_CODING = Rule(501, "a Transfer-Encoding that is not chunked")
OTHER_EXPECTATION = Rule(417, "an expectation that is not 100-continue")
LARGE_HEAD = Rule(431, "a head over 64 KiB or 256 lines")
LONG_TARGET = Rule(414, "a target over 32 KiB")
ODD_TARGET = Rule(400, "a target in no form that a server takes")
TUNNEL = Rule(501, "CONNECT")
OTHER_VERSION = Rule(505, "another version of HTTP")


@dataclass
class Read:
    """A request.

    Args:
        target: from the request line.
        headers: names in lower case, with values. An upgrade that the hub does not make is not among them.
        keeps_alive: whether another request may follow.
        upgrades: whether it asks for an upgrade, and its body was not read yet.
    """

    method: str = ""
    target: bytes = b""
    version: str = ""
    headers: list[list[str]] = field(default_factory=list)
    body: bytes = b""
    keeps_alive: bool = True
    upgrades: bool = False

    def values(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for key, value in self.headers if key == name]

    @property
    def is_handshake(self) -> bool:
        """Whether it asks for a WebSocket; the hub ignores other upgrades."""
        return (
            self.upgrades
            and (self.method, self.version) == ("GET", "1.1")
            and "websocket" in _members(self.values("upgrade"))
        )

    @property
    def path(self) -> str:
        """The path of the target."""
        return self.served().target.partition(b"?")[0].decode("latin-1")

    def served(self) -> Read:
        """Return the request as an app gets it: in origin form."""
        lines, target = self.headers, self.target
        if (split := _absolute(target)) is not None:
            path, mark, query = target.partition(b"?")
            target = (b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/") + mark + query
            lines = [["host", split.netloc], *(line for line in lines if line[0] != "host")]
        return Read(self.method, target, self.version, lines, self.body)


def _members(values: Sequence[str]) -> list[str]:
    return [each.strip(" \t").lower() for value in values for each in value.split(",")]


def _absolute(target: bytes) -> SplitResult | None:
    """A target in absolute form, in parts."""
    try:
        split = urlsplit(target.decode("ascii"))
    except ValueError:
        return None
    return split if split.scheme in ("http", "https") and _is_host(split.netloc) and split.netloc else None


def _is_host(host: str) -> bool:
    """Whether a text is a name or an address and a port, any of which may be missing."""
    name, port = host, ""
    if ":" in host and not host.endswith("]"):
        name, _, port = host.rpartition(":")
    if port.strip(string.digits):
        return False
    if name.startswith("["):
        return name.endswith("]") and len(name) > 2 and _IPV6_CHARS.issuperset(name[1:-1])
    return _HOST_CHARS.issuperset(name)


def broken_rules(
    method: str, version: str, target: bytes, headers: Sequence[Sequence[str]]
) -> Iterator[Rule]:
    """Find the rules that a head breaks.

    Args:
        method, version, target: of the request line.
        headers: names in lower case, with values.
    """
    if version not in ("1.0", "1.1"):
        yield OTHER_VERSION
        return
    if method == "CONNECT":
        yield TUNNEL
        return
    is_origin, is_asterisk = target.startswith(b"/"), target == b"*" and method == "OPTIONS"
    if b"#" in target or not (is_origin or is_asterisk or _absolute(target)):
        yield ODD_TARGET
    if len(target) > TARGET_BYTES_MAX:
        yield LONG_TARGET
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        yield NO_HOST
    if not all(map(_is_host, hosts)):
        yield ODD_HOST
    codings = [value.lower() for name, value in headers if name == "transfer-encoding"]
    if codings and version == "1.0":
        yield OLD_CHUNKS
    if any(each != "chunked" for each in codings):
        yield OTHER_CODING
    expected = [value.lower() for name, value in headers if name == "expect"]
    if version == "1.1" and any(each != "100-continue" for each in expected):
        yield OTHER_EXPECTATION
    size = len(target) + sum(len(name) + len(value) + LINE_BYTES for name, value in headers)
    if size > HEAD_BYTES_MAX or len(headers) > LINES_MAX:
        yield LARGE_HEAD


class _RefusedError(Exception):
    """A head breaks a rule."""


class Stream:
    """Reads the requests in a stream of bytes.

    Args:
        data: the stream.

    Attributes:
        size: of the stream in bytes.
        requests: those that are whole and keep to the rules.
        current: the one behind them that is not.
        end: why there are no more: "" for the end of the stream, or `unfinished`, `refused`, `malformed`, or
            `a handshake`.
        broken: the rules whose statuses the answer to `current` may have.
    """

    def __init__(self, data: bytes) -> None:
        self.requests: list[Read] = []
        self.current: Read | None = None
        self.broken: Sequence[Rule] = ()
        self.end = ""
        self.size = len(data)
        try:
            while data:
                self._start()
                data = self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.end = "refused" if isinstance(cause, _RefusedError) else "malformed"
            if self.end == "malformed" and str(error) in _OTHER_VERSIONS:
                self.broken = [OTHER_VERSION]
        else:
            if self.current is not None:
                self.end = "a handshake" if self.current.is_handshake else "unfinished"

    def _start(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # What follows a request with `Connection: close` is ignored.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _feed(self, data: bytes) -> bytes:
        """Read; returns what is to be read by a new parser, since this one stops at upgrades."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            current = self.current
            assert current is not None
            if current.is_handshake:
                return b""
            lines = [f"{name}: {value}" for name, value in current.headers if name != "upgrade"]
            line = f"{current.method} {current.target.decode('latin-1')} HTTP/{current.version}"
            head = "\r\n".join((line, *lines, "", "")).encode("latin-1")
            rest: bytes = data[upgrade.args[0] :]
            return head + rest
        return b""

    # What the parser calls

    def on_message_begin(self) -> None:
        self.current = Read()  # in place of one whose upgrade is ignored, which is read again

    def on_url(self, url: bytes) -> None:
        assert self.current is not None
        self.current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.current is not None
        if not self.current.version:  # else it is a trailer
            # `httptools` leaves the whitespace behind a value, which is no part of it (RFC 9110 section 5.5).
            self.current.headers.append(
                [name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")]
            )

    def on_headers_complete(self) -> None:
        current = self.current
        assert current is not None
        current.version = self._parser.get_http_version()
        current.method = self._parser.get_method().decode("ascii")
        current.keeps_alive = self._parser.should_keep_alive()
        current.upgrades = self._parser.should_upgrade()
        self.broken = list(broken_rules(current.method, current.version, current.target, current.headers))
        if self.broken:
            raise _RefusedError

    def on_body(self, body: bytes) -> None:
        assert self.current is not None
        self.current.body += body

    def on_message_complete(self) -> None:
        current = self.current
        assert current is not None
        if not current.upgrades:  # else its body is still to be read
            self.requests.append(current)
            self.current = None
