"""Every difference between the hub and a second implementation that a run may find, with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A difference that is meant.

    Args:
        target: where it shows.
        kind: what the target calls it.
        reason: why it is so, for the docs.
    """

    target: str
    kind: str
    reason: str


_STRICT = "Some parsers refuse such JSON or read it otherwise, so a subscriber could fail on it."
_PADDED = "Both refuse the frame. One looks at its first bytes, the other waits for more of it."
_ELSEWHERE = "`websockets` counts the control frames between fragments towards the size of the message."
_NO_FORM = "Not every encoding has a form of such a value, so a subscriber could fail on it."


def _each(target: str, kinds: dict[str, str]) -> tuple[Difference, ...]:
    return tuple(Difference(target, kind, reason) for kind, reason in kinds.items())


_JSON_KINDS = (
    "nested too deep",
    "a number beyond a double",
    "NaN or Infinity",
    "a lone surrogate",
    "a key twice",
)

_HEAD_RULES = {
    "no Host, or several": "RFC 9112 section 3.2 asks for 400; other parsers do not look.",
    "a Host that is no name and port": "RFC 9112 section 3.2 asks for 400; other parsers do not look.",
    "Transfer-Encoding in HTTP/1.0": (
        "RFC 9112 section 6.1: the framing of such a message is faulty, since a proxy may not know chunks."
    ),
    "a Transfer-Encoding that is not chunked": (
        "RFC 9112 section 6.1 asks for 501 where a server does not know a transfer coding."
    ),
    "an expectation that is not 100-continue": "RFC 9110 section 10.1.1 allows 417.",
    "a head over 64 KiB or 256 lines": "RFC 6585 section 5: 431. `httptools` has no limit.",
    "a target over 32 KiB": "RFC 9110 section 15.5.15: 414. `httptools` has no limit.",
    "a target in no form that a server takes": (
        "RFC 9112 section 3.2 lists the forms; none has a fragment. `httptools` does not look."
    ),
    "CONNECT": "RFC 9110 section 9.3.6: the hub is no proxy, and answers 501 (section 15.6.2).",
    "another version of HTTP": "RFC 9110 section 15.6.6: 505. `httptools` reads HTTP/0.9 and HTTP/2.0, too.",
}

EXPLAINED: tuple[Difference, ...] = (
    *_each(
        "frames",
        {
            "hub refuses first: 1009 too many fragments": (
                "`client.fragments_max` limits them; `websockets` has no limit."
            ),
            "hub refuses: 1009 too many fragments": "The same, in a message whose end did not come.",
            "hub refuses first: over 20 pings in one piece": (
                "The hub closes with 1008; `websockets` answers any number."
            ),
            "hub refuses first: 1009 a message is longer than": (
                "The limit holds for the compressed bytes of all fragments, too."
            ),
            "hub refuses a frame by its header": _PADDED,
            "websockets refuses half a header": _PADDED,
            "both refuse, with other codes": "A frame has two faults, and each names another of them.",
            "websockets refuses first: 1009 frame with": _ELSEWHERE,
            "websockets refuses first: 1009 frame after reading": _ELSEWHERE,
            "websockets refuses first: 1009 frame exceeds limit of": (
                "The hub inflates a message when it is whole, `websockets` each fragment."
            ),
            "websockets refuses: 1009 frame with": _ELSEWHERE,
            "websockets refuses first: 1002 decompression failed": (
                "The hub inflates a message when it is whole, `websockets` each fragment."
            ),
            "websockets refuses: 1002 decompression failed": (
                "The hub inflates a message when it is whole, `websockets` each fragment."
            ),
            "websockets refuses first: 1002 incomplete fragmented message": (
                "RFC 6455 section 5.4 allows control frames between fragments, and a close frame is one."
            ),
        },
    ),
    *_each(
        "handshakes",
        {
            "hub answers 426, websockets 400": (
                "RFC 6455 section 4.4 asks for 426 where the version is not 13."
            ),
            "hub accepts, websockets refuses: Sec-WebSocket-Protocol": (
                "The hub takes a subprotocol that it knows, and passes over what is malformed beside it."
            ),
            "hub accepts, websockets refuses: Sec-WebSocket-Extensions": (
                "The hub takes the first offer that it can meet, and reads no further."
            ),
            "hub accepts, websockets refuses: Origin": (
                "The endpoint checks the origins, after the handshake is read."
            ),
        },
    ),
    *_each("json", {f"hub refuses: {kind}": _STRICT for kind in _JSON_KINDS}),
    *_each(
        "json",
        {
            "hub refuses: an integer written as a float": (
                "Servers of the protocol in typed languages refuse 1.0 for an integer, too."
            ),
            "an id is told by its place": (
                "A command that is too deep is not parsed. Its id is told where it stands first or last."
            ),
            "an id is told although its text is broken": "The sender is told 107 where the id can be read.",
            "a deep command's id is not told": (
                "Its id stands neither first nor last; the connection ends with 3501."
            ),
        },
    ),
    *_each(
        "messagepack",
        {
            "hub refuses: an extension type": _NO_FORM,
            "hub refuses: a key that is no text": _NO_FORM,
            "hub refuses: a number that is not finite": _NO_FORM,
            "hub refuses: too many values": (
                "A short message may hold values that take a hundred times the memory."
            ),
            "hub refuses: nested too deep": _STRICT,
            "hub refuses: a key twice": _STRICT,
            "hub refuses: an integer written as a float": "As in JSON.",
        },
    ),
    *_each("protobuf", {f"hub refuses: a payload with {kind}": _STRICT for kind in _JSON_KINDS}),
    *_each(
        "protobuf",
        {
            "the hub reads type and phase of a subscription": (
                "`centrifuge-python` does not know these fields."
            ),
            "hub refuses: a negative number": "JSON and MessagePack have no negative offsets either.",
            "hub refuses: too many values": (
                "A short message may hold values that take a hundred times the memory."
            ),
        },
    ),
    *_each("tokens", {f"hub refuses: claims with {kind}": _STRICT for kind in _JSON_KINDS}),
    *_each(
        "tokens",
        {
            "hub refuses: claims that are not UTF-8": (
                "JSON is UTF-8, which has no surrogates (RFC 3629 section 3); Python's reader lets them pass."
            ),
            "hub refuses: a claim of another type": "RFC 7519 gives claims types; PyJWT checks some of them.",
            "hub refuses: a reconnect token": (
                "A reconnect token must not pass for a login token (RFC 8725 section 3.11)."
            ),
            "hub refuses: a subscription token": (
                "A token for one channel must not log in (RFC 8725 section 3.11)."
            ),
            "hub: invalid, PyJWT: expired": (
                "A token that expired and is invalid besides: the hub says invalid."
            ),
            "hub accepts, PyJWT refuses: a claim that is null": (
                "Null counts as absent; PyJWT wants a number or a text."
            ),
        },
    ),
    *_each("reconnect-tokens", {f"hub refuses: claims with {kind}": _STRICT for kind in _JSON_KINDS}),
    *_each(
        "reconnect-tokens",
        {
            "hub refuses: claims that are not UTF-8": (
                "JSON is UTF-8, which has no surrogates (RFC 3629 section 3); Python's reader lets them pass."
            ),
            "hub refuses: claims of another type": (
                "Only a hub writes these tokens: PyJWT does not know the claims."
            ),
            "hub refuses: another header than the hub writes": "The hub compares the header byte by byte.",
            "hub refuses: an audience that is a list": "The hub writes one audience, a text.",
            "hub refuses: a signature with padding": (
                "RFC 7515 section 2 leaves out the padding of base64url; PyJWT does not look."
            ),
            "hub accepts, PyJWT refuses: DecodeError, not base64url or UTF-8": (
                "The signature, over the text as it came, is checked first: only a hub makes such a token."
            ),
            "hub: expired, PyJWT: DecodeError, not base64url or UTF-8": (
                "The signature, over the text as it came, is checked first: only a hub makes such a token."
            ),
        },
    ),
    *_each(
        "bus",
        {"hub refuses: an array or an extension": "A message is flat: scalars and byte strings alone."},
    ),
    *_each(
        "http",
        {
            **{f"hub refuses: {rule}": reason for rule, reason in _HEAD_RULES.items()},
            "hub refuses: more than 32 requests that wait": (
                "A client that sends requests without end reads no answer: the hub holds 33 of them."
            ),
            "hub refuses: over 64 KiB of framing": (
                "RFC 9112 section 7.1.1 asks servers to limit chunk extensions. `httptools` has no limit."
            ),
        },
    ),
    *_each(
        "upgrades",
        {
            "hub accepts, websockets refuses: Sec-WebSocket-Protocol": "As for `handshakes`.",
            "hub accepts, websockets refuses: Sec-WebSocket-Extensions": "As for `handshakes`.",
            **{
                f"hub refuses: {rule}": f"As for `http`: {_HEAD_RULES[rule]}"
                for rule in (
                    "no Host, or several",
                    "a Host that is no name and port",
                    "a target in no form that a server takes",
                )
            },
            "hub accepts, websockets refuses: Upgrade": (
                "A client may name several protocols (RFC 9110 section 7.8), `websocket` among them."
            ),
            "hub accepts, websockets refuses: Connection": (
                "The hub passes over a malformed option beside `Upgrade`."
            ),
            "hub accepts, websockets refuses: several spaces in the first line": (
                "RFC 9112 section 3 lets a server read any whitespace there as one space."
            ),
            "hub refuses: an empty element in Upgrade": "RFC 9110 section 5.6.1 forbids senders to write it.",
            "hub refuses: an empty element in Connection": (
                "RFC 9110 section 5.6.1 forbids senders to write it."
            ),
        },
    ),
    *_each(
        "emulation",
        {
            "the hub answers 503, not 404: the other nodes cannot be reached: retry later": (
                "The request names a node that the target `redis` invented, and that has not been forgotten."
            ),
        },
    ),
    *_each(
        "log",
        {
            f"boundary.failed bus {exception}": (
                "A call of another node whose request does not fit its method is ignored, counted and logged."
            )
            for exception in (
                "msgspec.DecodeError",
                "msgspec.ValidationError",
                "ValueError",
                "RecursionError",
            )
        },
    ),
)


def table() -> Iterator[str]:
    """The lines of the table in the docs."""
    yield "| target | difference | reason |"
    yield "| --- | --- | --- |"
    for each in EXPLAINED:
        yield f"| `{each.target}` | {each.kind} | {each.reason} |"
