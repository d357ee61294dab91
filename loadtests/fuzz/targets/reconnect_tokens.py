"""Reconnect tokens: the hub's verifier, which has no JWT library under it, beside PyJWT's `decode`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import jwt

from hub.core.reconnect import ReconnectTokens, is_reconnect_token, needs_login_token
from hub.core.tokens import Expired, Invalid
from loadtests.fuzz.model import is_utf8
from loadtests.fuzz.mutate import json_text, mutate, mutate_value
from loadtests.fuzz.target import PureTarget
from loadtests.fuzz.targets.json_commands import read as read_json
from loadtests.fuzz.targets.tokens import FUTURE, LEEWAY_S, PAST, WORDS

KEYS = ("the-first-key-of-a-fuzzer-is-at-least-32-bytes", "the-second-key-of-a-fuzzer-also-has-32-bytes")
AUDIENCE = "hub"
HEADER = json.dumps({"alg": "HS256", "typ": "hub-reconnect+jwt"}, separators=(",", ":")).encode()
CLAIMS: tuple[dict[str, Any], ...] = (
    {"aud": AUDIENCE, "exp": FUTURE, "client": "c", "owners": ["o"]},
    {"aud": AUDIENCE, "exp": PAST, "client": "c", "owners": ["o"], "sub": "ann"},
    {
        **{
            "aud": AUDIENCE,
            "exp": FUTURE,
            "client": "c",
            "owners": ["o", "p"],
            "sub": "ann",
            "auth_time": PAST,
        },
        **{"info": {"text": {"a": 1}}, "expire_at": FUTURE, "anonymous": True},
        "channels": {
            "a": {"server": True, "granted": True, "info": {"binary": "AAEC"}, "exp": FUTURE},
            "b": {"override": {"presence": True}, "granted": True, "data": {"text": None}},
        },
    },
)


class ReconnectTokenTarget(PureTarget):
    name = "reconnect-tokens"

    def __init__(self) -> None:
        self._tokens = ReconnectTokens(KEYS, AUDIENCE, 300.0)

    def draw(self, chance: random.Random) -> bytes:
        """Return a token that is signed with a key of the hub, and now and then changed after that."""
        claims: Any = chance.choice(CLAIMS)
        for _ in range(chance.choice((0, 1, 1, 2))):
            claims = mutate_value(claims, chance)
        body = json_text(claims, chance)
        if chance.random() < 0.1:
            body = mutate(body, chance)
        header = HEADER if chance.random() < 0.95 else json_text({"alg": "HS256", "typ": "JWT"}, chance)
        signed = _base64url(header) + b"." + _base64url(body)
        if chance.random() < 0.1:
            signed = mutate(signed, chance, WORDS)
        token = signed + b"." + _base64url(hmac.digest(chance.choice(KEYS).encode(), signed, hashlib.sha256))
        return mutate(token, chance, WORDS) if chance.random() < 0.3 else token

    def check(self, data: bytes) -> Iterator[str]:
        token, now = data.decode("latin-1"), time.time()
        ours = self._tokens.verify(token, now)
        needs_login_token(token)
        theirs = _decode(token)
        if isinstance(ours, Invalid):
            if isinstance(theirs, dict):
                yield f"hub refuses: {_wrong(token, theirs) or _kind(ours.reason)}"
        elif not is_reconnect_token(token):
            yield "hub accepts a token of another kind"
        elif isinstance(ours, Expired):
            if theirs != "ExpiredSignatureError":
                found = theirs if isinstance(theirs, str) else "valid"
                yield f"hub: expired, PyJWT: {found}{_strictness(token)}"
        elif isinstance(theirs, str):
            yield f"hub accepts, PyJWT refuses: {theirs}{_strictness(token)}"
        elif (ours.user, ours.client, list(ours.chain.owners), list(ours.channels)) != (
            *(theirs.get("sub", ""), theirs["client"], theirs["owners"], list(theirs.get("channels", {}))),
        ):
            yield "other claims"


def _decode(token: str) -> dict[str, Any] | str:
    why = ""
    for key in KEYS:
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "aud"]},
            )
        except jwt.InvalidSignatureError as exc:
            why = why or type(exc).__name__
        except Exception as exc:
            return type(exc).__name__
        else:
            return found
    return why


def _strictness(token: str) -> str:
    """What PyJWT checks of a token that the hub signed, and the hub need not."""
    _, body, _ = token.split(".")
    try:
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        text.decode()
    except ValueError:
        text = b""
    if not text or not re.fullmatch(r"[A-Za-z0-9_-]*", body):
        return ", not base64url or UTF-8"
    value, _ = read_json(text)
    odd = isinstance(value, dict) and any(not isinstance(value.get(name, ""), str) for name in ("jti", "iss"))
    times = isinstance(value, dict) and any(name in value for name in ("iat", "nbf"))
    return ", which the hub does not write" if odd or times else ""


def _wrong(token: str, claims: dict[str, Any]) -> str | None:
    if not is_reconnect_token(token):
        return "another header than the hub writes"
    if len({type(each) for each in claims.get("aud", "")} | {str}) > 1 or not isinstance(claims["aud"], str):
        return "an audience that is a list"
    _, body, _ = token.split(".")
    text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if token.endswith("="):
        return "a signature with padding"
    if not is_utf8(text):
        return "claims that are not UTF-8"
    _, wrong = read_json(text)
    unread = ("nested too deep", "a number beyond a double", "a lone surrogate", "NaN or Infinity")
    return f"claims with {wrong}" if wrong in unread else None


def _kind(reason: str) -> str:
    return (
        "claims of another type"
        if reason.startswith(("Expected", "Object missing", "Invalid base64"))
        else reason[:50]
    )


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
